"""Methods for inverse problems: what is refused at the door, and in which words."""

import math

import numpy as np
import pytest
import torch
from operators_listed import NONLINEAR

import sde_diffusion as sd
from sde_diffusion import inverse
from sde_diffusion.inverse import (
    Blur,
    Downsample,
    FunctionOperator,
    LinearOperator,
    Mask,
    Matrix,
    Measurement,
    gaussian_kernel,
)

F64 = torch.float64
METHODS = pytest.mark.parametrize("method", inverse.METHODS.values(), ids=inverse.METHODS)
LINEAR_ONLY = ("pigdm", "ddnm", "diffpir")
WITHOUT_JACOBIAN = ("ddnm", "diffpir", "mpgd")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def prior(schedule=None):
    law = sd.problems.GaussianMixture([1.0], normal(1, 3), [0.5])
    return law.denoiser(schedule or sd.VPLinear())


def measurement(noise=0.2):
    return Measurement(Matrix(normal(2, 3, seed=1)), normal(2, seed=2), noise)


@METHODS
def test_a_prior_is_a_denoiser_and_a_measurement_a_measurement(method):
    with pytest.raises(TypeError, match="prior is function, which has no schedule; wrap it"):
        method(lambda x, t: x, measurement())
    with pytest.raises(TypeError, match=r"measurement is Tensor; say how it was made"):
        method(prior(), normal(2))


@pytest.mark.parametrize("name", LINEAR_ONLY)
@pytest.mark.parametrize("make", NONLINEAR.values(), ids=NONLINEAR)
def test_linear_operators_are_asked_for_where_needed(name, make):
    operator = make()
    y = torch.zeros(operator.measured_shape, dtype=F64)
    with pytest.raises(TypeError, match=f"{name} needs a linear operator.*take dps, mpgd"):
        inverse.METHODS[name](prior(), Measurement(operator, y, 0.1))


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("dps", {"variance": -1.0}, "variance = -1.0 must be a number at least 0"),
        ("dps", {"variance": math.nan}, "variance = nan"),
        ("dps", {"zeta": 1.0}, "give both"),
        ("dps", {"times": [0.5, 0.0]}, "give both"),
        ("dps", {"zeta": -1.0, "times": [0.5, 0.0]}, "zeta = -1.0"),
        ("dps", {"zeta": math.inf, "times": [0.5, 0.0]}, "zeta = inf must be a finite number"),
        ("dps", {"zeta": 1.0, "times": [0.0, 0.5]}, "times"),
        ("pigdm", {"variance": 0.0}, "variance = 0.0 must be a number above 0"),
        ("mmps", {"iterations": 0}, "iterations = 0"),
        ("mmps", {"iterations": 1.5}, "iterations = 1.5"),
        ("diffpir", {"strength": -0.1}, "strength = -0.1"),
        ("diffpir", {"strength": math.inf}, "strength = inf must be a finite number above 0"),
        ("diffpir", {"variance": 0.0}, "variance = 0.0 must be a number above 0"),
        ("mpgd", {"variance": True}, "variance = True"),
    ],
)
def test_settings_out_of_range_are_named(name, options, word):
    with pytest.raises(ValueError, match=word):
        inverse.METHODS[name](prior(), measurement(), **options)


def test_a_point_likelihood_is_refused():
    with pytest.raises(ValueError, match="infinitely narrow"):
        inverse.dps(prior(), measurement(0.0), variance=0.0)


def test_too_many_numbers_to_decompose_are_refused_before_it_begins():
    class Large(LinearOperator):
        event_shape = measured_shape = (5000,)

        def apply(self, x):
            return x

    law = sd.FunctionDenoiser(lambda x, t: x, sd.VPLinear())
    with pytest.raises(ValueError, match=r"Large has 5000.*Set operator.decomposed = 5000"):
        inverse.ddnm(law, Measurement(Large(), torch.zeros(5000), 0.1))
    inverse.ddnm(law, Measurement(Large(), torch.zeros(5000), 0.0))
    willing = Large()
    willing.decomposed = 5000  # the cure that the message names
    inverse.ddnm(law, Measurement(willing, torch.zeros(5000), 0.1))


@pytest.mark.parametrize(
    "make",
    [
        lambda shape: Mask(torch.arange(math.prod(shape)).reshape(shape) % 2 == 0),
        lambda shape: Downsample(2, shape),
        lambda shape: Blur(gaussian_kernel(1.5), shape),
    ],
)
def test_ddnm_with_noise_knows_the_singular_vectors_of_large_images(make):
    """(3, 96, 96): 27,648 numbers, of which no matrix could be made."""
    operator = make((3, 96, 96))
    operator.matrix = None  # never to be asked for
    x, law = normal(1, 3, 96, 96), sd.FunctionDenoiser(lambda x, t: 0.5 * x, sd.VPLinear())
    problem = Measurement.simulate(operator, x[0], 0.1, seed=0)
    moved = inverse.ddnm(law, problem)(x, 0.5)
    before, after = (problem.residual(v).norm() for v in (law(x, 0.5), moved))
    assert after < 0.5 * before


@METHODS
def test_pure_noise_is_a_beginning_for_methods_without_the_jacobian_alone(method):
    """alpha = 0: (sigma^2/alpha) J is 0/0."""
    x, schedule = normal(4, 3, seed=3), sd.FlowMatching()
    for noise in (0.2, 0.0):
        posterior = method(prior(schedule), measurement(noise))
        if method.__name__ not in WITHOUT_JACOBIAN:
            with pytest.raises(ValueError, match=r"alpha = 0.*t_start"):
                posterior(x, 1.0)
            continue
        near = posterior(x, 1 - 1e-6)
        torch.testing.assert_close(posterior(x, 1.0), near, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", [0.2, 0.0])
@pytest.mark.parametrize("name", ["mpgd", "diffpir"])
def test_an_infinite_variance_is_a_limit_even_at_pure_noise(name, noise):
    x, law = normal(4, 3, seed=3), prior(sd.FlowMatching())
    infinite, wide = (
        inverse.METHODS[name](law, measurement(noise), variance=v) for v in (math.inf, 1e9)
    )
    for t in (1.0, 0.5):
        torch.testing.assert_close(infinite(x, t), wide(x, t), rtol=1e-6, atol=1e-6)


def test_a_projection_is_a_function_that_keeps_the_shape():
    with pytest.raises(TypeError, match="project = 'a' must be a function"):
        inverse.mpgd(prior(), measurement(), project="a")
    cut = inverse.mpgd(prior(), measurement(), project=lambda d: d[:, :2])
    with pytest.raises(ValueError, match=r"project returned shape \(4, 2\) for means"):
        cut(normal(4, 3), 0.5)


@METHODS
def test_without_noise_nothing_is_left_to_learn(method):
    """sigma = 0: x_t is the datum, whatever was measured."""
    x = normal(4, 3, seed=3)
    for noise in (0.2, 0.0):
        assert torch.equal(method(prior(), measurement(noise))(x, 0.0), prior()(x, 0.0))


@METHODS
def test_inference_mode_is_for_methods_without_the_jacobian(method):
    x, posterior = normal(4, 3, seed=3), method(prior(), measurement())
    with torch.inference_mode():
        if method.__name__ not in WITHOUT_JACOBIAN:
            with pytest.raises(RuntimeError, match="inference_mode"):
                posterior(x, 0.5)
        else:
            torch.testing.assert_close(posterior(x, 0.5).clone(), posterior(x.clone(), 0.5))


@METHODS
@pytest.mark.parametrize("hidden", [False, True])
def test_runs_that_keep_their_graph_differentiate_methods_too(method, hidden):
    problem = measurement()
    if hidden and method.__name__ in LINEAR_ONLY:
        hidden = False
    if hidden:
        problem = Measurement(FunctionOperator(lambda x: x[:, :2].sin(), (3,)), problem.y, 0.2)
    law = sd.problems.GaussianMixture([0.4, 0.6], normal(2, 3), [0.5, 0.3])
    posterior = method(law.denoiser(sd.VPLinear()), problem)
    plan = sd.SOLVERS["ddim"](sd.VPLinear(), [0.7, 0.5, 0.3])
    leaf, towards = normal(4, 3, seed=3).requires_grad_(), normal(4, 3, seed=9)
    out = sd.run(plan, posterior, leaf, grad=True)
    (slope,) = torch.autograd.grad(out.sum(), leaf)
    with torch.no_grad():
        x, step = leaf.detach(), 1e-6 * towards
        ends = [sd.run(plan, posterior, x + sign * step).sum() for sign in (1, -1)]
    change = float(ends[0] - ends[1]) / 2
    assert float((slope * step).sum()) == pytest.approx(change, rel=1e-5)
    assert not posterior(x, 0.5).requires_grad


def test_inference_mode_is_not_blamed_on_the_operator():
    problem = Measurement(FunctionOperator(lambda x: x[:, :2] ** 2, (3,)), normal(2), 0.2)
    x, method = normal(4, 3), inverse.mpgd(prior(), problem)
    with torch.inference_mode():
        made_inside = x.clone()
        with pytest.raises(
            RuntimeError, match=r"gradients through FunctionOperator.*inference_mode"
        ):
            method(x, 0.5)
    torch.testing.assert_close(method(made_inside, 0.5), method(x, 0.5))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x.detach() ** 2, "has no gradient for autograd"),
        (lambda x: (4 * x).round(), "has no gradient for autograd"),  # one of 0, unlike any u
        (lambda x: torch.from_numpy(x.numpy() ** 2), "works in numpy"),
    ],
)
def test_an_operator_without_gradient_says_so(function, says):
    problem = Measurement(FunctionOperator(function, (3,)), normal(3), 0.2)
    for method in (inverse.dps, inverse.mpgd, inverse.tmpd, inverse.mmps):
        with pytest.raises(ValueError, match=says):
            method(prior(), problem)(normal(4, 3), 0.5)


def test_settings_may_be_numbers_of_numpy():
    x = normal(4, 3)
    given, plain = (inverse.dps(prior(), measurement(), v) for v in (np.float32(0.25), 0.25))
    torch.testing.assert_close(given(x, 0.5), plain(x, 0.5))
    with pytest.raises(ValueError, match=r"variance = '0\.1' must be a number"):
        inverse.dps(prior(), measurement(), "0.1")


@pytest.mark.parametrize("values", ["a", [1.0, "a"], [1j], None])
def test_values_that_are_no_numbers_are_told_by_name(values):
    with pytest.raises(TypeError, match=r"angles = .* is no tensor, array or list of real numbers"):
        inverse.Projection(values, (4, 4))


def test_a_posterior_is_told_in_a_line():
    assert repr(inverse.dps(prior(), measurement())).startswith("Posterior(")
    assert repr(measurement()) in repr(inverse.dps(prior(), measurement()))


@METHODS
def test_the_front_door_takes_a_method_as_a_denoiser(method):
    posterior = method(prior(), measurement())
    found = [
        sd.sample(posterior, (4, 3), solver=solver, steps=6, seed=[1, 2, 3, 4], dtype=F64)
        for solver in ("default", "heun", "ddpm")
    ]
    assert all(bool(torch.isfinite(x).all()) for x in found)
    far = sd.sample(prior(), (4, 3), solver="heun", steps=6, seed=[1, 2, 3, 4], dtype=F64)
    before = measurement().residual(far).norm()
    assert measurement().residual(found[1]).norm() < before


@METHODS
def test_measurements_of_another_batch_are_refused_at_the_door(method):
    three = Measurement(Matrix(normal(2, 3, seed=1)), normal(3, 2, seed=2), 0.2)
    posterior = method(prior(), three)
    assert posterior.samples == 3
    assert posterior.conditioned
    with pytest.raises(ValueError, match="bound to 3 samples and x has 4"):
        sd.sample(posterior, (4, 3), solver="ddpm", steps=3, seed=0)


MASK = Mask(torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Measurement(MASK, np.zeros(1), 0.1), TypeError, r"torch.as_tensor\(y\).float"),
        (lambda: Measurement(MASK, torch.zeros(0, 1), 0.1), ValueError, r"\(0, 1\): no measure"),
        (lambda: Measurement.simulate(MASK, np.zeros(2), 0.1), TypeError, r"torch.as_tensor\(x\)"),
        (lambda: Measurement.simulate(abs, torch.zeros(2), 0.1), TypeError, "FunctionOperator"),
        (lambda: Measurement.simulate(MASK, torch.zeros(2), 0.1, 1.5), TypeError, "seed 1.5"),
        (lambda: Measurement.simulate(MASK, torch.zeros(2), 0.1, -1), ValueError, "seed -1"),
        (lambda: Mask([True, False]), TypeError, r"torch.as_tensor\(mask\) > 0.5"),
        (lambda: MASK.solve(torch.zeros(1, 1), "a", 1.0), TypeError, "a = 'a' must be a number"),
    ],
)
def test_what_is_given_wrongly_is_told_with_its_cure(make, error, says):
    with pytest.raises(error, match=says):
        make()
