"""Inpainting by replacement: what the network sees, what comes out, and how wrong that is."""

import math

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_claim, every_solver, smooth_grid
from probing import UnitNoise, law_of
from scipy.integrate import quad

import sde_diffusion as sd
from sde_diffusion import guidance
from sde_diffusion.editing import forgets, inpaint, replacement
from sde_diffusion.editing.replacement import check_forgets
from sde_diffusion.noise import IndependentNoise, Noise

DOUBLE = torch.float64
VP, EDM = sd.VPLinear(), sd.EDM()
POINT = sd.problems.Gaussian([0.6, -0.4, 0.1], 0.0)
MASK = torch.tensor([True, False, True])


def correlated(r):
    return sd.problems.Gaussian([0.0, 0.0], [[1.0, r], [r, 1.0]])


def pictures(n, problem=POINT):
    return problem.sample(n, torch.Generator().manual_seed(3))


def noisy_grid(schedule, steps=6):
    """From where pure noise is a start, to sigma > 0."""
    return smooth_grid(schedule, steps, -2.0, 2.0)


def one_noise(n, size=3):
    return torch.randn(n, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("schedule", [VP, EDM, sd.FlowMatching()], ids=repr)
@each(("name", "options"), every_solver())
def test_every_network_call_sees_the_path(name, options, schedule):
    """Trial points too: known entries are alpha y + sigma z, whatever the solver makes of them."""
    y, z, seen = pictures(4), one_noise(4), []

    def looks(x, t):
        alpha_t, sigma_t = schedule(t)
        seen.append((x - alpha_t * y - sigma_t * z)[:, MASK].abs().max())
        return POINT.denoised(x, alpha_t, sigma_t)

    told = replacement(sd.FunctionDenoiser(looks, schedule), y, MASK, z)
    plan = sd.SOLVERS[name](schedule, noisy_grid(schedule), **options)
    sd.run(plan, told, torch.full_like(z, 9.0), noise=1)
    assert len(seen) == plan.nfe
    assert max(seen) < 1e-12


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@each(("name", "claim"), every_claim(lambda claim: claim.point_exact))
def test_on_a_point_the_rows_keep_the_path_by_themselves(name, claim, schedule):
    """Deterministic solvers: all states are alpha y + sigma z, without anyone setting them."""
    plan = sd.SOLVERS[name](schedule, noisy_grid(schedule), **claim.options)
    if plan.stochastic:
        return
    y, z = pictures(4), one_noise(4)
    alpha, sigma = (
        torch.tensor([float(scale(t)) for t in plan.times], dtype=DOUBLE)[:, None, None]
        for scale in (schedule.alpha, schedule.sigma)
    )
    path = alpha * y + sigma * z
    told = replacement(POINT.denoiser(schedule), y, MASK, z)
    torch.testing.assert_close(sd.record(plan, told, path[0]).states, path, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", sd.SOLVERS)
def test_solvers_keep_their_order_on_the_unknown_part(name):
    """One noise for the path: an ODE like any other, solved to 1e-11 by an adaptive method."""
    problem, order = correlated(0.9), sd.CLAIMS[name][0].usual_order
    if sd.SOLVERS[name](VP, noisy_grid(VP)).stochastic:
        return
    y, z = pictures(8, problem), one_noise(8, 2)
    told = replacement(problem.denoiser(VP), y, torch.tensor([1, 0]), z)
    grids = [noisy_grid(VP, n) for n in (40, 80)]
    alpha_T, sigma_T = VP(float(grids[0][0]))
    start = alpha_T * y + sigma_T * z
    ends = {"rtol": 1e-11, "atol": 1e-12}
    exact = sd.sample(
        told, (8, 2), solver="scipy", times=grids[0][[0, -1]], start=start, dtype=DOUBLE, **ends
    )
    coarse, fine = (
        float((sd.run(sd.SOLVERS[name](VP, grid), told, start) - exact)[:, 1].norm())
        for grid in grids
    )
    assert math.log2(coarse / fine) > order - 0.35 or fine < 1e-8


@each(("name", "options"), every_solver())
def test_a_plan_forgets_where_starting_afresh_is_going_on(name, options):
    """From a grid point a new plan on the rest does what the old one does, or the old has history.

    Left out are solvers whose steps depend on the grid as a whole, and grid points at raised times.
    """
    if name in ("restart", "repaint", "richardson") or "s_churn" in options:
        return
    grid = noisy_grid(EDM, 8).tolist()
    plan = sd.SOLVERS[name](EDM, grid, **options)
    denoiser, still = sd.problems.two_gaussians().denoiser(EDM), Still()
    x = torch.linspace(-5.0, 5.0, 5, dtype=DOUBLE)[:, None]
    path = sd.record(plan, denoiser, x, noise=still)
    points = [f for f, row in zip(forgets(plan), plan.rows, strict=True) if row.kind == "denoise"]
    for i in (1, 2, 3):
        rest = sd.SOLVERS[name](EDM, grid[i:], **options)
        again = sd.run(rest, denoiser, path.states[i], noise=still)
        assert torch.allclose(again, path.states[-1], rtol=1e-9, atol=1e-11) == points[i]


class Still(Noise):
    """No noise at all."""

    def start(self, out):
        return out.zero_()

    def stream(self, like, course):
        return lambda out, t, s: out.zero_()


class Halves(Still):
    """No noise for the plan, and ones beside it."""

    def apart(self):
        return Ones()


class Ones(Still):
    def stream(self, like, course):
        return lambda out, t, s: out.fill_(1.0)


def test_fresh_noise_comes_from_beside_the_plans_own():
    y, ddpm, seen = pictures(4), sd.solvers.ddpm(VP, noisy_grid(VP)), []

    def looks(point):
        alpha_t, sigma_t = VP(point.t)
        seen.append((point.x - alpha_t * y - sigma_t)[:, MASK].abs().max())

    give = {"noise": "independent", "seed": Halves(), "callback": looks}
    inpaint(POINT.denoiser(VP), y, MASK, solver=ddpm, **give)
    assert len(seen) == 7
    assert max(seen) < 1e-12


@each(("name", "options"), every_solver())
def test_every_solver_runs_or_says_why_not(name, options):
    """Both kinds of noise: the known part is exact at the end, or history is refused."""
    y = pictures(3, sd.problems.ring(8, 3))
    denoiser = sd.problems.ring(8, 3).denoiser(VP)
    plan = sd.SOLVERS[name](VP, sd.times.uniform(VP, 6, t_end=VP.t_clean), **options)
    (alpha_s, sigma_s), seeds = VP(VP.t_clean), [1, 2, 3]
    z = sd.PerSampleNoise(seeds).start(torch.empty_like(y))
    end = inpaint(denoiser, y, MASK, solver=plan, seed=seeds)
    torch.testing.assert_close(end[:, MASK], (alpha_s * y + sigma_s * z)[:, MASK])
    assert torch.isfinite(end).all()
    give = {"solver": plan, "noise": "independent"}
    forgotten = [f for f, row in zip(forgets(plan), plan.rows, strict=True) if row.asks]
    try:
        check_forgets(plan, forgets(plan))
    except ValueError:
        assert not all(forgotten)
        with pytest.raises(ValueError, match=r"Take noise='fixed'"):
            inpaint(denoiser, y, MASK, seed=seeds, **give)
    else:
        end = inpaint(denoiser, y, MASK, seed=seeds, **give)
        alone = inpaint(denoiser, y[1:2], MASK, seed=[2], **give)
        torch.testing.assert_close(end[1:2], alone)  # and no sample looks at another's noise
        assert (end[:, MASK] - alpha_s * y[:, MASK]).abs().max() < 6 * sigma_s


@pytest.mark.parametrize("noise", ["fixed", "independent"])
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "repaint", "heun"])
def test_at_zero_noise_the_known_part_is_the_picture(solver, noise):
    y = torch.rand(2, 1, 4, 4) * 2 - 1
    y[0, 0, 0, 0] = math.nan
    mask = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    mask[0, 0, 0, 0] = False  # what is not known is not read
    denoiser = sd.FunctionDenoiser(lambda x, t: 0.3 * x.mean((2, 3), keepdim=True) + 0 * x, VP)
    states = []
    give = {"solver": solver, "noise": noise, "steps": 5, "seed": 0}
    result = inpaint(denoiser, y, mask, callback=lambda p: states.append(p.x.clone()), **give)
    assert torch.equal(result[mask], y[mask])
    assert torch.isfinite(result).all()
    assert len(states) == 6
    assert torch.equal(states[-1], result)
    other = torch.where(mask, y, 0.7)
    assert torch.equal(inpaint(denoiser, other, mask, **give), result)


def test_masks_that_know_nothing_and_everything():
    problem = sd.problems.ring()
    y, plain = pictures(4, problem), problem.denoiser(VP)
    guided = guidance.classifier_free(problem.given([0, 1]).denoiser(VP), plain, scale=2.0)
    nothing, everything = torch.zeros(2), torch.ones(4, 2, dtype=torch.bool)
    give = {"steps": 8, "seed": [4, 5, 6, 7]}
    # The last jumps where its guidance begins and ends; the default begins anew there in both.
    for denoiser in (plain, guidance.limited_interval(guided, 0.3, 2.0)):
        alone = sd.sample(denoiser, (4, 2), dtype=DOUBLE, **give)
        assert torch.equal(inpaint(denoiser, y, nothing, **give), alone)
        assert torch.equal(inpaint(denoiser, y, everything, **give), y)


@pytest.mark.parametrize("r", [0.3, 0.9])
def test_the_limits_of_small_steps_on_two_coordinates(r):
    """Exact laws of fine plans, without Monte Carlo, against the formulas of `replacement`."""
    denoiser, y = correlated(r).denoiser(EDM), 1.3

    def law(steps, batch, **how):
        picture = torch.tensor([y, math.nan], dtype=DOUBLE).expand(batch, 2)
        grid = sd.times.uniform_lambda(EDM, steps)
        out = inpaint(
            denoiser, picture, torch.tensor([1, 0]), times=grid, seed=UnitNoise(batch), **how
        )
        mean, covariance = law_of(out)
        assert float(covariance[0].norm()) == 0.0
        return float(mean[1]), float(covariance[1, 1])

    q = lambda w: ((1 + w**2) ** 2 - r**2) ** -1.25  # u = 1 + w^2, du = 2 w dw
    zeroth = quad(lambda w: 2 * w * q(w), 0, math.inf)[0]
    first = quad(lambda w: 2 * w**2 * q(w), 0, math.inf)[0]
    size = (1 - r**2) ** 0.25
    mean, variance = law(200, 5, solver="heun")
    assert mean == pytest.approx(y * r * size * zeroth / 2, rel=2e-3)
    assert variance == pytest.approx(size**2 * (1 + r**2 * first**2 / 4), rel=2e-3)

    steps = 600
    mean, variance = law(
        steps, 1 + 2 * (2 * steps + 2), solver="ddim", eta=1.0, noise="independent"
    )
    assert mean == pytest.approx(y * (1 - math.sqrt(1 - r**2)) / r, rel=0.02)
    assert variance == pytest.approx((1 - r**2) * math.atanh(r) / r, rel=0.02)
    assert abs(mean / (r * y) - 1) > 0.25  # and none of them is the law of x_0 given y


@pytest.mark.parametrize("schedule", [VP, sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize("noise", ["fixed", "independent"])
@pytest.mark.parametrize("prediction", ["noise", "velocity", "data"])
def test_networks_answer_as_the_same_function_does(prediction, noise, schedule):
    """What a network's call leaves to the loop, a factor of d, stays out of the known part."""
    network = lambda x, label: (x + label[:, None]).sin()
    asked = sd.NetworkDenoiser(network, schedule, prediction)
    y = pictures(4)
    plain = sd.FunctionDenoiser(lambda x, t: asked(x, t), schedule)
    grid = noisy_grid(schedule)
    scaled = {call.scale for call in asked.bind([float(t) for t in grid], y)}
    assert (scaled == {1.0}) == (prediction == "data")
    give = {"noise": noise, "solver": "ddim", "times": grid, "seed": 0}
    found, expected = (inpaint(d, y, MASK, **give) for d in (asked, plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("noise", ["fixed", "independent"])
def test_guided_denoisers(noise):
    """At scale 1 guidance is the conditional model; at another scale it is another."""
    every, own = sd.problems.ring(), sd.problems.ring().given([1, 2])
    y, give = pictures(4, own), {"solver": "ddpm", "noise": noise, "steps": 6, "seed": 0}
    mask, parts = torch.tensor([0, 1]), (own.denoiser(VP), every.denoiser(VP))
    guided = [sd.guidance.classifier_free(*parts, scale=w) for w in (1.0, 3.0)]
    plain, same, other = (inpaint(d, y, mask, **give) for d in (parts[0], *guided))
    torch.testing.assert_close(same, plain)
    assert float((other - plain).abs().max()) > 1e-3


def test_a_callback_sees_the_replaced_state_and_may_set_another():
    problem = correlated(0.5)
    y, denoiser = pictures(3, problem), problem.denoiser(VP)
    z = IndependentNoise(0).start(torch.empty_like(y))
    seen = []

    def watch(point):
        alpha_t, sigma_t = VP(point.t)
        seen.append(float((point.x - alpha_t * y - sigma_t * z)[:, 0].abs().max()))
        return torch.zeros_like(point.x) if point.index == point.steps else None

    end = inpaint(denoiser, y, torch.tensor([1, 0]), steps=5, seed=0, callback=watch)
    assert max(seen) < 1e-12
    assert len(seen) == 6
    assert not end.any()


@pytest.mark.parametrize("noise", ["fixed", "independent"])
def test_the_network_is_asked_where_callbacks_look(noise):
    y, seen, asked = pictures(3), [], []

    def looks(x, t):
        asked.append(x.clone())
        return 0.3 * x

    give = {"noise": noise, "solver": "ddpm", "steps": 4, "seed": 0}
    keep = lambda point: seen.append(point.x.clone())
    inpaint(sd.FunctionDenoiser(looks, VP), y, MASK, callback=keep, **give)
    assert torch.equal(torch.stack(asked), torch.stack(seen[:-1]))


def test_draws_beside_a_plans_own():
    """`apart`: determined by the seed, like neither its start nor its stream."""
    for source in (IndependentNoise(7), sd.PerSampleNoise([7, 8]), sd.BrownianPath([7, 8])):
        like = torch.empty(2, 5)
        draws = [
            source.start(like.clone()),
            source.apart().start(like.clone()),
            source.apart().stream(like, sd.noise.Course())(like.clone(), 0.0, 0.0),
        ]
        if not isinstance(source, sd.BrownianPath):
            draws.append(source.stream(like, sd.noise.Course())(like.clone(), 0.0, 0.0))
        for i, a in enumerate(draws):
            assert all(float((a - b).abs().max()) > 0.1 for b in draws[:i])
        assert torch.equal(source.apart().start(like.clone()), draws[1])
    second = sd.PerSampleNoise([8]).apart().start(like[1:].clone())
    assert torch.equal(sd.PerSampleNoise([7, 8]).apart().start(like.clone())[1:], second)
    with pytest.raises(TypeError, match="no second source"):
        Still().apart()


Y = torch.zeros(2, 1, 4, 4)
NONE = sd.FunctionDenoiser(lambda x, t: x, VP)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: inpaint(NONE, Y, torch.ones(4)), r"mask has shape \(4,\)"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 3)), r"mask has shape \(1, 4, 3\)"),
        (lambda: inpaint(NONE, Y, torch.ones(3, 1, 4, 4)), r"mask has shape \(3, 1, 4, 4\)"),
        (lambda: inpaint(NONE, Y, torch.full((1, 4, 4), 0.5)), r"the value 0.5"),
        (lambda: inpaint(NONE, Y, torch.full((1, 4, 4), math.nan)), r"the value nan"),
        (lambda: inpaint(NONE, Y, [[1, 0]]), "mask must be a tensor"),
        (lambda: inpaint(NONE, [Y], torch.ones(1, 4, 4)), "picture must be a tensor"),
        (lambda: inpaint(NONE, Y.int(), torch.ones(1, 4, 4)), "127.5 - 1"),
        (lambda: inpaint(NONE, Y / 0, torch.ones(1, 4, 4)), "where the mask is 1"),
        (lambda: inpaint(lambda x, t: x, Y, torch.ones(1, 4, 4)), "which has no schedule; wrap it"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), noise="fresh"), "Known: fixed"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), callback="x"), "callback = 'x': give a"),
        (lambda: sd.editing.forgets("ddim"), "a Plan is needed, not str"),
        (lambda: inpaint(NONE, None, torch.ones(1, 4, 4)), "picture must be a tensor"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), noise=True), "Known: fixed, independent"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), start=Y), "start is an option of sample"),
        (
            lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), strt=Y),
            r"option of inpaint .*Known: (?!.*start)",
        ),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), solver="scipy"), r"start=sigma_T \* z"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), times=[0.3, 0.1]), "pure noise"),
        (lambda: inpaint(NONE, Y, torch.ones(1, 4, 4), sovler="ddim"), "did you mean"),
        (lambda: replacement(NONE, Y, torch.ones(1, 4, 4), torch.ones(2, 4)), "z has shape"),
        (lambda: replacement(NONE, Y, torch.ones(1, 4, 4), Y[:0]), "z has shape"),
        (lambda: replacement(NONE, Y, torch.ones(1, 4, 4), torch.cat([Y, Y])), "z has shape"),
        (lambda: replacement(NONE, Y, torch.ones(1, 4, 4), Y / 0), "z.* not finite"),
        (lambda: replacement(NONE, Y, torch.ones(1, 4, 4), Y)(Y[:1], 0.5), "states"),
        (lambda: replacement(NONE, Y, torch.ones(1, 4, 4), 0), "floating tensor"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
