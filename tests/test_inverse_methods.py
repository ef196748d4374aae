"""Methods for inverse problems: exact where they must be, their formulas, their limits."""

import math

import pytest
import torch
from cases import each
from operators_listed import LINEAR, NONLINEAR, OPERATORS, Smoothing

import sde_diffusion as sd
from sde_diffusion import inverse
from sde_diffusion.inverse import FunctionOperator, Mask, Matrix, Measurement

F64 = torch.float64
SCHEDULES = {"vp": (sd.VPLinear(), 0.4), "edm": (sd.EDM(), 0.8), "flow": (sd.FlowMatching(), 0.5)}
METHODS = pytest.mark.parametrize("method", inverse.METHODS.values(), ids=inverse.METHODS)
EVERYWHERE = pytest.mark.parametrize(("schedule", "t"), SCHEDULES.values(), ids=SCHEDULES)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def gaussian(covariance, shape):
    """A normal prior on data of this shape: (mixture of one, its denoiser's maker)."""
    return sd.problems.GaussianMixture([1.0], normal(1, len(covariance)), covariance[None]).shaped(
        *shape
    )


def full(dim):
    root = normal(dim, dim, seed=3)
    return 0.3 * root @ root.T + 0.05 * torch.eye(dim, dtype=F64)


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@EVERYWHERE
@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_mmps_is_exact_on_normal_data(make, schedule, t):
    operator = make()
    dim = math.prod(operator.event_shape)
    prior = gaussian(full(dim), operator.event_shape)
    measurement = Measurement.simulate(operator, prior.sample(1)[0], 0.3)
    exact = measurement.posterior(prior).denoiser(schedule)
    x = normal(4, *operator.event_shape, seed=5)
    found = inverse.mmps(prior.denoiser(schedule), measurement, iterations=50)(x, t)
    close(found, exact(x, t), 1e-7)
    assert (found - prior.denoiser(schedule)(x, t)).abs().max() > 1e-2
    single = inverse.mmps(prior.denoiser(schedule), measurement, iterations=50)(x.float(), t)
    assert single.dtype == torch.float32
    close(single.double(), exact(x, t), 2e-3)


@EVERYWHERE
def test_conjugate_gradients_cut_short_come_closer_with_each_iteration(schedule, t):
    prior, operator = gaussian(full(8), (8,)), Matrix(normal(4, 8, seed=1))
    measurement = Measurement.simulate(operator, prior.sample(1)[0], 0.2)
    x, exact = normal(5, 8, seed=5), measurement.posterior(prior).denoiser(schedule)
    errors = [
        (inverse.mmps(prior.denoiser(schedule), measurement, n)(x, t) - exact(x, t)).norm()
        for n in (1, 2, 4)
    ]
    assert errors[0] > errors[1] > 1e4 * errors[2]


def test_conjugate_gradients_stop_where_the_jacobian_is_no_covariance():
    """d = -x: J = -I, and sigma_y^2 + A V A^T < 0: no step is better than one uphill."""
    denoiser = sd.FunctionDenoiser(lambda x, t: -x, sd.EDM())
    measurement = Measurement(Matrix(normal(2, 3)), normal(2, seed=1), 0.1)
    x = normal(4, 3, seed=5)
    assert torch.equal(inverse.mmps(denoiser, measurement)(x, 2.0), -x)


@EVERYWHERE
@each("make", LINEAR.values(), ids=LINEAR)
@each("noise", [0.3, 0.0])
def test_pigdm_is_exact_for_data_of_one_variance(make, schedule, t, noise):
    operator = make()
    prior = gaussian(
        0.7 * torch.eye(math.prod(operator.event_shape), dtype=F64), operator.event_shape
    )
    measurement = Measurement.simulate(operator, prior.sample(1)[0], noise)
    x, d = normal(4, *operator.event_shape, seed=5), prior.denoiser(schedule)
    found = inverse.pigdm(d, measurement, 0.7)(x, t)
    if noise:
        close(found, measurement.posterior(prior).denoiser(schedule)(x, t))
    else:  # what is left open is the same in all directions
        close(found, d(x, t) + operator.pseudo_inverse(measurement.residual(d(x, t))), 1e-7)
    assert (found - inverse.pigdm(d, measurement, 1.4)(x, t)).abs().max() > 1e-3


@EVERYWHERE
def test_one_measured_number_needs_one_variance(schedule, t):
    """With one number, for data of one variance, scalars say all: DPS is exact, and MPGD is
    DiffPIR."""
    prior = gaussian(0.7 * torch.eye(3, dtype=F64), (3,))
    measurement = Measurement(Matrix([[1.0, -2.0, 0.5]]), normal(1), 0.3)
    x, d = normal(4, 3, seed=5), prior.denoiser(schedule)
    exact = measurement.posterior(prior).denoiser(schedule)
    close(inverse.dps(d, measurement, variance=0.7)(x, t), exact(x, t))
    for v in (0.7, math.inf):
        found = inverse.mpgd(d, measurement, variance=v)(x, t)
        close(found, inverse.diffpir(d, measurement, variance=v)(x, t))


@EVERYWHERE
def test_tmpd_is_exact_for_independent_coordinates_some_of_which_are_measured(schedule, t):
    prior = gaussian(torch.diag(torch.tensor([0.2, 1.5, 0.7, 0.1, 0.4, 0.9], dtype=F64)), (2, 3))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    measurement = Measurement.simulate(Mask(mask), prior.sample(1)[0], 0.3)
    x, exact = normal(4, 2, 3, seed=5), measurement.posterior(prior).denoiser(schedule)
    close(inverse.tmpd(prior.denoiser(schedule), measurement)(x, t), exact(x, t))
    # The same selection that does not say that it is linear is linearised to itself.
    selection = FunctionOperator(lambda x: x[:, mask] + 0 * x.flatten(1)[:, :3] ** 2, (2, 3))
    hidden = Measurement(selection, measurement.y.flatten(), 0.3)
    close(inverse.tmpd(prior.denoiser(schedule), hidden)(x, t), exact(x, t))
    close(inverse.mmps(prior.denoiser(schedule), hidden, iterations=5)(x, t), exact(x, t))


@EVERYWHERE
@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_tmpd_divides_by_bounded_row_sums_and_leads_no_farther_from_y(make, schedule, t):
    operator, noise = make(), 0.2
    prior = gaussian(full(math.prod(operator.event_shape)), operator.event_shape)
    measurement = Measurement.simulate(operator, prior.sample(1)[0], noise)
    x, denoiser = normal(4, *operator.event_shape, seed=5), prior.denoiser(schedule)
    d, a = denoiser(x, t), operator.matrix()
    covariance = prior.covariance(x, *schedule(t))[0]
    sums = (a @ covariance @ a.T).sum(1).abs()
    sums = sums.clamp_min(0.3 * float(sums.mean()))
    e = measurement.residual(d).flatten(1)
    moved = (e / (noise**2 + sums)) @ a @ covariance
    q = moved @ a.T  # A(d_y) is no farther from y than A(d)
    moved *= (2 * (e * q).sum(1) / q.square().sum(1)).clamp(0, 1)[:, None]
    close(inverse.tmpd(denoiser, measurement)(x, t), d + moved.reshape(x.shape), 1e-7)


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_ddnm_without_noise_agrees_with_y_and_leaves_the_rest(make):
    operator, schedule = make(), sd.VPLinear()
    prior = gaussian(full(math.prod(operator.event_shape)), operator.event_shape)
    measurement = Measurement.simulate(operator, prior.sample(1)[0], 0.0)
    x, d = normal(4, *operator.event_shape, seed=5), prior.denoiser(schedule)
    found = inverse.ddnm(d, measurement)(x, 0.4)
    assert measurement.residual(found).abs().max() < 1e-8
    moved = found - d(x, 0.4)
    close(operator.pseudo_inverse(operator(moved)), moved, 1e-7)  # nothing along the null space
    close(inverse.diffpir(d, measurement)(x, 0.4), found, 1e-7)


@EVERYWHERE
@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_ddnm_lets_noise_in_by_singular_vectors(make, schedule, t):
    operator, noise = make(), 0.6
    operator.decomposed = 100
    prior = gaussian(full(math.prod(operator.event_shape)), operator.event_shape)
    measurement = Measurement.simulate(operator, prior.sample(1)[0], noise)
    x, d = normal(4, *operator.event_shape, seed=5), prior.denoiser(schedule)
    u, s, vt = torch.linalg.svd(operator.matrix(), full_matrices=False)
    s = s.where(s > 1e-9, 0.0)
    let_in = (s * schedule.rho(t) / noise).clamp_max(1)
    step = torch.where(s > 0, let_in / s, 0.0)
    moved = (measurement.residual(d(x, t)).flatten(1) @ u * step) @ vt
    close(inverse.ddnm(d, measurement)(x, t), d(x, t) + moved.reshape(x.shape), 1e-8)


@EVERYWHERE
@each("variance", [0.7, math.inf])
@each("make", LINEAR.values(), ids=LINEAR)
def test_diffpir_is_a_proximal_step(make, variance, schedule, t):
    """Where the objective has no slope."""
    operator, strength, noise = make(), 3.0, 0.2
    prior = gaussian(full(math.prod(operator.event_shape)), operator.event_shape)
    measurement = Measurement.simulate(operator, prior.sample(1)[0], noise)
    x, d = normal(4, *operator.event_shape, seed=5), prior.denoiser(schedule)
    z = inverse.diffpir(d, measurement, strength, variance)(x, t).requires_grad_()
    towards_data = (measurement.residual(z) ** 2).sum() / (2 * noise**2)
    precision = strength * (1 / schedule.rho(t) ** 2 + 1 / variance)
    towards_prior = precision / 2 * ((z - d(x, t)) ** 2).sum()
    (slope,) = torch.autograd.grad(towards_data + towards_prior, z)
    assert slope.abs().max() < 1e-8
    close(inverse.diffpir(d, measurement, 1e12)(x, t), d(x, t), 1e-6)


@EVERYWHERE
@pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)
def test_dps_is_the_gradient_of_its_likelihood(make, schedule, t):
    operator = make()
    prior = sd.problems.spectrum_mixture(3, math.prod(operator.event_shape)).shaped(
        *operator.event_shape
    )
    measurement = Measurement.simulate(operator, prior.sample(1)[0], 0.4)
    d, x = prior.denoiser(schedule), normal(4, *operator.event_shape, seed=5).requires_grad_()
    (slope,) = torch.autograd.grad(measurement.log_likelihood(d(x, t)).sum(), x)
    alpha, sigma = schedule(t)
    found = inverse.dps(d, measurement, variance=0.0)(x.detach(), t)
    close(found, (d(x, t) + sigma**2 / alpha * slope).detach())


@pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)
def test_a_step_of_mpgd_is_the_best_along_its_gradient(make):
    """Of |y - A z|^2/sigma_y^2 + |z - d|^2/r^2, with A linearised at d."""
    operator, schedule, t, noise = make(), sd.VPLinear(), 0.4, 0.3
    prior = sd.problems.spectrum_mixture(3, math.prod(operator.event_shape)).shaped(
        *operator.event_shape
    )
    measurement = Measurement.simulate(operator, prior.sample(1)[0], noise)
    d = prior.denoiser(schedule)(normal(4, *operator.event_shape, seed=5), t)
    (alpha, sigma), v = schedule(t), 0.5
    moved = inverse.mpgd(sd.FunctionDenoiser(lambda x, t: d, schedule), measurement, v)(d, t) - d
    value, push = torch.autograd.functional.jvp(operator.apply, d, moved)
    after = measurement.y - value - push
    slope = -(after * push).flatten(1).sum(1) / noise**2
    slope += (moved**2).flatten(1).sum(1) * (alpha**2 / sigma**2 + 1 / v)
    assert slope.abs().max() < 1e-8
    assert moved.abs().max() > 1e-3


def test_mpgd_projects_what_it_moved():
    measurement = Measurement(Matrix(normal(2, 3)), normal(2, seed=1), 0.1)
    prior, x = gaussian(full(3), (3,)).denoiser(sd.EDM()), normal(4, 3, seed=5)
    plain = inverse.mpgd(prior, measurement)(x, 1.0)
    assert torch.equal(inverse.mpgd(prior, measurement, project=torch.tanh)(x, 1.0), plain.tanh())


@METHODS
@EVERYWHERE
def test_a_measurement_of_noise_alone_leaves_the_prior(method, schedule, t):
    prior, x = gaussian(full(12), (4, 3)).denoiser(schedule), normal(4, 4, 3, seed=5)
    measurement = Measurement(Smoothing(), normal(3, 3), 1e6)
    close(method(prior, measurement)(x, t), prior(x, t), 1e-5)
    near = Measurement(Smoothing(), normal(3, 3), 0.1)
    assert (method(prior, near)(x, t) - prior(x, t)).abs().max() > 1e-2


@METHODS
def test_an_answer_that_agrees_already_is_left_as_it_is(method):
    """y = A(d): nothing to correct, and no 0/0."""
    constant = normal(2, 3)
    denoiser = sd.FunctionDenoiser(lambda x, t: constant + 0 * x, sd.VPLinear())
    operator = Matrix(normal(2, 3, seed=1))
    for noise in (0.2, 0.0):
        measurement = Measurement(operator, operator(constant), noise)
        close(method(denoiser, measurement)(normal(2, 3, seed=2), 0.5), constant)
    pushed = inverse.dps(denoiser, measurement, zeta=1.0, times=[0.9, 0.5, 0.1])
    close(pushed(normal(2, 3, seed=2), 0.5), constant)


@METHODS
@EVERYWHERE
def test_samples_have_times_and_measurements_of_their_own(method, schedule, t):
    prior = sd.problems.spectrum_mixture(3, 12).shaped(4, 3)
    x, operator = normal(5, 4, 3, seed=5), Smoothing()
    measurement = Measurement.simulate(operator, prior.sample(5), 0.3)
    posterior = method(prior.denoiser(schedule), measurement)
    times = t * torch.tensor([1.0, 0.8, 0.5, 0.9, 0.3], dtype=F64)
    together, who = posterior(x, times), torch.tensor([3, 1])
    for i in range(5):
        alone = posterior.select(torch.tensor([i]))(x[i : i + 1], float(times[i]))
        close(together[i : i + 1], alone, 1e-8)
    close(posterior.select(who)(x[who], times[who]), together[who], 1e-8)
    assert posterior.conditioned
    for_all = method(prior.denoiser(schedule), Measurement(operator, measurement.y[0], 0.3))
    close(for_all(x, t)[:1], posterior(x, t)[:1], 1e-8)
    assert not for_all.conditioned


@EVERYWHERE
@pytest.mark.parametrize("make", NONLINEAR.values(), ids=NONLINEAR)
@pytest.mark.parametrize("name", ["dps", "mpgd", "tmpd", "mmps"])
def test_nonlinear_operators_are_linearised_at_the_mean(make, name, schedule, t):
    """As the linear method with A' at d and the measurement y - A(d) + A'd."""
    operator, method = make(), inverse.METHODS[name]
    prior = sd.problems.spectrum_mixture(3, math.prod(operator.event_shape)).shaped(
        *operator.event_shape
    )
    denoiser, x = prior.denoiser(schedule), normal(3, *operator.event_shape, seed=5)
    measurement = Measurement.simulate(operator, prior.sample(1)[0], 0.3)
    found = method(denoiser, measurement)(x, t)
    for i in range(3):
        d = denoiser(x, t)[i : i + 1]
        slope = torch.autograd.functional.jacobian(operator.apply, d)
        tangent = Matrix(slope.reshape(-1, d.numel()), operator.event_shape)
        y = measurement.residual(d).flatten() + tangent(d)[0]
        straight = method(denoiser, Measurement(tangent, y, 0.3))
        close(found[i : i + 1], straight(x[i : i + 1], t), 1e-7)


@METHODS
def test_a_network_is_asked_with_its_conditions_and_left_as_it_is(method):
    torch.manual_seed(0)
    network = sd.ResidualMLP((3,), width=16, depth=1, classes=4)
    for p in network.parameters():  # which begins by answering 0
        torch.nn.init.normal_(p, std=0.3)
    prior = sd.NetworkDenoiser(network, sd.VPLinear()).given(torch.tensor([0, 1, 2, 3]))
    measurement = Measurement(Matrix(normal(2, 3)), normal(4, 2, seed=1), 0.3)
    posterior, x = method(prior, measurement), normal(4, 3, seed=5).float()
    assert posterior.device == torch.device("cpu")
    together = posterior(x, 0.5)
    for i in range(4):
        who = torch.tensor([i])
        close(posterior.select(who)(x[who], 0.5), together[who], 1e-4)
    assert all(p.grad is None for p in network.parameters())
