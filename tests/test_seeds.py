"""SEEDS: the paper's formulas, why one path of noise stops at weak order 2, and what reaches 3."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from enumeration import SCHEDULES, smooth_grid

import sde_diffusion as sd
from sde_diffusion.certificates.convergence import law_error
from sde_diffusion.solvers import dpm_solver_3, sde_dpm_solver_1, seeds


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_seeds_1_is_sde_dpm_solver_1(schedule):
    grid = sd.times.uniform(schedule, 6, t_start=schedule.time_of(-3.0), t_end=schedule.t_clean)
    assert seeds(schedule, grid, stages=1).equals(sde_dpm_solver_1(schedule, grid))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_seeds_2_is_the_papers_formula(schedule):
    """x_s with eps at the middle, sqrt(e^{2h} - e^h) z_1 + sqrt(e^h - 1) z_2, written out."""
    grid = smooth_grid(schedule, 3).tolist()
    trace = sd.Trace(grid[0])
    x = trace.x
    for t, s in pairwise(grid):
        h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
        u = schedule.time_of(schedule.half_log_snr(t) + h / 2)
        (alpha_t, sigma_t), (alpha_u, sigma_u), (alpha_s, sigma_s) = map(schedule, (t, u, s))
        x, d = trace.denoise(x, t)
        eps, z_1, z_2 = (x - alpha_t * d) / sigma_t, trace.noise(t, u), trace.noise(u, s)
        y = alpha_u / alpha_t * x - 2 * sigma_u * math.expm1(h / 2) * eps
        y, d = trace.stage(y + sigma_u * math.sqrt(math.expm1(h)) * z_1, u)
        eps = (y - alpha_u * d) / sigma_u
        x = alpha_s / alpha_t * x - 2 * sigma_s * math.expm1(h) * eps
        x = x + sigma_s * math.sqrt(math.exp(2 * h) - math.exp(h)) * z_1
        x = x + sigma_s * math.sqrt(math.expm1(h)) * z_2
    assert seeds(schedule, grid).equals(trace.end(x, grid[-1]))


def test_seeds_3_has_twice_the_outputs_of_dpm_solver_3():
    """k = 1 + tau^2 = 2 multiplies every integral of eps; the rest is noise."""
    schedule = sd.VPLinear()
    grid = smooth_grid(schedule, 1)
    noisy, plain = seeds(schedule, grid, stages=3), dpm_solver_3(schedule, grid)

    def over_eps(plan):  # x_s = a x_T + sum_j b_j eps_j, eps_j by its own state
        *inner, last = plan.rows
        weights = []
        for j, row in enumerate(inner):
            alpha_t, sigma_t = schedule(row.t)
            weights.append(-last.d.get(j, 0.0) * sigma_t / alpha_t)
        return torch.tensor(weights, dtype=torch.float64)

    torch.testing.assert_close(over_eps(noisy), 2 * over_eps(plain), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_three_stages_on_one_path_have_weak_order_2_and_four_off_it_have_3(prediction):
    def slope(stages):
        steps, schedule = [80, 160, 320], sd.VPLinear()
        make = lambda schedule, grid: seeds(schedule, grid, stages, prediction)
        errors = [law_error(make, schedule, smooth_grid(schedule, n)) for n in steps]
        return -np.polyfit(np.log(steps), np.log(errors), 1)[0]

    assert 1.7 < slope(3) < 2.3
    assert slope(4) > 2.75


def test_stage_noises_of_four_stages_have_the_covariances_that_order_3_needs():
    """As h -> 0, in units of the step's: C_ii = C_i0 = c_i, C_34 = 1/6, C_2i = c_2 = 1/5."""
    schedule = sd.VPLinear()
    grid = [schedule.time_of(0.0), schedule.time_of(1e-5)]
    plan = seeds(schedule, grid, stages=4)
    noise = plan.matrix()[1:, 1 + plan.nfe :]  # stages 2, 3, 4 and the end, eps unrolled as d
    # d_j are held fixed in the matrix, but eps_j carries the state: subtract O(h) by smallness.
    gram = noise @ noise.T
    gram = gram / gram[-1, -1]
    low, high = 0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6
    expected = torch.tensor(
        [
            [0.2, 0.2, 0.2, 0.2],
            [0.2, low, 1 / 6, low],
            [0.2, 1 / 6, high, high],
            [0.2, low, high, 1.0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_ends_of_infinite_h(stages):
    schedule = sd.FlowMatching()
    plan = seeds(schedule, [1.0, 0.6, 0.0], stages, "data")
    assert plan.rows[-1].x == {}
    assert list(plan.rows[-1].d.values()) == [1.0]
    assert plan.rows[-1].z == {}
    with pytest.raises(ValueError, match="alpha = 0"):
        seeds(schedule, [1.0, 0.6], stages)


@pytest.mark.parametrize("options", [{"stages": 5}, {"stages": True}, {"prediction": "velocity"}])
def test_bad_options_are_refused(options):
    with pytest.raises((ValueError, TypeError), match=r"stages|unknown prediction"):
        seeds(sd.VPLinear(), [0.8, 0.4], **options)
