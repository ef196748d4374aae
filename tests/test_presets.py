"""Presets, found by enumeration: they build and run on the schedules that they are meant for."""

import pytest
import torch
from cases import each

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
MEANT_FOR = {
    "diffusers": {"linear": sd.ddpm_linear(), "scaled": sd.ddpm_scaled_linear()},
    "k-diffusion": {"edm": sd.EDM(), "vp": sd.VPLinear(), "table": sd.ddpm_linear()},
    "azula": {"vp": sd.VPLinear(), "cosine": sd.VPCosine(), "ve": sd.VE()},
}
CASES = [
    pytest.param(name, schedule, id=f"{name}-{label}")
    for name, preset in sd.PRESETS.items()
    for label, schedule in MEANT_FOR[preset.peer.split()[0]].items()
]


@each(("name", "schedule"), CASES)
def test_a_preset_runs_and_lands_in_the_data(name, schedule):
    """The mean of 512 samples lies within 0.25 of the data's: 4 standard errors are 0.16."""
    denoiser = MIXTURE.denoiser(schedule)
    x = sd.sample(denoiser, (512, 2), solver=name, steps=25, seed=0, dtype=torch.float64)
    assert (x.mean(0) - MIXTURE.mean).abs().max() < 0.25


@each(("name", "schedule"), CASES)
def test_a_preset_is_its_solver_on_its_grid(name, schedule):
    """The front door, the plan and the call agree, at counts either side of 15 steps."""
    preset = sd.preset(name)
    denoiser, x = MIXTURE.denoiser(schedule), torch.randn(3, 2, dtype=torch.float64)
    for steps in (16, 8):
        plan = preset.plan(schedule, steps)
        grid = preset.times(schedule, steps)
        assert plan.times == tuple(grid.tolist())
        assert plan.equals(preset(schedule, grid))
    start = float(schedule.sigma(float(grid[0]))) * x
    runs = [
        sd.sample(denoiser, (3, 2), solver=s, start=start, seed=1, steps=steps)
        for s in (name, preset)
    ]
    runs.append(sd.sample(denoiser, (3, 2), solver=plan, start=start, seed=1))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


def test_names_and_descriptions():
    for name, preset in sd.PRESETS.items():
        assert name == preset.name
        assert name.split()[0] == preset.peer.split()[0]
        assert preset.about.endswith(".")
        assert str(preset).startswith(name)


def test_names_are_read_without_their_spaces_and_capitals():
    assert sd.preset("diffusers DPM++2M karras") is sd.PRESETS["diffusers DPM++ 2M Karras"]
    assert sd.preset("k-diffusion dpmpp_3m_sde") is sd.PRESETS["k-diffusion dpmpp_3m_sde Karras"]


def test_a_given_grid_replaces_that_of_the_preset():
    denoiser, start = MIXTURE.denoiser(sd.EDM()), 80 * torch.ones(1, 2, dtype=torch.float64)
    times = [80.0, 5.0, 0.5, 0.0]
    by_preset = sd.sample(
        denoiser, (1, 2), solver="k-diffusion euler Karras", times=times, start=start
    )
    assert torch.equal(
        by_preset, sd.sample(denoiser, (1, 2), solver="ddim", times=times, start=start)
    )


def test_options_that_depend_on_the_number_of_steps():
    """diffusers lowers its last steps below 15 steps, and only there."""
    schedule, preset = sd.ddpm_linear(), sd.preset("diffusers DEIS")
    for steps, lower in ((14, True), (15, False)):
        grid = preset.times(schedule, steps)
        same = sd.SOLVERS["adams"](schedule, grid, order=2, prediction="noise", lower_last=lower)
        assert preset.plan(schedule, steps).equals(same)


def test_what_is_refused():
    with pytest.raises(ValueError, match="did you mean 'diffusers DDIM'"):
        sd.preset("diffusers DDIMM")
    with pytest.raises(ValueError, match="no integer timesteps"):
        sd.preset("diffusers DPM++ 2M").plan(sd.VPLinear(), 10)
    with pytest.raises(TypeError, match="eta"):
        sd.sample(MIXTURE.denoiser(sd.EDM()), (1, 2), solver="k-diffusion euler Karras", eta=1.0)
    with pytest.raises(ValueError, match="unknown solver"):
        sd.Preset("x", "y", "ddimm", sd.times.uniform)
    with pytest.raises(ValueError, match="at least 1"):
        sd.preset("azula DDIM").plan(sd.VPLinear(), 0)


def test_a_grid_without_a_step_says_how_many_to_take():
    with pytest.raises(ValueError, match=r"steps = 1 .* take at least 2"):
        sd.preset("diffusers DEIS Karras").times(sd.ddpm_linear(), 1)
