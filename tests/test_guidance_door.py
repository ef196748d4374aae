"""What guidance takes for a number and a grid, and what it says of what it does not take."""

import numpy as np
import pytest
import torch
from guided_problem import BOTH, WANTED, states
from models import VP

import sde_diffusion as sd
from sde_diffusion import guidance

GRID = sd.times.uniform(VP, 6)
C, U = WANTED.denoiser(VP), BOTH.denoiser(VP)


def test_a_number_is_one_in_every_guise():
    x = states(5)
    ways = {
        "scale": (3.0, lambda v: guidance.classifier_free(C, U, scale=v)),
        "of time": (3.0, lambda v: guidance.classifier_free(C, U, scale=lambda t: v)),
        "zero_above": (
            float(GRID[1]),
            lambda v: guidance.cfg_zero_star(C, U, scale=2, zero_above=v),
        ),
        "interval": (
            float(VP.rho(GRID[2])),
            lambda v: guidance.limited_interval(guidance.classifier_free(C, U, scale=4), 0.1, v),
        ),
        "eta": (0.5, lambda v: guidance.adaptive_projected(C, U, scale=3, eta=v)),
        "quantile": (0.5, lambda v: guidance.dynamic_thresholding(C, v)),
        "CFG++": (0.5, lambda v: guidance.cfg_plus_plus(C, U, scale=v, times=GRID, eta=v)),
    }
    for name, (number, make) in ways.items():
        expected = sd.run(sd.solvers.ddim(VP, GRID), make(number), x)
        assert "tensor" not in repr(make(torch.tensor(number))), name
        for guise in (
            torch.tensor(number, dtype=torch.float64),
            np.array(number),
            np.float64(number),
        ):
            found = sd.run(sd.solvers.ddim(VP, GRID), make(guise), x)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, msg=name)
    guidance.classifier_free(C, U, scale=torch.tensor(2))
    for wrong in (torch.tensor(True), torch.tensor(1j), np.bool_(True)):
        with pytest.raises(TypeError, match="must be a number"):
            guidance.classifier_free(C, U, scale=wrong)


def test_a_scale_for_each_sample_is_told_where_it_belongs():
    for wrong in (torch.ones(5), np.ones(5), [1.0, 2.0]):
        with pytest.raises(TypeError, match="a scale for each sample is a rule of your own"):
            guidance.classifier_free(C, U, scale=wrong)
    with pytest.raises(TypeError, match=r"a Tensor of shape \(5,\) must be a number"):
        guidance.classifier_free(C, U, scale=torch.ones(5))
