"""One rule for numbers of things, wherever they are given."""

import numpy as np
import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.counts import check_count

GAUSSIAN = sd.problems.Gaussian([0.0], 0.5)
X = torch.ones(3, 1)
DENOISER = GAUSSIAN.denoiser(sd.VPLinear())
ASKS = {
    "draws": lambda n: sd.discrete_bound(DENOISER, X, [0.9, 0.5], draws=n),
    "points": lambda n: sd.continuous_bound(DENOISER, X, points=n),
    "corrector_steps": lambda n: sd.sample(
        DENOISER, (2, 1), solver="predictor_corrector", steps=2, corrector_steps=n - 1
    ),
    "batch": lambda n: sd.measure_moments(DENOISER, X, [0.9, 0.5], batch=n),
}


@pytest.mark.parametrize("value", [1, 5, np.int64(3)])
def test_numbers_of_things(value):
    check_count("things", value)
    check_count("things", value, or_none=True)
    check_count("things", None, or_none=True)
    check_count("things", 0, 0)


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "2", float("nan"), None])
def test_what_is_no_number_of_things(value):
    with pytest.raises(ValueError, match=r"things = .* must be an integer of at least 1"):
        check_count("things", value)


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("value", [0, 1.5])
def test_who_asks_for_one(name, value):
    ASKS[name](1)
    with pytest.raises(ValueError, match=rf"{name} = .* must be an integer"):
        ASKS[name](value)
