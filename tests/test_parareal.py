"""Parareal: what the coarse sweep is, what an iteration makes exact, and when it stops."""

import math
from collections import defaultdict
from itertools import pairwise

import pytest
import torch
from cases import each
from enumeration import every_solver, smooth_grid
from models import DOUBLE, PROBLEM, VP

import sde_diffusion as sd
from sde_diffusion.form import number_of
from sde_diffusion.parallel import run_parallel
from sde_diffusion.parallel.parareal import cut

DENOISER = PROBLEM.denoiser(VP)


def starts(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *PROBLEM.event_shape, generator=generator, dtype=DOUBLE)


def ddim(steps, **options):
    return sd.SOLVERS["ddim"](VP, smooth_grid(VP, steps), **options)


def parareal(plan, x, denoiser=DENOISER, **options):
    return run_parallel(plan, denoiser, x, method="parareal", **options)


@each(("name", "options"), every_solver())
def test_if_the_network_is_constant_the_coarse_sweep_is_the_plan(name, options):
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 8), **options)
    found = parareal(plan, starts(), lambda x, t: torch.full_like(x, 0.7), noise=1, blocks=3)
    assert len(found.residuals) == 1
    assert found.residuals[0] < 1e-12


@each(("name", "options"), every_solver())
def test_block_b_is_exact_when_it_is_run_for_the_last_time(name, options):
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 8), **options)
    x = starts(1)

    def recorded(run_it):
        asked = defaultdict(list)

        def denoise(x, t):
            asked[float(t)].append(x.clone())
            return DENOISER(x, t)

        run_it(denoise)
        return asked

    exact = recorded(lambda denoise: sd.run(plan, denoise, x, noise=1))
    found = recorded(lambda denoise: parareal(plan, x, denoise, noise=1, blocks=3, tolerance=1e-15))
    for t, states in exact.items():
        torch.testing.assert_close(found[t][-1], states[-1], rtol=1e-9, atol=1e-9)


def test_iteration_k_of_blocks_of_m_calls_ends_after_b_plus_k_times_m_less_one_rounds():
    plan, x = ddim(12), starts()
    for blocks, m in ((4, 3), (3, 4), (2, 6)):
        for k in range(1, blocks):
            for rounds, iterations in (
                (blocks + k * (m - 1), k),
                (blocks + k * (m - 1) - 1, k - 1),
            ):
                with pytest.warns(RuntimeWarning, match="had not met"):
                    found = parareal(plan, x, blocks=blocks, tolerance=1e-15, max_rounds=rounds)
                assert len(found.residuals) == iterations
                assert not found.converged.any()


def test_block_b_is_run_b_plus_one_times():
    found = parareal(ddim(12), starts(), blocks=4, tolerance=1e-15)
    assert found.rounds == found.calls == 12
    assert found.evaluations == 3 * 3 * (1 + 2 + 3 + 4)


def test_the_coarse_sweep_of_ddim_is_ddim_from_cut_to_cut():
    plan = ddim(12)
    for block in cut(plan, 4):
        t, s = (plan.rows[i].t for i in (block.first, block.last))
        step = sd.SOLVERS["ddim"](VP, [t, s]).rows[1]
        terms = dict(block.coarse["x", block.last])
        assert terms["x", block.first] == pytest.approx(step.x[0], rel=1e-12)
        assert terms["d", block.asked] == pytest.approx(step.d[0], rel=1e-12)
        assert not block.noise["x", block.last]


def test_the_coarse_sweep_of_ddpm_is_the_posterior_from_cut_to_cut():
    plan = ddim(12, eta=1.0)
    for block in cut(plan, 4):
        t, s = (plan.rows[i].t for i in (block.first, block.last))
        step = sd.SOLVERS["ddim"](VP, [t, s], eta=1.0).rows[1]
        terms = dict(block.coarse["x", block.last])
        assert terms["x", block.first] == pytest.approx(step.x[0], rel=1e-12)
        assert terms["d", block.asked] == pytest.approx(step.d[0], rel=1e-12)
        deviation = math.sqrt(sum(c * c for _, c in block.noise["x", block.last]))
        assert deviation == pytest.approx(number_of(step.z[0]), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "states", "outputs"),
    [("heun", {}, 1, 0), ("ddim", {}, 1, 0), ("adams", {"order": 3}, 1, 2), ("unipc", {}, 2, 2)],
)
def test_a_block_hands_on_what_later_rows_need_and_no_more(name, options, states, outputs):
    for block in cut(sd.SOLVERS[name](VP, smooth_grid(VP, 12), **options), 3)[:-1]:
        kinds = [symbol for symbol, _ in block.handed]
        assert (kinds.count("x"), kinds.count("d")) == (states, outputs)


def test_blocks_have_about_equally_many_calls():
    for plan in (ddim(100), sd.SOLVERS["heun"](VP, smooth_grid(VP, 50))):
        for blocks in (1, 3, 7, 17, 100):
            calls = [block.calls for block in cut(plan, blocks)]
            assert sum(calls) == plan.nfe
            assert max(calls) <= 2 * math.ceil(plan.nfe / blocks)
            assert len(calls) == blocks or plan.name.startswith("heun")


def test_each_sample_stops_by_itself():
    x = torch.cat([starts(4), 3.0 * starts(2, seed=5)])
    plan = ddim(30, eta=0.7)
    found = parareal(plan, x, noise=range(6), tolerance=1e-4)
    assert len(set(found.sample_rounds.tolist())) > 1
    for i in range(6):
        alone = parareal(plan, x[i : i + 1], noise=[i], tolerance=1e-4)
        assert alone.rounds == found.sample_rounds[i]
        torch.testing.assert_close(alone.x[0], found.x[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
@pytest.mark.parametrize("solver", ["ddim", "adams", "unipc", "heun", "angular"])
def test_the_result_is_within_the_tolerance(solver, tolerance):
    plan, x = sd.SOLVERS[solver](VP, smooth_grid(VP, 60)), starts(8)
    found = parareal(plan, x, tolerance=tolerance)
    exact = sd.run(plan, DENOISER, x)
    error = (found.x - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.max() < tolerance
    assert found.rounds < plan.nfe


@pytest.mark.parametrize("solver", ["sde_dpm_solver_pp_2m", "sde_dpm_solver_2m", "er_sde"])
def test_each_iteration_of_a_multistep_method_gains(solver):
    """Were the outputs that a block hands on taken from F as they are, iteration 3 would not."""

    def denoise(x, t):  # eps = 0.3, and an error that a coarse sweep cannot see
        alpha_t, sigma_t = VP(t)
        return (x - 0.3 * sigma_t) / alpha_t + math.sin(7 * float(t))

    plan = sd.SOLVERS[solver](VP, smooth_grid(VP, 12))
    found = parareal(plan, starts(), denoise, noise=1, blocks=4, tolerance=1e-11)
    for before, after in pairwise(found.residuals):
        assert after < before / 4


def test_when_rounds_run_out_the_last_whole_iteration_is_the_result():
    plan, x = ddim(12), starts()
    with pytest.warns(RuntimeWarning, match="max_rounds = 4"):
        found = parareal(plan, x, blocks=4, max_rounds=4)
    coarse = sd.SOLVERS["ddim"](VP, [plan.rows[b.first].t for b in cut(plan, 4)] + [plan.times[-1]])
    torch.testing.assert_close(found.x, sd.run(coarse, DENOISER, x), rtol=1e-10, atol=1e-10)


def test_bad_blocks_are_refused():
    for blocks in (0, 13, 2.0, True):
        with pytest.raises(
            ValueError, match=f"blocks = {blocks!r} must be an integer from 1 to 12"
        ):
            parareal(ddim(12), starts(), blocks=blocks)
    with pytest.raises(ValueError, match="max_rounds = 3 is less than the 4 rounds"):
        parareal(ddim(12), starts(), blocks=4, max_rounds=3)


def test_a_run_that_leaves_the_finite_numbers_says_so():
    with pytest.raises(FloatingPointError, match="not finite"):
        parareal(ddim(6), starts(), lambda x, t: x / (x - x))


def test_a_sample_whose_end_rests_while_its_way_still_moves_is_not_done():
    """Data of single points: an end stays at one of them until its way leads to another."""
    points = torch.randn(60, 16, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    denoiser = sd.problems.DataSet(points).denoiser(VP)
    x = torch.randn(16, 16, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    plan = sd.SOLVERS["ddim"](VP, sd.times.uniform(VP, 100), eta=1.0)
    found = parareal(plan, x, denoiser, noise=1, tolerance=1e-3)
    torch.testing.assert_close(found.x, sd.run(plan, denoiser, x, noise=1), rtol=1e-3, atol=1e-3)
