"""Where peers differ from what they say or from our defaults: each shown on their own code.

If one of these fails, a new version of the peer has mended it: change `docs/peers.md` too.
"""

import math
from itertools import pairwise

import azula_peer
import diffusers_peer
import k_diffusion_peer
import numpy as np
import pairs_diffusers
import pairs_k_diffusion
import pytest
import torch
from pairs_diffusers import at_labels
from probe import as_plan, difference

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
EDM = sd.EDM()


def shipped_nan(name, steps=20, **config):
    """The states of a table, as shipped in float32, that are not numbers."""
    table, _ = diffusers_peer.table(name, steps, wide=False, **config)
    return torch.isnan(table.states).any(1).nonzero().flatten().tolist()


def even(steps):
    """Even steps in lambda from 10 to 0.1."""
    return torch.logspace(1, -1, steps + 1, dtype=torch.float64)


def orders(errors, steps):
    return -np.diff(np.log(errors)) / np.diff(np.log(steps))


@pytest.mark.parametrize(
    ("theirs", "ours", "algorithm"),
    [
        ("DPMSolverMultistep", "dpm_solver_pp_3m", "dpmsolver++"),
        ("DPMSolverMultistep", "dpm_solver_3m", "dpmsolver"),
        ("DPMSolverMultistep", "sde_dpm_solver_pp_3m", "sde-dpmsolver++"),
    ],
)
def test_the_third_order_row_of_diffusers_is_not_the_right_one(theirs, ours, algorithm):
    """test_parity shows that difference="diffusers" is it; the default and "shipped" are not."""
    end = pairs_diffusers.END[algorithm]
    config = {"algorithm_type": algorithm, "solver_order": 3, "final_sigmas_type": end}
    for option in ("corrected", "shipped"):
        pair = pairs_diffusers.pair(theirs, ours, {"difference": option}, **config)
        assert pair.measure() > 1e-4


def test_the_third_order_row_of_k_diffusion_is_not_the_right_one():
    assert pairs_k_diffusion.pair("dpmpp_3m_sde", "sde_dpm_solver_pp_3m").measure() > 0.1


def test_diffusers_sde_dpmsolver_has_no_third_order():
    """It is accepted, and the third step fails."""
    with pytest.raises(UnboundLocalError):
        diffusers_peer.table(
            "DPMSolverMultistep",
            20,
            algorithm_type="sde-dpmsolver",
            solver_order=3,
            final_sigmas_type="sigma_min",
        )


@pytest.mark.parametrize("grid", ["karras_sigmas", "exponential_sigmas", "beta_sigmas"])
def test_diffusers_third_order_ends_in_nan_where_the_last_level_stands_twice(grid):
    config = {f"use_{grid}": True, "final_sigmas_type": "sigma_min"}
    assert shipped_nan("DPMSolverMultistep", solver_order=3, **config) == [20]
    assert shipped_nan("DPMSolverMultistep", solver_order=2, **config) == []


def test_diffusers_unipc_bh1_ends_in_nan_at_sigma_zero():
    assert shipped_nan("UniPCMultistep", solver_type="bh1") == [20]
    assert shipped_nan("UniPCMultistep", solver_type="bh2") == []


def test_diffusers_deis_asks_once_for_nothing_on_karras_levels():
    """The last level stands twice: the last call does not move the state."""
    table, made = diffusers_peer.table("DEISMultistep", 20, use_karras_sigmas=True)
    assert made.sigmas[-1] == made.sigmas[-2] > 0
    assert torch.equal(table.states[-1], table.states[-2])


def test_diffusers_deis_interpolates_in_lambda():
    """Its table is none of the two of the paper (test_parity: it is Adams' in lambda)."""
    for variable in ("t", "rho"):
        options = {"order": 3, "variable": variable}
        pair = pairs_diffusers.pair("DEISMultistep", "deis", options, solver_order=3)
        assert pair.measure() > 1e-2


def test_diffusers_ddim_steps_to_its_own_count_not_to_its_next_time():
    """Where the steps do not divide 1,000, "trailing" times and t - 1000//steps part."""
    table, made = diffusers_peer.table("DDIM", 7, timestep_spacing="trailing")
    assert difference(table, sd.SOLVERS["ddim"](*at_labels(made))) > 1e-2


def test_diffusers_euler_asks_the_network_before_the_churn():
    """Noise is added after the call, so the output belongs to the state without it."""
    churned, made = diffusers_peer.table("EulerDiscrete", 10, step={"s_churn": 4.0})
    assert churned.noise.shape[1] == 10
    assert (churned.noise[0] == 0).all()
    right = sd.SOLVERS["edm_euler"](sd.EDM(1e-3, 300.0), made.sigmas.double(), s_churn=4.0)
    assert difference(churned, right) > 1


def test_diffusers_rounds_the_labels_of_karras_levels():
    """By up to half a timestep."""
    table, made = diffusers_peer.table("DPMSolverMultistep", 20, use_karras_sigmas=True)
    levels = np.log(np.sqrt(np.array((1 - made.alphas_cumprod) / made.alphas_cumprod)))
    exact = made._sigma_to_t(made.sigmas[:-1].numpy(), levels)
    assert 0.3 < np.abs(exact - np.array(table.labels)).max() <= 0.5


def test_azula_reab_has_order_1_whatever_order_is_asked():
    x = MIXTURE.sample_marginal(64, 1.0, 10.0, torch.Generator().manual_seed(0))
    exact = MIXTURE.endpoint(x, EDM, 10.0, 0.1)
    for order in (1, 2, 3):
        errors = []
        for steps in (24, 48, 96):
            table = azula_peer.table("REAB", EDM, even(steps), order=order)
            plan = as_plan(table, even(steps).tolist())
            errors.append(
                float((sd.run(plan, MIXTURE.denoiser(EDM), x) - exact).square().mean().sqrt())
            )
        assert orders(errors, [24, 48, 96])[-1] < 1.2


@pytest.mark.parametrize(("path", "low", "high"), [(True, 1.7, 2.5), (False, 0.5, 1.2)])
def test_k_diffusion_dpmpp_sde_needs_its_brownian_path(path, low, high):
    """Weak order 2 with draws of one path, 1 with independent ones; by the exact law."""
    variance, errors, counts = torch.tensor([0.3, 1.0], dtype=torch.float64), [], [6, 12, 24, 44]
    for steps in counts:
        grid = even(steps).tolist()
        table = k_diffusion_peer.table("dpmpp_sde", even(steps), path)
        stages = [v for a, b in pairwise(grid) for v in (a, math.sqrt(a * b))]
        got = as_plan(table, [*stages, grid[-1]]).law(EDM, 0.7, variance)[1]
        errors.append(float((got / (variance + 0.01) - 1).abs().max()))
    assert low < orders(errors, counts)[-1] < high


def test_k_diffusion_dpmpp_sde_is_ours_but_for_the_clock_of_its_path():
    """Its coefficients are those of sde_dpm_solver_pp_2s; its path runs in sigma."""
    table = k_diffusion_peer.table("dpmpp_sde", even(8), path=True)
    plan = sd.SOLVERS["sde_dpm_solver_pp_2s"](EDM, even(8))
    ours = plan.matrix()[:, : 1 + plan.nfe]
    assert (table.states - ours).abs().max() < 1e-12
    assert difference(table, plan) > 1e-2
