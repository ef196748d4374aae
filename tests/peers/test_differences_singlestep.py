"""Where diffusers' singlestep DPM-Solver and IPNDM are not ours: each shown on their own code."""

import diffusers_peer
import numpy as np
import pytest
import torch
from diffusers_peer import as_angular
from pairs_diffusers import VP, at_sigmas
from pairs_singlestep import NAME, on_lambdas
from probe import as_plan, difference

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.solvers.exponential import weights

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
THIRDS = (1 / 3, 2 / 3)


def singlestep(steps, places, algorithm="dpmsolver++", solver_type="midpoint"):
    """(its table, the times of its states)."""
    config = {"algorithm_type": algorithm, "solver_type": solver_type}
    calls = steps * (len(places) + 1)
    table, made = diffusers_peer.table(NAME, calls, **on_lambdas(steps, places), **config)
    return table, [float(t) for t in at_sigmas(made)[1]]


def slope(error):
    """From 16 to 32 steps."""
    return np.log2(error(16) / error(32))


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "dpmsolver"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_the_third_order_row_is_not_that_of_the_papers(algorithm, solver_type):
    ours = {"dpmsolver++": "dpm_solver_pp_3s", "dpmsolver": "dpm_solver_3"}[algorithm]
    table, times = singlestep(6, THIRDS, algorithm, solver_type)
    assert difference(table, sd.SOLVERS[ours](VP, times[::3])) > 0.05


@pytest.mark.parametrize(("solver_type", "through"), [("midpoint", (0, 2)), ("heun", (0, 1, 2))])
def test_the_third_order_row(solver_type, through):
    """The second stage is a step of order 2; the end the line, or the parabola, of D in lambda."""
    table, (t, u, v, s) = singlestep(1, THIRDS, solver_type=solver_type)
    stage = sd.SOLVERS["dpm_solver_pp_2s"](VP, [t, v], solver_type=solver_type).matrix()
    assert (table.states[:3, :3] - stage).abs().max() < 1e-12
    end = torch.zeros(4, dtype=torch.float64)
    w = weights(VP, t, s, [(t, u, v)[j] for j in through], "data")
    end[0] = w.x
    end[[1 + j for j in through]] = torch.tensor([float(c) for c in w.outputs], dtype=torch.float64)
    assert (table.states[3] - end).abs().max() < 1e-11


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "dpmsolver"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize(
    ("places", "low", "high"), [(THIRDS, 2.7, 3.3), ((0.25, 0.5), 1.7, 2.2)], ids=["even", "uneven"]
)
def test_the_third_order_row_is_of_order_3_on_even_steps_only(
    algorithm, solver_type, places, low, high
):
    """Stages at a quarter and a half of the step: order 2."""

    def error(steps):
        table, times = singlestep(steps, places, algorithm, solver_type)
        start, generator = VP(times[0]), torch.Generator().manual_seed(0)
        x = MIXTURE.sample_marginal(64, *start, generator)
        got = sd.run(as_plan(table, times), MIXTURE.denoiser(VP), x)
        exact = MIXTURE.endpoint(x, VP, times[0], times[-1])
        return float((got - exact).square().mean().sqrt())

    assert low < slope(error) < high


@pytest.mark.parametrize(
    ("places", "solver_type", "low", "high"),
    [
        ((0.5,), "midpoint", 0.6, 1.2),
        ((0.5,), "heun", 0.6, 1.2),
        (THIRDS, "midpoint", 0.6, 1.2),
        (THIRDS, "heun", -0.5, 0.1),  # and an error of 48 times the variance at 32 steps
    ],
)
def test_the_sde_has_weak_order_1_at_most(places, solver_type, low, high):
    """A stage and its step take two fresh draws; "heun" of order 3 has the wrong sign of 3M too."""
    variance = torch.tensor([0.3, 1.0], dtype=torch.float64)

    def error(steps):
        table, times = singlestep(steps, places, "sde-dpmsolver++", solver_type)
        got = as_plan(table, times).law(VP, 0.7, variance)[1]
        alpha, sigma = VP(times[-1])
        return float((got / (alpha**2 * variance + sigma**2) - 1).abs().max())

    assert low < slope(error) < high


def test_ipndm_throws_its_first_output_away():
    """It starts at alpha = 0, divides x - sigma eps = 0 by 1e-8, and so takes D = 0 there."""
    table, made = diffusers_peer.table("IPNDM", 12, as_angular)
    assert made.alphas[0] == 0
    assert (table.states[:, 1] == 0).all()
    angular = sd.CustomSchedule(
        lambda t: torch.sqrt(1 - torch.sin(t * torch.pi / 2) ** 4),
        lambda t: torch.sin(t * torch.pi / 2) ** 2,
    )
    ours = sd.SOLVERS["ipndm"](angular, torch.linspace(1, 0, 13, dtype=torch.float64)).matrix()
    assert ours[-1, 1].abs() > 0.1
    ours[:, 1] = 0
    assert (table.states - ours).abs().max() < 1e-5  # its sines are of float32
