"""The processes: exact laws, and other people's solvers taking them as they are."""

import math

import numpy as np
import pytest
import torch
import torchdiffeq
import torchsde
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.stats import chi2, norm
from strategies import given, scheduled_times, schedules, shapes

from sde_diffusion.denoise import FunctionDenoiser
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.sde import ForwardSDE, ProbabilityFlowODE, ReverseSDE
from sde_diffusion.tabulated import Shifted, ddpm_linear

DOUBLE = torch.float64
MEAN, VARIANCE = 0.7, 0.3
SCHEDULES = {
    "vp": VPLinear(),
    "cosine": VPCosine(),
    "sub-vp": SubVP(),
    "ve": VE(0.01, 10.0),
    "edm": EDM(0.002, 10.0),
    "flow": FlowMatching(),
    "table": ddpm_linear(),
    "shifted": Shifted(FlowMatching(), 3.0),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
FALSE_ALARM = 1e-6  # of each statistical test, were its seed drawn anew


def generator(seed):
    return torch.Generator().manual_seed(seed)


def per_sample(c, x):
    c = torch.as_tensor(c, dtype=x.dtype)
    return c.reshape(-1, *[1] * (x.ndim - 1)) if c.ndim else c


def gaussian_denoiser(schedule):
    """E[x_0 | x_t] on data N(MEAN, VARIANCE), elementwise."""

    def denoise(x, t):
        alpha_t, sigma_t = (per_sample(c, x) for c in schedule(t))
        gain = alpha_t * VARIANCE / (alpha_t**2 * VARIANCE + sigma_t**2)
        return MEAN + gain * (x - alpha_t * MEAN)

    return FunctionDenoiser(denoise, schedule)


def law(schedule, t):
    alpha_t, sigma_t = schedule(t)
    return alpha_t * MEAN, alpha_t**2 * VARIANCE + sigma_t**2


def flow_of(schedule, x, t, s):
    """The exact probability-flow map: x keeps its place in the law's own units."""
    (mean_t, variance_t), (mean_s, variance_s) = law(schedule, t), law(schedule, s)
    return mean_s + math.sqrt(variance_s / variance_t) * (x - mean_t)


def inside(schedule, *places):
    return [schedule.t_min + p * (schedule.t_max - schedule.t_min) for p in places]


def assert_gaussian(sample, mean, variance, allowance=0.0):
    """Mean and variance of n draws of N(mean, variance), two-sided, Bonferroni over both.

    `allowance` is the relative error that a solver's own discretisation may add.
    """
    n = sample.numel()
    z = norm.isf(FALSE_ALARM / 4)
    slack = allowance * math.sqrt(variance)
    assert abs(float(sample.mean()) - mean) < z * math.sqrt(variance / n) + slack
    low, high = chi2.isf([1 - FALSE_ALARM / 4, FALSE_ALARM / 4], n - 1) / (n - 1)
    assert low - 2 * allowance < float(sample.var()) / variance < high + 2 * allowance


# The forward process


@given(scheduled_times(), shapes)
def test_marginal_in_any_shape_at_one_time_or_one_a_sample(case, shape):
    schedule, (t,) = case
    x_0 = torch.randn(shape, generator=generator(0), dtype=DOUBLE)
    batch = inside(schedule, *[(i + 1) / (shape[0] + 1) for i in range(shape[0])])
    for times in (t, torch.tensor(t, dtype=DOUBLE), torch.tensor(batch, dtype=DOUBLE)):
        mean, std = ForwardSDE(schedule).marginal(x_0, times)
        x_t, eps = ForwardSDE(schedule).sample_marginal(x_0, times, generator(1))
        assert x_t.shape == eps.shape == shape
        torch.testing.assert_close(x_t, mean + std * eps)
        listed = batch if isinstance(times, torch.Tensor) and times.ndim else [t] * shape[0]
        for i, each in enumerate(listed):
            alpha_t, sigma_t = schedule(each)
            torch.testing.assert_close(x_t[i], alpha_t * x_0[i] + sigma_t * eps[i])


@given(scheduled_times(), shapes)
def test_drift_and_diffusion_are_f_x_and_g(case, shape):
    schedule, (t,) = case
    forward = ForwardSDE(schedule)
    x = torch.randn(shape, generator=generator(0), dtype=DOUBLE)
    torch.testing.assert_close(forward.drift(x, t), schedule.f(t) * x)
    assert forward.diffusion(t) ** 2 == pytest.approx(schedule.g2(t))
    clock = torch.tensor(t, dtype=DOUBLE)
    torch.testing.assert_close(forward.f(clock, x), forward.drift(x, t))
    torch.testing.assert_close(forward.g(clock, x), forward.diffusion(t) * torch.ones_like(x))


@each_schedule
def test_noise_of_float32_states_is_right_to_the_last_bit(schedule):
    """Times are taken in float64, so that sigma near the clean end keeps its digits."""
    t = torch.tensor(inside(schedule, 1e-3, 1e-2, 0.5), dtype=torch.float32)
    mean, std = ForwardSDE(schedule).marginal(torch.ones(3, 2), t)
    for i, each in enumerate(t.tolist()):
        alpha_t, sigma_t = schedule(each)
        assert mean[i].tolist() == pytest.approx([alpha_t] * 2, rel=1e-6)
        assert float(std[i]) == pytest.approx(sigma_t, rel=1e-6)


@each_schedule
def test_a_path_has_the_law_of_the_process(schedule):
    """Means, variances and covariances at four times: Cov(x_s, x_t) = alpha_{t|s} Var x_s.

    Whitened by the exact covariance, n draws have a Gram matrix whose entries are tested one by
    one at the stated false-alarm rate.
    """
    n, times = 20000, inside(schedule, 0.0, 0.2, 0.5, 1.0)
    x_0 = MEAN + math.sqrt(VARIANCE) * torch.randn(n, 1, generator=generator(2), dtype=DOUBLE)
    path = ForwardSDE(schedule).sample_path(x_0, times, generator(3))
    assert path.shape == (4, n, 1)
    # sigma(t_min) > 0 (VE): the path starts from x_0 all the same, x_0 playing x_{t_min}.
    covariance, means = np.zeros((4, 4)), np.zeros(4)
    for i, s in enumerate(times):
        alpha_s, sigma_s = schedule.transition(times[0], s) if i else (1.0, 0.0)
        means[i] = alpha_s * MEAN
        for j in range(i, 4):
            pull = schedule.transition(s, times[j])[0] if j > i else 1.0
            covariance[i, j] = covariance[j, i] = pull * (alpha_s**2 * VARIANCE + sigma_s**2)
    residual = path[:, :, 0].numpy() - means[:, None]
    white = np.linalg.solve(np.linalg.cholesky(covariance), residual)
    z = norm.isf(FALSE_ALARM / 2 / 14)
    assert np.abs(white.mean(1)).max() < z / math.sqrt(n)
    gram = (white @ white.T / n - np.eye(4)) * math.sqrt(n)
    assert np.abs(gram[~np.eye(4, dtype=bool)]).max() < z
    assert np.abs(np.diag(gram)).max() < z * math.sqrt(2) * 1.1


def test_a_path_visits_exact_ends_and_refuses_the_wrong_way():
    forward = ForwardSDE(FlowMatching())
    x_0 = torch.ones(5, 2)
    path = forward.sample_path(x_0, [0.0, 0.3, 1.0], generator(0))
    assert path[0].equal(x_0)
    assert path.isfinite().all()
    for times in ([1.0, 0.5], [0.5, 0.5], [-0.1, 0.5], [0.5, 1.1], [0.1, math.nan]):
        with pytest.raises(ValueError, match="must increase strictly"):
            forward.sample_path(x_0, times)


@each_schedule
def test_equal_generators_draw_equal_samples(schedule):
    forward, x_0 = ForwardSDE(schedule), torch.zeros(3, 2)
    s, t = inside(schedule, 0.3, 0.6)
    for draw in (
        lambda seed: forward.sample_marginal(x_0, t, generator(seed))[0],
        lambda seed: forward.sample_transition(x_0, s, t, generator(seed)),
    ):
        assert draw(4).equal(draw(4))
        assert not draw(4).equal(draw(5))


# Reverse drifts, against the definition


def mixture_log_density(x, alpha_t, sigma_t):
    """log p_t of 0.3 N(-1, 0.2^2) + 0.7 N(0.8, 0.5^2), elementwise, each element a sample."""
    parts = []
    for weight, mean, std in ((0.3, -1.0, 0.2), (0.7, 0.8, 0.5)):
        variance = alpha_t**2 * std**2 + sigma_t**2
        exponent = -((x - alpha_t * mean) ** 2) / (2 * variance)
        parts.append(math.log(weight) - 0.5 * math.log(variance) + exponent)
    return torch.logsumexp(torch.stack(parts), 0)


def mixture_denoiser(schedule):
    """The conditional mean itself, by weighing the components: no score, no Tweedie."""

    def denoise(x, t):
        alpha_t, sigma_t = map(float, schedule(float(t)))
        logits, centres = [], []
        for weight, mean, std in ((0.3, -1.0, 0.2), (0.7, 0.8, 0.5)):
            variance = alpha_t**2 * std**2 + sigma_t**2
            exponent = -((x - alpha_t * mean) ** 2) / (2 * variance)
            logits.append(math.log(weight) - 0.5 * math.log(variance) + exponent)
            centres.append(mean + alpha_t * std**2 / variance * (x - alpha_t * mean))
        return (torch.softmax(torch.stack(logits), 0) * torch.stack(centres)).sum(0)

    return FunctionDenoiser(denoise, schedule)


@given(scheduled_times(margin=0.05, of=schedules), shapes)
def test_drifts_are_those_of_the_definition(case, shape):
    """f x - g^2 score and f x - g^2/2 score, the score by differentiating log p_t."""
    schedule, (t,) = case
    alpha_t, sigma_t = schedule(t)
    x = torch.randn(shape, generator=generator(6), dtype=DOUBLE)
    x = (math.hypot(alpha_t, sigma_t) * x).requires_grad_()
    log_p = mixture_log_density(x, alpha_t, sigma_t)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    x = x.detach()
    denoiser = mixture_denoiser(schedule)
    f, g2 = schedule.f(t), schedule.g2(t)
    size = float((abs(f) * x.abs() + g2 * score.abs()).max())
    near = {"rtol": 1e-7, "atol": 1e-9 * size}
    reverse, ode = ReverseSDE(denoiser), ProbabilityFlowODE(denoiser, state_shape=shape)
    torch.testing.assert_close(denoiser.score(x, t), score, rtol=1e-7, atol=1e-7 / sigma_t)
    torch.testing.assert_close(reverse.drift(x, t), f * x - g2 * score, **near)
    torch.testing.assert_close(ode.drift(x, t), f * x - g2 / 2 * score, **near)
    assert reverse.diffusion(t) ** 2 == pytest.approx(g2)
    # On torchsde's clock, which rises as t falls, and for scipy's flat vectors.
    tau = torch.tensor(reverse.clock(t), dtype=DOUBLE)
    torch.testing.assert_close(reverse.f(tau, x), g2 * score - f * x, rtol=1e-6, atol=1e-8 * size)
    flat = ode(np.float64(t), x.numpy().reshape(-1))
    torch.testing.assert_close(torch.from_numpy(flat).reshape(shape), ode(t, x))


@pytest.mark.parametrize("schedule", [FlowMatching(), VPCosine(t_max=1.0)], ids=["flow", "cosine"])
def test_the_ode_is_regular_at_alpha_zero(schedule):
    """At t = 1 the drift is alpha' E[x_0] + sigma' x; on Gaussian data the limit from inside."""
    ode = ProbabilityFlowODE(gaussian_denoiser(schedule))
    x = torch.tensor([[-1.0, 0.5]], dtype=DOUBLE)
    alpha_dot, sigma_dot = schedule.derivatives(1.0)
    torch.testing.assert_close(ode.drift(x, 1.0), alpha_dot * MEAN + sigma_dot * x)
    torch.testing.assert_close(ode.drift(x, 1.0), ode.drift(x, 1.0 - 1e-9), rtol=1e-6, atol=1e-6)


def test_a_numpy_state_without_a_shape_is_refused():
    ode = ProbabilityFlowODE(gaussian_denoiser(VPLinear()))
    with pytest.raises(ValueError, match="state_shape"):
        ode(0.5, np.zeros(3))


# Other people's solvers


def solve(ode, x, times):
    """dopri5 steps beyond the last time and interpolates, unless told to step onto it."""
    options = {"step_t": times[-1:]}
    return torchdiffeq.odeint(ode, x, times, rtol=1e-8, atol=1e-8, options=options)[-1]


@each_schedule
@pytest.mark.parametrize("direction", ["sampling", "inversion"])
def test_torchdiffeq_follows_the_exact_flow(schedule, direction):
    high, low = inside(schedule, 0.9, 0.05)
    start, end = (high, low) if direction == "sampling" else (low, high)
    x = torch.randn(4, 2, 3, generator=generator(7), dtype=DOUBLE)
    ode = ProbabilityFlowODE(gaussian_denoiser(schedule))
    times = torch.tensor([start, end], dtype=DOUBLE)
    found = solve(ode, x, times)
    torch.testing.assert_close(found, flow_of(schedule, x, start, end), rtol=1e-5, atol=1e-5)


@each_schedule
def test_scipy_follows_the_exact_flow(schedule):
    start, end = inside(schedule, 0.9, 0.05)
    x = torch.randn(4, 3, generator=generator(8), dtype=DOUBLE)
    ode = ProbabilityFlowODE(gaussian_denoiser(schedule), state_shape=(4, 3))
    solution = solve_ivp(ode, (start, end), x.numpy().reshape(-1), rtol=1e-8, atol=1e-8)
    assert solution.success
    found = torch.from_numpy(solution.y[:, -1]).reshape(4, 3)
    torch.testing.assert_close(found, flow_of(schedule, x, start, end), rtol=1e-5, atol=1e-5)


@each_schedule
def test_torchsde_runs_the_forward_process(schedule):
    """Milstein's and Euler's schemes coincide here; 32 steps leave a relative error below 5 %."""
    n, (s, t) = 2000, inside(schedule, 0.3, 0.6)
    mean_s, variance_s = law(schedule, s)
    x_s = mean_s + math.sqrt(variance_s) * torch.randn(n, 1, generator=generator(9), dtype=DOUBLE)
    ts = torch.tensor([s, t], dtype=DOUBLE)
    dt = (t - s) / 32
    brownian = torchsde.BrownianInterval(s, t, size=(n, 1), dtype=DOUBLE, entropy=10, dt=dt)
    found = torchsde.sdeint(ForwardSDE(schedule), x_s, ts, bm=brownian, dt=dt, method="euler")[-1]
    assert_gaussian(found, *law(schedule, t), allowance=0.05)


@each_schedule
def test_torchsde_runs_the_reverse_process(schedule):
    """States of shape (2,) flattened or not; the law at the clean side is the exact marginal."""
    n, (t, s) = 1000, inside(schedule, 0.7, 0.4)
    mean_t, variance_t = law(schedule, t)
    x_t = mean_t + math.sqrt(variance_t) * torch.randn(n, 2, generator=generator(11), dtype=DOUBLE)
    reverse = ReverseSDE(gaussian_denoiser(schedule), event_shape=(1, 2))
    clock = [reverse.clock(t), reverse.clock(s)]
    dt = (clock[1] - clock[0]) / 32
    brownian = torchsde.BrownianInterval(*clock, size=(n, 2), dtype=DOUBLE, entropy=12, dt=dt)
    found = torchsde.sdeint(
        reverse,
        x_t,
        torch.tensor(clock, dtype=DOUBLE),
        bm=brownian,
        dt=dt,
        method="euler",
    )[-1]
    assert_gaussian(found, *law(schedule, s), allowance=0.05)


@given(st.sampled_from(list(SCHEDULES.values())), examples=8)
def test_gradients_pass_through_the_ode_to_its_start(schedule):
    """d x_s / d x_t of the flow is the ratio of the laws' widths."""
    start, end = inside(schedule, 0.9, 0.05)
    x = torch.randn(3, 1, generator=generator(13), dtype=DOUBLE, requires_grad=True)
    ode = ProbabilityFlowODE(gaussian_denoiser(schedule))
    times = torch.tensor([start, end], dtype=DOUBLE)
    found = solve(ode, x, times)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    ratio = math.sqrt(law(schedule, end)[1] / law(schedule, start)[1])
    torch.testing.assert_close(gradient, torch.full_like(gradient, ratio), rtol=1e-5, atol=1e-5)
