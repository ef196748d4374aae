"""Adaptive samplers, steps of each sample's own: ODE pairs, DPM-Solver-12/-23, gotta go fast."""

import math
from functools import cache, partial

import pytest
import torch
from models import DOUBLE, PROBLEM, VP
from strategies import slope

import sde_diffusion as sd
from sde_diffusion.adaptive import dpm_solver_adaptive, gotta_go_fast, per_sample_ode
from sde_diffusion.adaptive.paths import BrownianPaths
from sde_diffusion.adaptive.per_sample import Asked, leave_pure_noise
from sde_diffusion.adaptive.per_sample_ode import PAIRS

ODES = {
    "bosh3": (partial(per_sample_ode, method="bosh3"), 3),
    "dopri5": (partial(per_sample_ode, method="dopri5"), 5),
    "dpm-12 data": (partial(dpm_solver_adaptive, order=2), 2),
    "dpm-12 noise": (partial(dpm_solver_adaptive, order=2, prediction="noise"), 2),
    "dpm-23 data": (partial(dpm_solver_adaptive, order=3), 3),
    "dpm-23 noise": (partial(dpm_solver_adaptive, order=3, prediction="noise"), 3),
}
ALL = {
    **{name: solve for name, (solve, _) in ODES.items()},
    "sde": partial(gotta_go_fast, rtol=0.1),
}
RANGES = {  # schedule, start, end
    "vp": (VP, 1.0, 1e-2),
    "edm": (sd.EDM(), 80.0, 0.05),
    "flow": (sd.FlowMatching(), 1.0, 0.02),  # alpha = 0 at the start
    "sub_vp": (sd.SubVP(), 0.9, 0.1),
}


class Counting(sd.Denoiser):
    """The exact denoiser, and every (sample, time) that it was asked about."""

    def __init__(self, schedule):
        self.inner, self.schedule = PROBLEM.denoiser(schedule), schedule
        self.calls, self.asked = 0, []

    def __call__(self, x, t):
        self.calls += 1
        assert t.shape == x.shape[:1]
        self.asked += [(*y.flatten().tolist(), u) for y, u in zip(x, t.tolist(), strict=True)]
        return self.inner(x, t)


def start_of(schedule, t, n=6, seed=0):
    return PROBLEM.sample_marginal(n, *schedule(t), torch.Generator().manual_seed(seed))


@cache
def four_trajectories(where):
    """(starts, exact ends), which every solver is held to."""
    schedule, t, s = RANGES[where]
    x = start_of(schedule, t, 4)
    return x, PROBLEM.endpoint(x, schedule, t, s)


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_have_their_orders_of_quadrature(pair):
    """sum_i b_i c_i^k = 1/(k+1) below the order, for the embedded weights one power less."""
    p = PAIRS[pair]
    b = [*p.a[-1], 0.0]
    c = [0.0, *(sum(row) for row in p.a)]
    embedded = [w - e for w, e in zip(b, p.e, strict=True)]
    for weights, order in ((b, p.order), (embedded, p.order - 1)):
        for k in range(order):
            total = sum(w * u**k for w, u in zip(weights, c, strict=True))
            assert total == pytest.approx(1 / (k + 1), abs=1e-13)
    total = sum(w * u ** (p.order - 1) for w, u in zip(embedded, c, strict=True))
    assert abs(total - 1 / p.order) > 1e-5  # not more: the difference measures the error


@pytest.mark.parametrize("name", ODES)
@pytest.mark.parametrize("schedule", [VP, sd.EDM(0.01, 10.0)], ids=["vp", "edm"])
def test_one_step_has_its_order(name, schedule):
    """A step of any size taken at once: error ~ h^(order + 1) against the exact trajectory."""
    solve, order = ODES[name]
    middle = float(schedule.time_of(0.0))
    x = start_of(schedule, middle, 4)
    sizes = [0.4, 0.2, 0.1] if order < 5 else [0.8, 0.4, 0.2]
    errors = []
    for h in sizes:
        s = float(schedule.time_of(h))
        solution = solve(
            PROBLEM.denoiser(schedule), x, [middle, s], rtol=1e6, atol=1e6, first_step=1.0
        )
        exact = PROBLEM.trajectory(x, schedule, [middle, s], 1e-13, 1e-14)[-1]
        errors.append(float((solution.x - exact).abs().max()))
        assert solution.nfe == {"bosh3": 4, "dopri5": 7}.get(name, order)
    assert slope(sizes[-2:], errors[-2:]) > order + 0.6


@pytest.mark.parametrize("where", RANGES)
@pytest.mark.parametrize("name", ODES)
def test_error_is_of_the_size_of_the_tolerance_and_cost_grows_by_the_order(name, where):
    solve, order = ODES[name]
    schedule, t, s = RANGES[where]
    x, exact = four_trajectories(where)
    costs, tolerances = [], (1e-3, 1e-4) if order < 5 else (1e-4, 1e-5)
    for tolerance in tolerances:
        solution = solve(PROBLEM.denoiser(schedule), x, [t, s], rtol=tolerance, atol=tolerance)
        assert float((solution.x - exact).abs().max()) < 40 * tolerance
        costs.append(float(solution.nfe_per_sample.double().mean()))
    assert -slope(tolerances, costs) < 1 / order + 0.1


@pytest.mark.parametrize("where", RANGES)
@pytest.mark.parametrize("name", ALL)
def test_a_sample_does_not_depend_on_its_batch_to_the_last_bit(name, where):
    schedule, t, s = RANGES[where]
    x, seeds = start_of(schedule, t), [3, 1, 4, 1, 5, 9]
    options = lambda chosen: {"noise": [seeds[i] for i in chosen]} if name == "sde" else {}
    together = ALL[name](PROBLEM.denoiser(schedule), x, [t, s], **options(range(6)))
    for chosen in ([2], [5, 0, 3]):
        alone = ALL[name](PROBLEM.denoiser(schedule), x[chosen], [t, s], **options(chosen))
        assert torch.equal(alone.x, together.x[chosen])
        assert torch.equal(alone.nfe_per_sample, together.nfe_per_sample[chosen])
        assert alone.nfe >= int(alone.nfe_per_sample.max())


@pytest.mark.parametrize("where", RANGES)
@pytest.mark.parametrize("name", ALL)
def test_calls_are_counted_and_no_question_is_asked_twice(name, where):
    """Not even after a rejection, whose first output is kept; and steps are rejected here."""
    schedule, t, s = RANGES[where]
    denoiser = Counting(schedule)
    options = {"noise": range(6)} if name == "sde" else {"rtol": 1e-3, "atol": 1e-3}
    x = start_of(schedule, t)
    kept = x.clone()
    solution = ALL[name](denoiser, x, [t, s], first_step=0.9, **options)
    assert solution.nfe == denoiser.calls
    assert int(solution.nfe_per_sample.sum()) == len(denoiser.asked)
    assert len(set(denoiser.asked)) == len(denoiser.asked)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", ALL)
def test_grids_that_end_at_sigma_zero_end_in_the_denoised_state(name):
    x = start_of(VP, 1.0)
    options = {"noise": range(6)} if name == "sde" else {}
    to_clean, to_end = (
        ALL[name](PROBLEM.denoiser(VP), x, [1.0, s], **options) for s in (VP.t_clean, 0.0)
    )
    d = PROBLEM.denoised(to_clean.x, *VP(VP.t_clean))
    torch.testing.assert_close(to_end.x, d, rtol=1e-12, atol=1e-12)
    assert to_end.nfe == to_clean.nfe + (name not in PAIRS)  # a pair knows its last output


@pytest.mark.parametrize("name", ODES)
@pytest.mark.parametrize("event", [(), (3,), (2, 1, 2)])
def test_data_in_one_point_is_reached_exactly_in_any_shape(name, event):
    """x_s = alpha_s c + sigma_s (x - alpha_t c)/sigma_t, in as few steps as growth allows."""
    for schedule in (VP, sd.FlowMatching(), sd.EDM()):
        denoiser = sd.FunctionDenoiser(lambda x, t: torch.full_like(x, 0.7), schedule, True)
        t, s = schedule.t_max, schedule.t_clean
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x = sigma_t * torch.randn(
            3, *event, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)
        )
        solution = ODES[name][0](denoiser, x, [t, s])
        exact = alpha_s * 0.7 + sigma_s * (x - alpha_t * 0.7) / sigma_t
        torch.testing.assert_close(solution.x, exact, rtol=1e-9, atol=1e-9)
        assert solution.nfe <= 6 * 6 + 3


def test_networks_and_functions_are_asked_at_times_of_each_samples_own():
    """A function of one time is asked sample by sample, one of many at once: the same answers."""
    from models import Net

    network = sd.NetworkDenoiser(Net(dtype=DOUBLE), VP)
    one = sd.FunctionDenoiser(lambda x, t: network(x, float(t)), VP)
    x = torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for solve in ALL.values():
        options = {"noise": range(4)} if solve is ALL["sde"] else {}
        a, b = (solve(denoiser, x, [0.9, 0.1], **options) for denoiser in (network, one))
        torch.testing.assert_close(a.x, b.x, rtol=1e-7, atol=1e-7)
        assert torch.equal(a.nfe_per_sample, b.nfe_per_sample)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        per_sample_ode(sd.FunctionDenoiser(lambda x, t: x * float(t), VP, True), x, [0.9, 0.1])
    assert "wrap the function" in caught.value.__notes__[0]


def test_leaving_pure_noise_keeps_to_the_tolerance_on_wide_data():
    """Data of standard deviation 20: the first size tried is too large by far."""
    schedule, wide = sd.FlowMatching(), sd.problems.Gaussian([5.0, -3.0], [400.0, 100.0])
    x = torch.randn(4, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    state, tolerance = x.clone(), 1e-3
    asked = Asked(wide.denoiser(schedule), x)
    times = leave_pure_noise(asked, state, 1.0, 0.01, tolerance, tolerance)
    for y, z, t in zip(state, x, times.tolist(), strict=True):
        exact = wide.endpoint(z[None], schedule, 1.0, t)[0]
        assert t < 1
        assert float(((y - exact) / (1 + y.abs())).abs().max()) < 2 * tolerance
    assert int(asked.each.min()) > 2


def test_rejection_leaves_the_brownian_path_what_it_was():
    """Steps are rejected for being large, which biases noise drawn anew; W(0) stays N(0, 1).

    Variance and mean of 1,000 ends, and the correlation of both halves, each within 5 standard
    deviations: false alarms below 2e-6. Drawn anew, the variance would be near 0.3.
    """
    n = 1_000
    paths = BrownianPaths(sd.IndependentNoise(0), torch.empty(n, dtype=DOUBLE))
    p, h = torch.ones(n, dtype=DOUBLE), torch.full((n,), 0.3, dtype=DOUBLE)
    halves = torch.zeros(2, n, dtype=DOUBLE)
    who = torch.arange(n)
    while len(who):
        edge = torch.where(p[who] > 0.5, 0.5, 0.0)
        q = torch.maximum(p[who] - h[who], edge)
        dw = paths.increment(who, p[who], q)
        taken = (dw.abs() <= (p[who] - q).sqrt()) | (h[who] < 0.02)
        second = (edge == 0).long()
        halves[second[taken], who[taken]] += dw[taken]
        paths.move(who[taken], q[taken])
        p[who] = torch.where(taken, q, p[who])
        h[who] = torch.where(taken, 0.3, h[who] / 3)
        who = who[p[who] > 0]
    ends = halves.sum(0)
    assert abs(float(ends.mean())) < 5 / math.sqrt(n)
    assert abs(float(ends.var()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float((halves[0] * halves[1]).mean())) < 5 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("where", ["vp", "flow"])
def test_samples_of_the_sde_have_the_law_of_the_data(where):
    """Mean, variances and mean radius of 1,500 samples, 5 standard deviations each: false alarms
    below 3e-6; the tolerance leaves a bias well below one."""
    schedule, t, s = RANGES[where]
    n, (alpha_s, sigma_s) = 1500, RANGES[where][0](s)
    solution = gotta_go_fast(
        PROBLEM.denoiser(schedule), start_of(schedule, t, n), [t, s], 0.1, 0.05, noise=2
    )
    variance = alpha_s**2 * PROBLEM.data_covariance().diagonal() + sigma_s**2
    z = (solution.x.mean(0) - alpha_s * PROBLEM.mean) / (variance / n).sqrt()
    assert float(z.abs().max()) < 5
    assert float(((solution.x.var(0) / variance - 1) / math.sqrt(2 / n)).abs().max()) < 5
    exact = start_of(schedule, s, 100_000, 1).norm(dim=1)
    radius = solution.x.norm(dim=1)
    assert abs(float(radius.mean() - exact.mean())) < 5 * float(exact.std()) / math.sqrt(n)


def test_the_front_door_gives_seeds_to_the_stochastic_one():
    denoiser = PROBLEM.denoiser(VP)
    draw = lambda seeds: sd.sample(denoiser, (len(seeds), 2), solver="gotta_go_fast", seed=seeds)
    together = draw([5, 6, 7])
    assert torch.equal(draw([7, 5]), together[[2, 0]])
    assert not torch.equal(together[0], together[1])


WILD = sd.FunctionDenoiser(lambda x, t: 1e12 * torch.cos(1e9 * t + x.T).T, VP, True)
NAN = sd.FunctionDenoiser(lambda x, t: x * torch.where(t[:, None] < 0.5, math.nan, 1.0), VP, True)


@pytest.mark.parametrize(
    ("solve", "options", "error", "words"),
    [
        (per_sample_ode, {"rtol": 0.0}, ValueError, "rtol = 0.0"),
        (
            per_sample_ode,
            {"rtol": torch.ones(3)},
            TypeError,
            r"a Tensor of \(3,\): give one number",
        ),
        (per_sample_ode, {"atol": math.inf}, ValueError, "positive and finite"),
        (per_sample_ode, {"method": "dopri4"}, ValueError, "did you mean 'dopri5'"),
        (per_sample_ode, {"first_step": 2.0}, ValueError, "range of phi"),
        (per_sample_ode, {"max_steps": 0}, ValueError, "at least 1"),
        (per_sample_ode, {"max_steps": 2}, RuntimeError, "after max_steps = 2"),
        (per_sample_ode, {"denoiser": WILD}, FloatingPointError, "shrink to nothing at t = 0.9"),
        (per_sample_ode, {"denoiser": NAN}, FloatingPointError, "sample 0 at t = 0.4"),
        (per_sample_ode, {"denoiser": lambda x, t: x}, TypeError, "which has no schedule"),
        (per_sample_ode, {"times": [0.1, 0.9]}, ValueError, "must decrease"),
        (per_sample_ode, {"x": torch.full((2, 2), math.nan)}, ValueError, "not finite"),
        (dpm_solver_adaptive, {"order": 4}, ValueError, "must be 2"),
        (dpm_solver_adaptive, {"prediction": "score"}, ValueError, "unknown prediction"),
        (dpm_solver_adaptive, {"first_step": 0.0}, ValueError, "first_step = 0.0"),
        (dpm_solver_adaptive, {"safety": 1.0}, ValueError, "safety = 1.0"),
        (dpm_solver_adaptive, {"denoiser": NAN}, FloatingPointError, "not finite"),
        (gotta_go_fast, {"exponent": 1.5}, ValueError, "exponent = 1.5"),
        (gotta_go_fast, {"safety": 1.0}, ValueError, "safety = 1.0"),
        (gotta_go_fast, {"noise": [1, 2, 3]}, ValueError, "one for each sample"),
        (gotta_go_fast, {"noise": 0, "max_steps": 3}, RuntimeError, "after max_steps = 3"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_cure(solve, options, error, words):
    given = {
        "denoiser": PROBLEM.denoiser(VP),
        "x": torch.ones(2, 2),
        "times": [0.9, 0.1],
        **options,
    }
    with pytest.raises(error, match=words):
        solve(**given)


def test_a_noise_prediction_says_nothing_at_alpha_zero():
    denoiser = sd.NetworkDenoiser(lambda x, t: x, sd.FlowMatching())
    for solve in ALL.values():
        with pytest.raises(ValueError, match="alpha = 0"):
            solve(denoiser, torch.ones(2, 2), [1.0, 0.1])


def test_progress_changes_nothing():
    shown = sd.sample(PROBLEM.denoiser(VP), (2, 2), solver="per_sample_ode", seed=0, progress=True)
    assert torch.equal(
        shown, sd.sample(PROBLEM.denoiser(VP), (2, 2), solver="per_sample_ode", seed=0)
    )
