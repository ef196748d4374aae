"""The solver's part of the error bar, on few steps and of every solver; and none where none is."""

import pytest
import torch
from enumeration import SCHEDULES

import sde_diffusion as sd
from sde_diffusion.adaptive import FIXED_STEPS
from sde_diffusion.likelihood import log_likelihood

RING = sd.problems.ring(dimension=4)


def found(schedule, n, **options):
    """(error, what is found) over the whole path from t_clean to noise."""
    clean = schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min
    x = RING.sample_marginal(n, *schedule(clean), torch.Generator().manual_seed(0))
    law = lambda x: RING.log_prob(x, *schedule(schedule.t_max))
    p = log_likelihood(RING.denoiser(schedule), x, trace="exact", prior=law, **options)
    return (p.log_prob - RING.log_prob(x, *schedule(clean))).abs(), p


@pytest.mark.parametrize("name", ["vp", "flow"])
@pytest.mark.parametrize("steps", [2, 3, 4, 5, 6])
def test_few_steps_have_their_errors_within_the_bar(steps, name):
    """Of 200 samples no fewer than 95 % less 3 binomial standard deviations, 90.4 %."""
    error, p = found(SCHEDULES[name], 200, steps=steps)
    assert (error <= p.error_bar()).double().mean() >= 0.904


@pytest.mark.filterwarnings("ignore:Functional iteration did not converge")
@pytest.mark.parametrize("method", FIXED_STEPS)
def test_every_method_of_fixed_steps_is_solved_on_a_coarser_grid(method):
    """A looser tolerance changes nothing there, and told an error of 0."""
    error, p = found(SCHEDULES["vp"], 16, solver="torchdiffeq", method=method, steps=8)
    assert (p.tolerance_error > 0).all()
    assert p.error_bar().median() > error.median()


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_exact_trace_and_tight_tolerance_give_the_density_to_1e_8_over_the_whole_path(name):
    """Flow matching has alpha = 0 at its noisy end, into which the mirror image makes one step."""
    schedule = SCHEDULES[name]
    tight = {"solver": "torchdiffeq", "method": "dopri8", "rtol": 1e-10, "atol": 1e-10}
    tight |= {"tolerance_error": False}
    clean = schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min
    error, _ = found(schedule, 2, times=[schedule.t_max, clean], **tight)
    assert error.max() < 1e-8
