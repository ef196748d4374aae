"""One Brownian path: the right law, the same path on finer grids, whatever the batch and order."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import DOUBLE, GRID, VP
from strategies import slope

import sde_diffusion as sd
from sde_diffusion.brownian import lay_out
from sde_diffusion.noise import Course
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.solvers import ddim, ddpm, euler_maruyama


def course_of(lambdas, intervals=None):
    """A course whose times are minus lambda; by default one draw a step."""
    times = tuple(-v for v in lambdas)
    chosen = tuple(pairwise(times)) if intervals is None else intervals
    clock = {t: -t for t in (*times, *(t for interval in chosen for t in interval))}
    return Course(chosen, times, clock)


@st.composite
def lambda_grids(draw):
    """Increasing lambda, uneven over many decades, ends perhaps infinite."""
    gaps = draw(st.lists(st.floats(1e-6, 3.0), min_size=1, max_size=40))
    grid = [-4.0]
    for gap in gaps:
        grid.append(grid[-1] + gap)
    start = [-math.inf] if draw(st.booleans()) else []
    return [*start, *grid, *([math.inf] if draw(st.booleans()) else [])]


def halved(grid, part):
    """Every step cut in two, at any place."""
    cut = []
    for a, b in pairwise(grid):
        if math.isinf(a) or math.isinf(b):
            m = b - 1.0 if math.isfinite(b) else a + 1.0 if math.isfinite(a) else 0.0
        else:
            m = a + part * (b - a)
        cut += [a, m]
    return [*cut, grid[-1]]


def drawn(course, depth=None):
    """z of each interval, by interval."""
    like = torch.empty(2, 4, dtype=DOUBLE)
    stream = sd.BrownianPath([3, 5], depth).stream(like, course)
    return {interval: stream(torch.empty_like(like), *interval) for interval in course.intervals}


def weights(whole, parts):
    """sqrt of each part's share in the clock e^(2 lambda), for times minus lambda."""
    v = lambda t: math.exp(-2 * t - shift)
    shift = -2 * whole[1]
    if math.isinf(whole[1]):
        return [float(math.isinf(s)) for _, s in parts]
    return [math.sqrt((v(s) - v(t)) / (v(whole[1]) - v(whole[0]))) for t, s in parts]


@given(grid=lambda_grids(), data=st.data())
def test_draws_are_orthonormal_combinations_of_fresh_ones(grid, data):
    """Exactly independent standard normals, by feeding unit vectors; one draw a step."""
    ends = sorted(data.draw(st.sets(st.integers(0, len(grid) - 1), min_size=2)))
    intervals = tuple((-grid[i], -grid[j]) for i, j in pairwise(ends))
    kept = tuple(i for i in intervals if data.draw(st.booleans())) or intervals
    depth = data.draw(st.sampled_from([None, None, 1, 6]))
    (path,) = lay_out(course_of(grid, kept), depth)
    width, nodes = 2 * len(grid) if depth is None else 60 * len(grid), []

    def fresh(node, out):
        nodes.append(node)
        out.zero_()[len(nodes) - 1] = 1.0

    empty = lambda: torch.full((width,), math.nan, dtype=DOUBLE)
    rows = [z.clone() for _, z in path.draws(fresh, empty)]
    gram = torch.stack(rows) @ torch.stack(rows).T
    torch.testing.assert_close(gram, torch.eye(len(kept), dtype=DOUBLE), rtol=0, atol=1e-13)
    assert len(set(nodes)) == len(nodes)
    if depth is None and len(kept) == len(grid) - 1:
        assert len(nodes) == len(kept)


@given(grid=lambda_grids(), part=st.floats(0.1, 0.9), times=st.integers(1, 3))
def test_finer_grids_see_the_same_path(grid, part, times):
    """The noise of a step is the weighted sum of that of its halves, quarters, eighths."""
    fine = grid
    for _ in range(times):
        fine = halved(fine, part)
    whole, parts = drawn(course_of(grid)), drawn(course_of(fine))
    each = list(parts)
    for k, (interval, z) in enumerate(whole.items()):
        within = each[k << times : (k + 1) << times]
        total = sum(w * parts[p] for w, p in zip(weights(interval, within), within, strict=True))
        torch.testing.assert_close(total, z, rtol=0, atol=1e-9)


@given(grid=lambda_grids(), part=st.floats(0.1, 0.9), data=st.data())
def test_points_inside_steps_leave_the_path_at_grid_points(grid, part, data):
    """Some steps are drawn in two parts, some not, some not at all: the rest is as it was."""
    whole = drawn(course_of(grid))
    cut = halved(grid, part)
    intervals = []
    for k, (t, s) in enumerate(whole):
        u = -cut[2 * k + 1]
        choices = [(), ((t, s),), ((t, u), (u, s))]
        intervals += data.draw(st.sampled_from(choices[1:] if k == 0 else choices))
    found = drawn(course_of(grid, tuple(intervals)))
    for t, s in whole:
        pieces = [p for p in found if t >= p[0] and p[1] >= s]
        if pieces:
            w = weights((t, s), pieces)
            total = sum(c * found[p] for c, p in zip(w, pieces, strict=True))
            torch.testing.assert_close(total, whole[t, s], rtol=0, atol=1e-9)


def back_and_forth(steps):
    """Down, twice back up and down again over a part, on to the end; no noise in the last step."""
    down = lambda a, b: [a + (b - a) * k / steps for k in range(steps + 1)]
    grid = [*down(-3.0, 0.0), *down(-1.0, 0.5), *down(-0.5, 2.0)]
    times = tuple(-v for v in grid)
    return Course(tuple(pairwise(times))[:-1], times, {t: -t for t in times})


def test_a_run_that_goes_back_refines_each_of_its_passes():
    coarse, fine = back_and_forth(6), back_and_forth(12)
    for whole, parts in ((coarse, fine), (fine, back_and_forth(24))):
        assert len(lay_out(whole)) == 5  # three passes down, two up
        a, b = (_listed(course, (1, 2), 4) for course in (whole, parts))
        place = 0
        for interval, z in zip(whole.intervals, a, strict=True):
            if interval[0] < interval[1]:  # a way up is one step on both
                assert torch.equal(b[place], z)
                place += 1
                continue
            within = parts.intervals[place : place + 2]
            w = weights(interval, within)
            total = w[0] * b[place] + w[1] * b[place + 1]
            torch.testing.assert_close(total, z, rtol=0, atol=1e-9)
            place += 2


@given(grid=lambda_grids(), data=st.data())
def test_disjoint_intervals_may_be_drawn_in_any_order(grid, data):
    course = course_of(grid)
    order = tuple(data.draw(st.permutations(course.intervals)))
    expected, found = drawn(course), drawn(course_of(grid, order))
    assert all(torch.equal(found[interval], expected[interval]) for interval in order)


@given(seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=5, unique=True), data=st.data())
def test_a_samples_path_does_not_depend_on_its_batch(seeds, data):
    """Alone, in another batch, in another place, in shards: the same sample to the bit."""
    plan = ddpm(VP, GRID)

    def draw(chosen):
        noise = sd.BrownianPath(chosen)
        start = noise.start(torch.empty(len(chosen), 3, 7))
        return sd.run(plan, lambda x, t: 0.3 * x, start, noise=noise)

    together = draw(seeds)
    order = data.draw(st.permutations(range(len(seeds))))
    permuted = draw([seeds[i] for i in order])
    for place, i in enumerate(order):
        assert torch.equal(permuted[place], together[i])
        assert torch.equal(draw([seeds[i]])[0], together[i])
    cut = data.draw(st.integers(0, len(seeds)))
    shards = [draw(part) for part in (seeds[:cut], seeds[cut:]) if part]
    assert torch.equal(torch.cat(shards), together)


def test_draws_are_standard_normal_and_unrelated():
    """200,000 numbers of each draw, each test 5 sigma: false alarms < 1e-4 in all.

    Over a step, over its half, over it again and over it backwards: only the half is related.
    """
    half = math.log(0.5) / 2  # in the middle of the clock between -infinity and 0
    grid = [-math.inf, half, 0.0]
    whole, left, again, back = (
        ((math.inf, -0.0),),
        ((math.inf, -half),),
        ((math.inf, -0.0), (math.inf, -0.0), (math.inf, -half)),
        ((0.0, math.inf),),
    )
    n = 200_000
    stream = lambda chosen, seeds=(0, 1): _listed(course_of(grid, chosen), seeds, n // 2)
    z, x = stream(whole)[0], stream(left)[0]
    first, second, third = stream(again)
    (backwards,) = stream(back)
    (other,) = stream(whole, (2, 3))
    assert torch.equal(first, z)
    unrelated = [z, second, third, backwards, other]
    for a in (*unrelated, x):
        assert abs(float(a.mean())) < 5 / math.sqrt(n)
        assert abs(float(a.var()) - 1) < 5 * math.sqrt(2 / n)
    for i, a in enumerate(unrelated):
        for b in unrelated[:i]:
            assert abs(float((a * b).mean())) < 5 / math.sqrt(n)
    assert abs(float((z * x).mean()) - math.sqrt(0.5)) < 5 * math.sqrt(1.5 / n)
    assert abs(float((z[0] * z[1]).mean())) < 5 * math.sqrt(2 / n)


def _listed(course, seeds, size):
    like = torch.empty(len(seeds), size, dtype=DOUBLE)
    stream = sd.BrownianPath(seeds).stream(like, course)
    return [stream(torch.empty_like(like), *interval) for interval in course.intervals]


@pytest.mark.parametrize("steps", [1, 2, 20, 37, 1000, 4096])
def test_memory_grows_as_the_logarithm_of_the_steps(steps):
    """States that are held at once; and float32 is as accurate as one rotation a level allows."""
    grid = [0.01 * k for k in range(steps + 1)]
    (path,) = lay_out(course_of(grid))
    generator = torch.Generator()
    made = []

    def empty(dtype):
        made.append(torch.empty(5, dtype=dtype))
        return made[-1]

    def fresh(node, out):
        numbers = torch.randn(5, generator=generator.manual_seed(node))
        out.copy_(numbers)

    exact = [z.clone() for _, z in path.draws(fresh, lambda: empty(DOUBLE))]
    assert len(made) <= math.log2(steps) + 5
    single = [z.clone() for _, z in path.draws(fresh, lambda: empty(torch.float32))]
    torch.testing.assert_close(torch.stack(single).double(), torch.stack(exact), rtol=0, atol=2e-6)


PROBLEM = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.16, 0.25])
STEPS = (20, 40, 80, 160)


def strong_errors(method, schedule, source, **options):
    """Mean distances between the ends of runs with n and 2 n steps, even in lambda."""
    t_start, t_end = (schedule.time_of(v) for v in (-2.0, 1.0))
    start = PROBLEM.sample_marginal(250, *schedule(t_start), torch.Generator().manual_seed(0))
    ends = []
    for steps in STEPS:
        grid = sd.times.uniform_lambda(schedule, steps, t_start, t_end)
        plan = method(schedule, grid, **options)
        ends.append(sd.run(plan, PROBLEM.denoiser(schedule), start, noise=source(range(250))))
    return [float((a - b).flatten(1).norm(dim=1).mean()) for a, b in pairwise(ends)]


@pytest.mark.parametrize("schedule", [sd.EDM(), sd.FlowMatching()], ids=["edm", "flow"])
@pytest.mark.parametrize(
    ("method", "options"),
    [(ddim, {"eta": 1.0}), (ddim, {"eta": 0.5}), (ddpm, {}), (euler_maruyama, {})],
    ids=["ddim", "ddim-half", "ddpm", "euler-maruyama"],
)
def test_strong_order_is_one_on_one_path(method, options, schedule):
    """Successive grids come together at rate 1."""
    errors = strong_errors(method, schedule, sd.BrownianPath, **options)
    assert slope(STEPS[:3], errors) == pytest.approx(-1.0, abs=0.15)


def test_with_noise_of_its_own_each_grid_stays_where_it_is():
    apart = strong_errors(ddpm, sd.FlowMatching(), sd.PerSampleNoise)
    assert slope(STEPS[:3], apart) == pytest.approx(0.0, abs=0.15)


@given(
    first=st.sets(st.integers(-40, 40), min_size=3, max_size=12),
    second=st.sets(st.integers(-40, 40), min_size=3, max_size=12),
    ends=st.sampled_from([(), (math.inf,), (-math.inf,), (-math.inf, math.inf)]),
)
def test_a_path_of_given_depth_is_the_same_on_all_grids(first, second, ends):
    """Sums of z from one shared point to the next agree, whatever lies between and around."""
    grids = [sorted({0.1 * k for k in points} | {*ends}) for points in (first, second)]
    shared = sorted(set(grids[0]) & set(grids[1]))
    found = [drawn(course_of(grid), 12) for grid in grids]
    for a, b in pairwise(shared):
        sums = []
        for z in found:
            within = [p for p in z if -a >= p[0] and p[1] >= -b]
            w = weights((-a, -b), within)
            sums.append(sum(c * z[p] for c, p in zip(w, within, strict=True)))
        torch.testing.assert_close(sums[0], sums[1], rtol=0, atol=1e-9)


def test_strong_order_shows_on_any_grids_at_a_given_depth():
    """20, 30, 45, ... steps share few points; split by number of steps, their paths differ."""
    schedule, steps = sd.EDM(), (20, 30, 45, 68, 102)

    def errors(depth):
        noise, ends = sd.BrownianPath(range(300), depth), []
        start = noise.start(torch.empty(300, 2)) * 80.0
        for n in steps:
            plan = ddim(schedule, sd.times.karras(schedule, n, t_end=0.1), eta=1.0)
            ends.append(sd.run(plan, PROBLEM.denoiser(schedule), start, noise=noise))
        return [float((a - b).flatten(1).norm(dim=1).mean()) for a, b in pairwise(ends)]

    assert slope(steps[:4], errors(10)) == pytest.approx(-1.0, abs=0.15)
    assert abs(slope(steps[:4], errors(None))) < 0.5


def test_it_says_what_is_missing(x):
    trace = sd.Trace(1.0)
    plan = trace.end(trace.x + trace.noise(1.0, 0.5), 0.5)
    with pytest.raises(ValueError, match=r"noise level at t = 0\.5"):
        sd.run(plan, lambda x, t: x, x, noise=sd.BrownianPath(range(5)))
    with pytest.raises(ValueError, match="2 seeds for a batch of 5"):
        sd.run(ddpm(VP, GRID), lambda x, t: x, x, noise=sd.BrownianPath([1, 2]))
    with pytest.raises(ValueError, match="empty"):
        sd.BrownianPath([])
    for depth in (0, 41, 1.5):
        with pytest.raises(ValueError, match="integer from 1 to 40"):
            sd.BrownianPath([1], depth)
