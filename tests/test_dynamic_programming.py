"""Shortest paths against brute force over all grids; what they cost, and what OSS promises."""

import math
from itertools import combinations, pairwise

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.dynamic_programming import (
    gits_times,
    oss_times,
    shortest_path,
    step_costs,
)
from sde_diffusion.tuning.pairs import Pairs
from tests.test_gradient import SCHEDULE, exact_pairs

POINTS = 9


@pytest.fixture(scope="module")
def taught():
    generator = torch.Generator().manual_seed(5)
    means = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    problem = sd.problems.GaussianMixture([0.5, 0.3, 0.2], means, [0.05, 0.1, 0.3])
    return problem.denoiser(SCHEDULE), exact_pairs(problem, 24, 6, points=POINTS)


def grids(last, steps):
    return ([0, *inner, last] for inner in combinations(range(1, last), steps - 1))


@pytest.mark.parametrize("growth", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_path_is_the_best_of_all(steps, growth):
    costs = torch.rand(9, 9, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)

    def total(nodes):
        return sum(growth**k * float(costs[i, j]) for k, (i, j) in enumerate(pairwise(nodes)))

    best = min(grids(8, steps), key=total)
    assert shortest_path(costs, steps, growth) == best


def test_a_path_there_is_none_of_is_refused():
    costs = torch.full((4, 4), math.inf)
    with pytest.raises(ValueError, match="no path of 2 steps"):
        shortest_path(costs, 2)
    for steps in (0, 4, True):
        with pytest.raises(ValueError, match="whole number from 1 to 3"):
            shortest_path(torch.ones(4, 4), steps)
    with pytest.raises(ValueError, match="growth"):
        shortest_path(torch.ones(4, 4), 2, 0.0)


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_costs_are_errors_of_single_steps(taught, solver):
    denoiser, pairs = taught
    costs = step_costs(denoiser, SCHEDULE, pairs, solver=solver)
    for i, j in ((0, 3), (2, 8), (6, 7)):
        plan = sd.SOLVERS[solver](SCHEDULE, pairs.times[[i, j]])
        error = sd.run(plan, denoiser, pairs.states[i]) - pairs.states[j]
        relative = error.norm(dim=1) / pairs.states[j].norm(dim=1)
        assert float(costs[i, j]) == pytest.approx(float(relative.mean()), rel=1e-12)
    assert bool(costs.tril().isinf().logical_or(torch.ones_like(costs).triu(1) > 0).all())


def test_the_network_is_asked_once_a_point(taught):
    denoiser, pairs = taught
    asked = []

    def counting(x, t):
        asked.append(len(x))
        return denoiser(x, t)

    step_costs(counting, SCHEDULE, pairs, chunk=1000)
    assert asked == [24] * (POINTS - 1)
    asked.clear()
    step_costs(counting, SCHEDULE, pairs, chunk=10)
    assert asked == [10, 10, 4] * (POINTS - 1)
    asked.clear()
    oss_times(counting, SCHEDULE, pairs, 3, chunk=1000)
    assert len(asked) == 1 + 2 * (POINTS - 3)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_gits_is_the_best_grid_by_its_costs(taught, steps):
    denoiser, pairs = taught
    costs = step_costs(denoiser, SCHEDULE, pairs)
    best = min(
        grids(POINTS - 1, steps), key=lambda k: sum(float(costs[i, j]) for i, j in pairwise(k))
    )
    assert gits_times(denoiser, SCHEDULE, pairs, steps).equal(pairs.times[best])


def test_oss_of_two_steps_is_the_best_grid_of_all(taught):
    """With one knot the student's states before the last step are no choice."""
    denoiser, pairs = taught

    def end_error(nodes):
        plan = sd.SOLVERS["ddim"](SCHEDULE, pairs.times[nodes])
        error = sd.run(plan, denoiser, pairs.starts) - pairs.ends
        return float((error.norm(dim=1) / pairs.ends.norm(dim=1)).square().mean())

    best = min(grids(POINTS - 1, 2), key=end_error)
    assert oss_times(denoiser, SCHEDULE, pairs, 2).equal(pairs.times[best])
    for steps in (1, 4, 8):
        assert len(oss_times(denoiser, SCHEDULE, pairs, steps)) == steps + 1


def test_oss_follows_its_own_recursion(taught):
    """z_k(j) by brute force: the first k - 1 knots are those that were best for the k-th."""
    denoiser, pairs = taught

    def state(nodes):
        plan = sd.SOLVERS["ddim"](SCHEDULE, pairs.times[nodes])
        return sd.run(plan, denoiser, pairs.starts)

    def error(nodes):
        exact = pairs.states[nodes[-1]]
        return float(((state(nodes) - exact).norm(dim=1) / exact.norm(dim=1)).square().mean())

    best = {0: [0]}
    for left in (2, 1, 0):
        ends = range(1, POINTS - left) if left else [POINTS - 1]
        ways = {j: [[*p, j] for i, p in best.items() if i < j] for j in ends}
        best = {j: min(paths, key=error) for j, paths in ways.items() if paths}
    assert oss_times(denoiser, SCHEDULE, pairs, 3).equal(pairs.times[best[POINTS - 1]])


def test_pairs_without_a_path_are_refused(taught):
    denoiser, pairs = taught
    bare = Pairs(pairs.starts, pairs.ends, 1.0, 0.0)
    for search in (gits_times, oss_times):
        with pytest.raises(ValueError, match="times and states"):
            search(denoiser, SCHEDULE, bare, 3)
        with pytest.raises(ValueError, match="unknown solver"):
            search(denoiser, SCHEDULE, pairs, 3, solver="euler?")
