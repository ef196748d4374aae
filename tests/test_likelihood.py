"""Log-densities along the probability flow, against the exact ones of mixtures."""

import math

import pytest
import torch
from enumeration import SCHEDULES, smooth_grid
from models import Net

import sde_diffusion as sd
from sde_diffusion.likelihood import GaussianReference, decode, encode, log_likelihood
from sde_diffusion.likelihood.augmented import Augmented, Count
from sde_diffusion.likelihood.trace import make_trace
from sde_diffusion.problems import Gaussian, GaussianMixture

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
VP = sd.VPLinear()
GOING_ONE_WAY = ("richardson",)  # calls other solvers, which want a grid from noisy to clean


def states(problem, schedule, t, n=32, seed=1):
    return problem.sample_marginal(n, *schedule(t), torch.Generator().manual_seed(seed))


def own_prior(problem, schedule, t):
    """The problem's own law at the noisy end, so that the flow's error is all there is."""
    return lambda x: problem.log_prob(x, *schedule(t))


def test_a_guided_network_hidden_in_a_function_is_asked_in_the_states_dtype():
    network, zero = Net(), sd.FunctionDenoiser(lambda x, t: 0.1 * x, VP)

    def ask(shown):
        one = sd.NetworkDenoiser(shown, VP)
        guided = sd.guidance.rescale(sd.guidance.classifier_free(one, zero, scale=2.0))
        return log_likelihood(guided, torch.ones(2, 3), t_end=0.1, trace="exact", steps=4)

    hidden = ask(lambda x, t: network(x, t))
    torch.testing.assert_close(hidden.log_prob, ask(network).log_prob)


def errors(problem, schedule, grid, x=None, **options):
    grid = [float(t) for t in grid]
    x = states(problem, schedule, grid[-1]) if x is None else x
    options = {"trace": "exact", "prior": own_prior(problem, schedule, grid[0]), **options}
    found = log_likelihood(problem.denoiser(schedule), x, times=grid, **options)
    return found.log_prob - problem.log_prob(x, *schedule(grid[-1])), found


def rms(x):
    return float(x.square().mean().sqrt())


def deterministic():
    plans = {name: solver(VP, smooth_grid(VP, 8)) for name, solver in sd.SOLVERS.items()}
    return [n for n, plan in plans.items() if not plan.stochastic and n not in GOING_ONE_WAY]


@pytest.mark.parametrize("name", deterministic())
def test_every_deterministic_solver_finds_the_density_at_its_own_order(name):
    order = sd.CLAIMS[name][0].usual_order
    coarse, fine = (
        rms(errors(MIXTURE, VP, smooth_grid(VP, n), solver=name, tolerance_error=False)[0])
        for n in ((20, 40) if order < 3 else (40, 80))
    )
    assert math.log2(coarse / fine) > order - 0.4 or fine < 1e-7


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_exact_trace_and_tight_tolerance_give_the_density_to_1e_8(schedule):
    grid = smooth_grid(schedule, 1, lambda_start=-3, lambda_end=3)
    tight = {"solver": "per_sample_ode", "rtol": 1e-10, "atol": 1e-10}
    x = states(MIXTURE, schedule, grid[-1], n=8)
    error, _ = errors(MIXTURE, schedule, grid, x, tolerance_error=False, **tight)
    assert error.abs().max() < 1e-8


@pytest.mark.parametrize("reference", [0.0, 0.5, [0.25, 4.0], [[1.0, 0.5], [0.5, 0.4]]])
def test_gaussian_data_are_exact_in_one_step_by_the_reference_of_their_covariance(reference):
    """Whatever the solver and the probes: nothing is left to integrate or to estimate."""
    covariance = torch.tensor(reference, dtype=torch.float64)
    problem = Gaussian([1.0, -2.0], covariance)
    x = states(problem, VP, 0.01)
    for trace in ("exact", "gaussian"):
        found = log_likelihood(
            problem.denoiser(VP),
            x,
            times=[1.0, 0.01],
            solver="ddim",
            trace=trace,
            probes=1,
            seed=0,
            reference=covariance,
            prior=lambda x: torch.zeros(len(x)),
            tolerance_error=False,
        )
        a, s = (torch.tensor([VP(0.01), VP(1.0)], dtype=torch.float64)).unbind(1)
        full = covariance if covariance.ndim == 2 else torch.eye(2).double() * covariance
        logdet = [
            torch.logdet(a_t**2 * full + s_t**2 * torch.eye(2).double())
            for a_t, s_t in zip(a, s, strict=True)
        ]
        expected = (logdet[1] - logdet[0]) / 2
        assert torch.allclose(found.log_prob, expected.expand(len(x)), atol=1e-9)


@pytest.mark.parametrize("reference", [0.0, 1.0, [0.3, 2.0]])
def test_the_reference_changes_no_answer(reference):
    """Of a converged solve."""
    grid = smooth_grid(VP, 1)
    tight = {"solver": "per_sample_ode", "rtol": 1e-10, "atol": 1e-10, "tolerance_error": False}
    assert errors(MIXTURE, VP, grid, reference=reference, **tight)[0].abs().max() < 1e-7


@pytest.mark.parametrize(
    "solver", ["per_sample_ode", "dpm_solver_adaptive", "torchdiffeq", "scipy"]
)
@pytest.mark.parametrize("name", ["vp", "flow"])
def test_adaptive_solvers_reach_pure_noise(solver, name):
    """From t_clean to t_max, where flow matching has alpha = 0; errors fall with the tolerance."""
    schedule = SCHEDULES[name]
    grid = [schedule.t_max, schedule.t_clean]
    sizes = [
        rms(errors(MIXTURE, schedule, grid, solver=solver, rtol=tol, atol=tol)[0])
        for tol in (1e-2, 1e-5)
    ]
    assert sizes[1] < 2e-3
    assert sizes[1] < sizes[0] / 10


@pytest.mark.parametrize("solver", ["default", "per_sample_ode"])
@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
@pytest.mark.parametrize("problem", [sd.problems.two_gaussians(), sd.problems.ring(dimension=8)])
def test_the_exact_density_lies_within_the_error_bar(problem, name, solver):
    """In at least 95 % of 64 samples, with the whole path from t_clean to noise; exact trace."""
    schedule = SCHEDULES[name]
    clean = schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min
    x = states(problem, schedule, clean, n=64)
    found = log_likelihood(
        problem.denoiser(schedule),
        x,
        solver=solver,
        steps=40,
        trace="exact",
        prior=own_prior(problem, schedule, schedule.t_max),
    )
    error = (found.log_prob - problem.log_prob(x, *schedule(clean))).abs()
    assert found.t == clean
    assert (error <= found.error_bar()).double().mean() >= 0.95
    assert found.error_bar().median() < 0.3


def test_latents_and_back():
    """encode is the latents of log_likelihood, and decode its inverse, at the solver's order."""
    denoiser, gaps = MIXTURE.denoiser(VP), []
    x = states(MIXTURE, VP, VP.t_clean)
    for steps in (40, 80):
        found = encode(denoiser, x, steps=steps)
        same = log_likelihood(denoiser, x, steps=steps, trace="exact", tolerance_error=False)
        assert torch.allclose(found.x, same.latents, atol=1e-12)
        gaps.append(rms(decode(denoiser, found.x, steps=steps).x - x))
    assert gaps[1] < 1e-3
    assert math.log2(gaps[0] / gaps[1]) > 2
    there = encode(denoiser, x, solver="per_sample_ode", rtol=1e-9, atol=1e-9).x
    exact = MIXTURE.endpoint(x, VP, VP.t_clean, 1.0)
    assert torch.allclose(there, exact, atol=1e-6)
    back = decode(denoiser, there, solver="per_sample_ode", rtol=1e-9, atol=1e-9).x
    assert torch.allclose(back, x, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch():
    """Neither its probes nor its steps nor its condition: alone, in parts and in another order."""
    network = ConditionalNet()
    labels = torch.tensor([0, 1, 2, 0, 1])
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    denoiser = sd.NetworkDenoiser(network, VP)
    seeds = [5, 6, 7, 8, 9]
    for options in (
        {"solver": "default", "steps": 12},
        {"solver": "per_sample_ode", "rtol": 1e-3, "atol": 1e-3},
    ):
        options |= {"trace": "rademacher", "probes": 2, "tolerance_error": False, "t_end": 0.05}
        whole = log_likelihood(denoiser.given(labels), x, seed=seeds, **options)
        parts = log_likelihood(denoiser.given(labels), x, seed=seeds, batch_size=2, **options)
        assert torch.allclose(whole.log_prob, parts.log_prob, atol=1e-5)
        order = torch.tensor([3, 1, 4])
        some = log_likelihood(denoiser.given(labels[order]), x[order], seed=[8, 6, 9], **options)
        assert torch.allclose(whole.log_prob[order], some.log_prob, atol=1e-5)
        other = log_likelihood(denoiser.given(1 - labels % 2), x, seed=seeds, **options)
        assert (whole.log_prob - other.log_prob).abs().max() > 1e-3


class ConditionalNet(torch.nn.Module):
    """A network that needs one label a sample."""

    def __init__(self):
        super().__init__()
        self.net = Net()
        self.shift = torch.arange(9.0).reshape(3, 3)

    def forward(self, x, t, context):
        assert len(context) == len(x)
        return self.net(x + self.shift[context], t)


def test_the_change_of_variables_by_hand():
    """One Euler step in rho on one dimension: x_T = x + (rho_T - rho) eps, density by hand."""
    schedule = sd.EDM()
    problem = sd.problems.two_gaussians()
    denoiser = problem.denoiser(schedule)
    x = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    low, high = 1.0, 1.5
    found = log_likelihood(
        denoiser,
        x.detach(),
        times=[high, low],
        solver="ddim",
        trace="exact",
        reference=0.0,
        tolerance_error=False,
    )
    d = denoiser(x, low)
    (slope,) = torch.autograd.grad(d.sum(), x)
    x_T = x + (high - low) * (x - d) / low
    divergence = (high - low) * (1 - slope) / low  # of Euler in rho
    w = math.log(high / low) + float(slope) * (1 / high - 1 / low) * low
    expected = -0.5 * (x_T / high) ** 2 - math.log(high * math.sqrt(2 * math.pi)) + w
    assert float(found.log_prob) == pytest.approx(float(expected.detach()), abs=1e-12)
    assert w == pytest.approx(float(divergence), abs=0.1)


def test_every_number_of_the_flow_is_smooth_to_double_precision():
    """Fourth differences of the augmented drift in t: rounding to float32 anywhere would show."""
    x = states(MIXTURE, VP, 0.02, n=4)
    exact, one = make_trace("exact", 1, x, range(4)), GaussianReference()
    for adaptive in (False, True):
        flow = Augmented(MIXTURE.denoiser(VP), (2,), exact, one, None, Count(), adaptive)
        d = torch.stack([flow(flow.start(x), 0.02 + 1e-6 * k) for k in range(5)])
        for _ in range(4):
            d = d.diff(dim=0)
        assert d.abs().max() < 1e-11


def test_costs_are_counted():
    x = states(MIXTURE, VP, 0.1, n=3)
    found = log_likelihood(MIXTURE.denoiser(VP), x, steps=12, t_end=0.1, solver="ddim")
    assert (found.nfe, found.vjp, found.lanes) == (18, 36, 1)  # 12 + 6 calls, exact in 2 dimensions
    found = log_likelihood(
        MIXTURE.denoiser(VP), x, steps=12, t_end=0.1, solver="heun", probes=1, tolerance_error=False
    )
    assert (found.nfe, found.vjp, found.lanes) == (24, 24, 1)
    assert found.standard_error.isinf().all()
    assert found.tolerance_error.isinf().all()


def test_float32_networks_are_asked_in_float32():
    x = torch.randn(4, 3)
    found = log_likelihood(sd.NetworkDenoiser(Net(), VP), x, steps=10, seed=0)
    assert found.latents.dtype is torch.float32
    assert found.log_prob.dtype is torch.float64
    assert found.log_prob.isfinite().all()
    double = sd.NetworkDenoiser(Net().double(), VP)
    exact = log_likelihood(double, x.double(), steps=10, seed=0)
    assert torch.allclose(found.log_prob, exact.log_prob, atol=1e-3)


def test_reference_of_data():
    data = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = data * torch.tensor([0.5, 1.0, 2.0]) + 3
    reference = GaussianReference.of(data, shrink=0.0)
    gain = reference.gain(1.0, 1.0, data)
    expected = torch.tensor([0.25 / 1.25, 0.5, 0.8], dtype=torch.float64)
    assert torch.allclose(gain.sort().values, expected, atol=0.02)  # 5 standard errors: 0.014
    assert "matrix" in repr(reference)
