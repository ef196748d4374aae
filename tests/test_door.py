"""The door of a solver: what it is given is of the right kind, or it says so by name."""

import inspect
import math

import numpy as np
import pytest
import torch

import sde_diffusion as sd

VP = sd.VPLinear()
GRID = sd.times.uniform(VP, 8, t_end=0.05)
WRONG = {
    "bool": [0, 1, "yes", None, math.nan],
    "int": [2.5, "3", True, None, math.nan, [2], torch.tensor([1, 2])],
    "float": ["0.5", True, None, [0.5], math.nan, -math.inf, torch.tensor([0.1, 0.2])],
    "str": [3, None, True, ["rho"], {}, "no such word"],
    "int | None": [2.5, "3", True, [2]],
    "bool | None": [0, "yes", math.nan],
    "str | NoiseFunction": [3, None, True, [1], "no such word"],
    "str | Callable[..., Plan]": [3, None, True, [], "no such word"],
    "float | Callable[[Scalar], Scalar]": ["0.5", True, None, [], math.nan],
    "float | Sequence[float]": ["0.5", True, None, math.nan],
    "tuple[float, float] | None": [3, "word", (0.1,), (1.0, 0.1)],
    "tuple[Interval, ...]": [3, [1], None, ((0.3, 0.9),), ((0.3, "0.9", 1, None),)],
}


def every_option():
    """(solver, option, annotation) of all that have one."""
    return [
        pytest.param(name, p.name, p.annotation, id=f"{name}-{p.name}")
        for name, make in sd.SOLVERS.items()
        for p in list(inspect.signature(make).parameters.values())[2:]
    ]


@pytest.mark.parametrize(("name", "option", "kind"), every_option())
def test_an_option_of_a_wrong_kind_is_named(name, option, kind):
    for value in WRONG[kind]:
        with pytest.raises((TypeError, ValueError)) as caught:
            sd.SOLVERS[name](VP, GRID, **{option: value})
        message = str(caught.value)
        assert {part for part in (name, option, repr(value)[:6]) if part not in message} == set()


@pytest.mark.parametrize(
    "value", [0.5, np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5)]
)
def test_a_number_may_come_from_numpy_or_torch(value):
    assert sd.solvers.ddim(VP, GRID, eta=value) == sd.solvers.ddim(VP, GRID, eta=0.5)


def test_an_integer_may_come_from_numpy_or_torch():
    for order in (np.int64(2), torch.tensor(2)):
        assert sd.solvers.adams(VP, GRID, order=order) == sd.solvers.adams(VP, GRID, order=2)


def test_options_by_place_are_counted():
    assert sd.solvers.ddim(VP, GRID, 0.5) == sd.solvers.ddim(VP, GRID, eta=0.5)
    with pytest.raises(TypeError, match=r"ddim takes .* 1 options .*but 2 were given"):
        sd.solvers.ddim(VP, GRID, 0.5, 99)
    with pytest.raises(TypeError, match=r"eta twice: 0\.5 by its place and 0\.2"):
        sd.solvers.ddim(VP, GRID, 0.5, eta=0.2)


def test_a_stage_outside_its_step_is_named():
    with pytest.raises(ValueError, match=r"r2 = 1\.5"):
        sd.solvers.dpm_solver_3(VP, GRID, r2=1.5)


def test_a_negative_noise_of_restart_is_refused():
    with pytest.raises(ValueError, match="s_noise = -1"):
        sd.solvers.restart(VP, GRID, s_noise=-1.0)


def test_sample_hands_a_solver_its_first_steps():
    denoiser = sd.problems.two_gaussians().denoiser(VP)
    options = {"solver": "adams", "times": GRID, "seed": 0}
    full = sd.sample(denoiser, (2, 1), first_steps="full", **options)
    assert not full.equal(sd.sample(denoiser, (2, 1), **options))


def test_a_preset_or_a_depth_of_a_wrong_kind_is_refused():
    with pytest.raises(ValueError, match="unknown preset 3"):
        sd.preset(3)
    with pytest.raises(ValueError, match="depth = True"):
        sd.BrownianPath([1], depth=True)
