"""Adaptive projected guidance and CFG-Zero*: their limits, their parts, and memory of one run."""

import math

import pytest
import torch
from enumeration import SCHEDULES, representatives, smooth_grid
from guided_problem import BOTH, WANTED, noised, states
from models import DOUBLE, VP

import sde_diffusion as sd
from sde_diffusion.guidance import adaptive_projected, cfg_zero_star
from sde_diffusion.guidance.adaptive_projected import project

PAIR = WANTED.denoiser(VP), BOTH.denoiser(VP)
W = 3.0


def steps(x, t):
    """d_c, and d_c - d_u."""
    d_c, d_u = (branch(x, t) for branch in PAIR)
    return d_c, d_c - d_u


def classifier_free(x, t):
    d_c, delta = steps(x, t)
    return d_c + (W - 1) * delta


def inner(a, b):
    return (a * b).flatten(1).sum(1)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_without_projection_threshold_and_momentum_it_is_classifier_free(t):
    x = noised(VP, t)
    torch.testing.assert_close(
        adaptive_projected(*PAIR, scale=W, eta=1.0)(x, t), classifier_free(x, t)
    )
    with_reach = adaptive_projected(*PAIR, scale=W, eta=1.0, norm_threshold=99.0)
    torch.testing.assert_close(with_reach(x, t), classifier_free(x, t))


def test_the_parts_add_up_and_are_orthogonal():
    """The step at eta = 0 is across d_c, the rest along it; any event shape, 0 where d_c is 0."""
    x = noised(VP, 0.5)
    d_c, delta = steps(x, 0.5)
    across = adaptive_projected(*PAIR, scale=W)(x, 0.5) - d_c
    torch.testing.assert_close(inner(across, d_c), torch.zeros(6, dtype=DOUBLE))
    along = adaptive_projected(*PAIR, scale=W, eta=1.0)(x, 0.5) - d_c - across
    torch.testing.assert_close(along, (W - 1) * project(delta, d_c))
    assert along.abs().max() > 1e-3 < across.abs().max()
    halfway = adaptive_projected(*PAIR, scale=W, eta=0.5)(x, 0.5) - d_c
    torch.testing.assert_close(halfway, across + along / 2)
    a, b = states(8, 1).reshape(2, 2, 4), states(8, 2).reshape(2, 2, 4)
    torch.testing.assert_close(inner(a - project(a, b), b), torch.zeros(2, dtype=DOUBLE))
    torch.testing.assert_close(project(2 * b, b), 2 * b)
    assert not project(a, torch.zeros_like(b)).any()


def test_the_threshold_bounds_each_samples_step():
    x = noised(VP, 0.5)
    d_c, delta = steps(x, 0.5)
    size = delta.norm(dim=1)
    r = float(size.median())
    found = (adaptive_projected(*PAIR, scale=W, eta=1.0, norm_threshold=r)(x, 0.5) - d_c) / (W - 1)
    torch.testing.assert_close(found.norm(dim=1), size.clamp(max=r))
    torch.testing.assert_close(found / found.norm(dim=1, keepdim=True), delta / size[:, None])


def test_momentum_adds_up_the_steps_of_one_run_and_every_run_anew():
    b, grid = -0.5, sd.times.uniform(VP, 5)
    plan, x = sd.solvers.ddim(VP, grid), states(4)
    guided = adaptive_projected(*PAIR, scale=W, eta=1.0, momentum=b)
    state, memory = x, torch.zeros_like(x)
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        d_c, delta = steps(state, t)
        memory = delta + b * memory
        d = d_c + (W - 1) * memory
        (alpha_t, sigma_t), (alpha_s, sigma_s) = VP(t), VP(s)
        state = alpha_s * d + sigma_s / sigma_t * (state - alpha_t * d)
    first = sd.run(plan, guided, x)
    torch.testing.assert_close(first, state)
    assert torch.equal(sd.run(plan, guided, x), first)
    assert torch.equal(sd.run(plan, guided, x[:2]), first[:2])  # nothing stays of another batch
    two, other = guided.bind(plan.asked_at, x), guided.bind(plan.asked_at, x)
    torch.testing.assert_close(two[0].function(x, None), other[0].function(x, None))  # interleaved
    assert (first - sd.run(plan, adaptive_projected(*PAIR, scale=W, eta=1.0), x)).abs().max() > 1e-3


def test_momentum_is_refused_where_calls_have_no_order():
    guided, x = adaptive_projected(*PAIR, scale=W, momentum=-0.5), states(3)
    plan = sd.solvers.ddim(VP, sd.times.uniform(VP, 4))
    for ask in (
        lambda: guided(x, 0.5),
        lambda: guided.score(x, 0.5),
        lambda: sd.run_parallel(plan, guided, x),
        lambda: sd.adaptive.per_sample_ode(guided, x, sd.times.uniform(VP, 4)),
    ):
        with pytest.raises(ValueError, match=r"momentum = -0\.5 adds up .* call to call"):
            ask()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_zero_star_is_the_formula_in_the_flows_velocity(schedule):
    """v = E[eps|x] - E[x_0|x]; s* v_u is the multiple of v_u nearest to v_c."""
    t = schedule.time_of(0.3)
    x = noised(schedule, t)
    wanted, both = WANTED.denoiser(schedule), BOTH.denoiser(schedule)
    v_c, v_u = (d.noise(x, t) - d(x, t) for d in (wanted, both))
    s = (inner(v_c, v_u) / inner(v_u, v_u))[:, None]
    torch.testing.assert_close(inner(v_c - s * v_u, v_u), torch.zeros(6, dtype=DOUBLE))
    guided = cfg_zero_star(wanted, both, scale=W)
    v = guided.noise(x, t) - guided(x, t)
    torch.testing.assert_close(v, s * v_u + W * (v_c - s * v_u))
    assert (s - 1).abs().max() > 1e-3


def test_zero_star_knows_no_schedule():
    """On two schedules, at one noise level and y = x/(alpha + sigma): the same d."""
    flow, answers = sd.FlowMatching(), []
    y = noised(flow, 0.4)
    for schedule in (flow, VP, SCHEDULES["ve"]):
        t = schedule.time_of(flow.half_log_snr(0.4))
        alpha, sigma = schedule(t)
        guided = cfg_zero_star(WANTED.denoiser(schedule), BOTH.denoiser(schedule), scale=W)
        answers.append(guided((alpha + sigma) * y, t))
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(answers[2], answers[0])


def test_zero_star_is_classifier_free_where_the_scale_is_one():
    """s* = 1 where v_c - v_u is across v_u: take such a v_c. And at w = 1 it is the conditional."""
    t, x = 0.4, noised(VP, 0.4)
    (alpha, sigma), d_u = VP(t), BOTH.denoised(x, *VP(t))
    v_u = (x - (alpha + sigma) * d_u) / sigma
    v_c = v_u + torch.stack([-v_u[:, 1], v_u[:, 0]], 1)
    d_c = (x - sigma * v_c) / (alpha + sigma)
    conditional = sd.FunctionDenoiser(lambda x, t: d_c, VP)
    found = cfg_zero_star(conditional, PAIR[1], scale=W)(x, t)
    torch.testing.assert_close(found, d_u + W * (d_c - d_u))
    torch.testing.assert_close(cfg_zero_star(*PAIR, scale=1.0)(x, t), WANTED.denoised(x, *VP(t)))


@pytest.mark.parametrize("schedule", [VP, sd.FlowMatching(), sd.VE()], ids=["vp", "flow", "ve"])
def test_the_first_steps_of_velocity_zero_leave_y_and_ask_nothing(schedule):
    grid, asked = smooth_grid(schedule, 6), []

    def counted(problem):
        def function(x, t):
            asked.append(t)
            return problem.denoised(x, *schedule(t))

        return sd.FunctionDenoiser(function, schedule)

    pair, still = (counted(WANTED), counted(BOTH)), float(grid[2])
    guided = cfg_zero_star(*pair, scale=W, zero_above=still)
    x = states(4)
    run = sd.record(sd.solvers.ddim(schedule, grid), guided, x)
    total = [sum(schedule(float(t))) for t in grid]
    for i in (1, 2):
        torch.testing.assert_close(run.states[i] / total[i], x / total[0])
    assert (run.states[3] / total[3] - x / total[0]).abs().max() > 1e-2
    assert len(asked) == 2 * 4
    assert max(asked) == still
    t = torch.tensor([float(grid[0]), float(grid[3])], dtype=DOUBLE)
    torch.testing.assert_close(guided(x[:2], t)[0], guided(x[:1], float(grid[0]))[0])
    torch.testing.assert_close(guided(x[:2], t)[1], guided(x[1:2], float(grid[3]))[0])


def test_zero_star_at_exact_ends():
    flow, x = sd.FlowMatching(), states(3)
    guided = cfg_zero_star(WANTED.denoiser(flow), BOTH.denoiser(flow), scale=W)
    torch.testing.assert_close(guided(x, 0.0), x)  # clean: d = x
    assert guided(x, 1.0).isfinite().all()


GUIDED = {
    "projected": adaptive_projected(*PAIR, scale=W, eta=0.2, norm_threshold=1.0),
    "zero star": cfg_zero_star(*PAIR, scale=W, zero_above=0.7),
}


@pytest.mark.parametrize(("name", "options"), representatives())
@pytest.mark.parametrize("guided", GUIDED.values(), ids=GUIDED)
def test_solvers_run_as_with_the_bare_function(guided, name, options):
    plan, x = sd.SOLVERS[name](VP, smooth_grid(VP, 6), **options), states(5)
    found = sd.run(plan, guided, x, noise=1)
    plain = sd.FunctionDenoiser(lambda x, t: guided(x, t), VP)
    torch.testing.assert_close(found, sd.run(plan, plain, x, noise=1))


def test_what_cannot_be():
    for wrong, word in (
        (lambda: adaptive_projected(*PAIR, scale=math.inf), "scale = inf"),
        (lambda: adaptive_projected(*PAIR, scale=W, eta=math.nan), "eta = nan"),
        (lambda: adaptive_projected(*PAIR, scale=W, norm_threshold=0.0), "norm_threshold = 0"),
        (lambda: adaptive_projected(*PAIR, scale=W, momentum=1.0), "momentum = 1"),
        (lambda: cfg_zero_star(*PAIR, scale=math.nan), "scale = nan"),
        (lambda: cfg_zero_star(*PAIR, scale=W, zero_above=math.nan), "zero_above"),
        (lambda: cfg_zero_star(PAIR[0], BOTH.denoiser(sd.FlowMatching()), scale=W), "schedule"),
    ):
        with pytest.raises(ValueError, match=word):
            wrong()
