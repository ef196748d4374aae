"""Bad requests of particles are refused in words that say what to do."""

import pytest
import torch
from particle_problems import (
    DENOISER,
    MATRIX,
    MEAN,
    MEASUREMENT,
    SCHEDULE,
    VARIANCE,
    Y,
    grid,
    plan_of,
)

import sde_diffusion as sd
from sde_diffusion.inverse import Matrix, Measurement, Operator
from sde_diffusion.particles import steer, twisted

PLAN = plan_of("ddpm", 4)
SHAPE = (2, 4, 3)


def find(plan=PLAN, denoiser=DENOISER, measurement=MEASUREMENT, shape=SHAPE, **options):
    return twisted(plan, denoiser, measurement, shape, **options)


def push(reward=lambda x: x[:, 0], denoiser=DENOISER, **options):
    return steer(PLAN, denoiser, reward, SHAPE, seed=0, **options)


def labelled(count):
    """A network with a label for each of so many samples."""
    network = sd.NetworkDenoiser(lambda x, t, label: x * label[:, None], SCHEDULE, "data")
    return network.given(torch.arange(count))


OTHER = sd.problems.Gaussian(MEAN, VARIANCE).denoiser(sd.VPCosine())


class Square(Operator):
    event_shape, measured_shape = (3,), (2,)

    def apply(self, x):
        return x[:, :2] ** 2


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (lambda: find(shape=(2, 0, 3)), ValueError, "number of particles.*= 0"),
        (lambda: find(shape=(4,)), ValueError, "populations, particles"),
        (lambda: find(shape=(2, 4, 5)), ValueError, r"event \(5,\).*\(3,\)"),
        (lambda: find(plan=plan_of("ddim", 4)), ValueError, "draws no noise.*eta=1"),
        (lambda: find(plan="ddpm"), TypeError, "need a Plan, not str"),
        (lambda: find(denoiser=lambda x, t: x), TypeError, "the prior is function.*wrap it"),
        (lambda: steer(PLAN, "model", len, SHAPE), TypeError, "the denoiser is str"),
        (lambda: find(measurement=Y), TypeError, "measurement is Tensor"),
        (lambda: find(threshold=1.5), ValueError, r"threshold = 1.5 must lie in \[0, 1\]"),
        (lambda: find(resampling="stratifed"), ValueError, "stratified"),
        (lambda: find(twist="isotrop"), ValueError, "isotropic"),
        (lambda: find(variance=0.0), ValueError, "variance = 0.0"),
        (lambda: find(variance="a"), ValueError, "variance = 'a' must be a finite number"),
        (lambda: find(variance=True), ValueError, "variance = True must be a finite number"),
        (lambda: find(variance=float("inf")), ValueError, "variance = inf.*finite"),
        (lambda: find(threshold="a"), ValueError, "threshold = 'a' must lie"),
        (
            lambda: find(twist=lambda m, d, *_: (d[:, 0], d[:, :1])),
            ValueError,
            r"\(8, 1\).*\(8, 3\)",
        ),
        (lambda: find(twist=lambda m, d, *_: (d.sum(), d)), ValueError, r"log psi.*\(8,\)"),
        (lambda: find(twist=lambda m, d, *_: (d[:, 0], None)), ValueError, "gradient None"),
        (lambda: find(denoiser=labelled(3)), ValueError, "3 samples.*2 populations"),
        (lambda: push(denoiser=labelled(4)), ValueError, "4 samples.*2 populations"),
        (lambda: push(denoiser=labelled(1)), ValueError, "1 samples.*2 populations"),
        (lambda: push(proposal=labelled(1)), ValueError, "1 samples.*2 populations"),
        (lambda: find(batch=0), ValueError, "batch = 0"),
        (lambda: find(seed=[1, 2, 3]), ValueError, "3 seeds for 2"),
        (lambda: find(start=torch.zeros(8, 3)), ValueError, "start has shape"),
        (lambda: find(dtype=torch.float16), ValueError, "float16"),
        (
            lambda: find(measurement=Measurement(Matrix(MATRIX), Y, 0.0)),
            ValueError,
            "noise = 0.*weight zero",
        ),
        (
            lambda: find(measurement=Measurement(Matrix(MATRIX), Y.expand(3, 2), 1.0)),
            ValueError,
            "3 measurements for 2 populations",
        ),
        (
            lambda: find(measurement=Measurement(Square(), Y, 1.0), twist="projected"),
            TypeError,
            "needs a linear operator, and Square",
        ),
        (
            lambda: find(plan=sd.solvers.ddim(sd.VPLinear(), grid(8)[4:], eta=1.0)),
            ValueError,
            "pure noise is no sample there",
        ),
        (
            lambda: find(plan=sd.solvers.ddpm(sd.VPCosine(), sd.times.default(sd.VPCosine(), 4))),
            ValueError,
            "was made for",
        ),
        (lambda: push(lambda x: x), ValueError, r"returned \(8, 3\) for 8 particles"),
        (lambda: push(lambda x: 1.0), ValueError, "returned float"),
        (lambda: push(3), TypeError, "must be a function"),
        (lambda: push(lambda x: x[:, 0] + 0j), ValueError, "complex64.*must be real"),
        (lambda: push(scale=float("inf")), ValueError, "scale = inf"),
        (lambda: push(scale="a"), ValueError, "scale = 'a' must be a finite number"),
        (lambda: push(curvature=-1.0), ValueError, "curvature = -1.0 must be a finite"),
        (lambda: push(potential="maximum"), ValueError, "max"),
        (lambda: push(potential="max"), ValueError, "'max' multiplies.*at="),
        (lambda: push(potential="sum"), ValueError, "'sum' multiplies.*at="),
        (lambda: push(at=[4]), ValueError, r"at has 4.*0 \.\. 3"),
        (lambda: push(at=[True]), ValueError, "at has True.*integer"),
        (lambda: push(at=torch.tensor([0.5])), ValueError, "at has 0.5.*integer"),
        (lambda: push(at=3), TypeError, r"at=\[3\]"),
        (lambda: push(proposal=OTHER), ValueError, "VPCosine.*same schedule"),
        (lambda: push(proposal=3), TypeError, "proposal must be a Denoiser"),
        (lambda: push().draw(0), ValueError, "n = 0"),
        (lambda: find(twist=lambda m, d, *_: d), ValueError, "returned Tensor.*two tensors"),
        (lambda: push().expect(3), TypeError, "takes a function.*not 3"),
        (lambda: push().expect(lambda x: x.sum()), ValueError, r"returned \(\) for 8 particles"),
    ],
)
def test_refused(request_, error, words):
    with pytest.raises(error, match=words):
        request_()


def test_inference_mode_has_no_gradients_and_steering_needs_none():
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="inference_mode"):
            find()
        push()


def test_weights_that_all_vanish_are_told_with_their_place():
    """At the end rewards may be -inf; if all of a population are, there is nothing to go on."""
    calls = []

    def impossible(x):
        calls.append(x)
        return torch.full((len(x),), -torch.inf) if len(calls) == 5 else x[:, 0]

    with pytest.raises(FloatingPointError, match=r"weighing 5 of 5.*population 0 have weight zero"):
        push(impossible)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_potential_that_is_not_finite_is_told_with_its_place(value):
    calls = []

    def broken(x):
        calls.append(x)
        rewards = x[:, 0].clone()
        if len(calls) == 2:
            rewards[3] = value
        return rewards

    with pytest.raises(
        FloatingPointError, match=r"t = 0\.\d+, weighing 2 of 5.*not finite.*at=\[\]"
    ):
        push(broken)


def test_some_impossible_results_have_weight_zero():
    found = push(lambda x: torch.where(x[:, 0] > 5.0, -torch.inf, 0.0), at=[])
    torch.testing.assert_close(found.log_weights.exp().sum(1), torch.ones(2).double())
    half = push(lambda x: torch.where(x[:, 0] > 0.0, 0.0, -torch.inf), at=[])
    assert bool((half.log_weights.isinf() == (half.x[..., 0] <= 0)).all())
    share = (half.x[..., 0] > 0).double().mean(1)
    torch.testing.assert_close(half.log_evidence.exp(), share)
