"""Every preset against its peer: the same table on the peer's own grid, and the same result."""

import azula_peer
import diffusers_peer
import k_diffusion_peer
import pytest
import torch
from diffusers_peer import as_epsilon, as_sample, as_vp_epsilon
from probe import Table, difference

import sde_diffusion as sd
from sde_diffusion.problems import GaussianMixture

VP = sd.ddpm_linear()
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
SDE = {"algorithm_type": "sde-dpmsolver++"}
KARRAS = {"use_karras_sigmas": True}
BETAS = {"beta_start": 1e-4, "beta_end": 0.02}  # these three start from 0.00085 .. 0.012
DIFFUSERS = {
    # preset: (scheduler, answer, are states in the scale alpha = 1?, configuration)
    "DDIM": ("DDIM", as_sample, False, {}),
    "DDIM trailing": ("DDIM", as_sample, False, {"timestep_spacing": "trailing"}),
    "DDIM Stable Diffusion": (
        "DDIM",
        as_sample,
        False,
        {"steps_offset": 1, "set_alpha_to_one": False},
    ),
    "DDPM": ("DDPM", as_sample, False, {}),
    "Euler": ("EulerDiscrete", as_sample, True, {}),
    "Euler Karras": ("EulerDiscrete", as_sample, True, KARRAS),
    "Euler a": ("EulerAncestralDiscrete", as_epsilon, True, {}),
    "Heun": ("HeunDiscrete", as_sample, True, BETAS),
    "LMS": ("LMSDiscrete", as_sample, True, {}),
    "DPM2": ("KDPM2Discrete", as_epsilon, True, BETAS),
    "DPM2 a": ("KDPM2AncestralDiscrete", as_epsilon, True, BETAS),
    "DPM++ 2M": ("DPMSolverMultistep", as_sample, False, {}),
    "DPM++ 2M Karras": ("DPMSolverMultistep", as_sample, False, KARRAS),
    "DPM++ 3M": ("DPMSolverMultistep", as_sample, False, {"solver_order": 3}),
    "DPM++ 2M SDE": ("DPMSolverMultistep", as_sample, False, SDE),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistep", as_sample, False, SDE | KARRAS),
    "DPM++ 3M SDE": ("DPMSolverMultistep", as_sample, False, SDE | {"solver_order": 3}),
    "UniPC": ("UniPCMultistep", as_sample, False, {}),
    "UniPC Karras": ("UniPCMultistep", as_sample, False, KARRAS),
    "SA-Solver": ("SASolver", as_sample, False, {}),
    "PNDM": ("PNDM", as_vp_epsilon, False, {"steps_offset": 1}),
    "DEIS": ("DEISMultistep", as_sample, False, {}),
    "DEIS Karras": ("DEISMultistep", as_sample, False, KARRAS),
}
IDLE_LAST_CALL = {"diffusers DEIS Karras"}  # the peer asks once more, for nothing


def in_vp_scale(table, plan):
    """A table of states x/alpha as one of states x."""
    times = torch.tensor([*plan.asked_at, plan.times[-1]], dtype=torch.float64)
    alpha = VP.alpha(times)[:, None]
    states = table.states * alpha
    states[:, :1] /= alpha[0]
    return Table(states, table.noise * alpha, table.overlap, table.labels)


def names(peer):
    return [name for name in sd.PRESETS if name.split()[0] == peer]


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("name", names("diffusers"))
def test_diffusers_table(name, steps):
    theirs, answer, exploding, config = DIFFUSERS[name.partition(" ")[2]]
    table, _ = diffusers_peer.table(theirs, steps, answer, **config)
    plan = sd.preset(name).plan(VP, steps)
    if name in IDLE_LAST_CALL:
        table = Table(table.states[:-1, :-1], table.noise[:-1], table.overlap, table.labels[:-1])
    if exploding:
        table = in_vp_scale(table, plan)
    assert difference(table, plan) < 1e-9


@pytest.mark.parametrize("name", names("k-diffusion"))
def test_k_diffusion_table(name):
    schedule = sd.EDM(0.02, 50.0)
    sigmas = k_diffusion_peer.sampling.get_sigmas_karras(12, 0.02, 50.0)  # float32
    plan = sd.preset(name).plan(schedule, 12)
    assert torch.allclose(torch.tensor(plan.times), sigmas.double().float(), rtol=1e-5)
    table = k_diffusion_peer.table(name.split()[1], torch.tensor(plan.times, dtype=torch.float64))
    assert difference(table, plan) < 1e-9


@pytest.mark.parametrize("name", names("azula"))
def test_azula_table(name):
    """On a schedule that ends at sigma > 0, as all of azula's do."""
    schedule = sd.VE()
    preset = sd.preset(name)
    options = {"order": preset.options["order"]} if "order" in preset.options else {}
    grid = torch.linspace(1.0, 0.0, 13, dtype=torch.float64)
    table = azula_peer.table(name.split()[1], schedule, grid, **options)
    assert difference(table, preset.plan(schedule, 12)) < 1e-9


def network(x, label):
    """The exact noise of a mixture at a timestep, in the place of a network."""
    t = (label.double().reshape(-1)[:1] + 1) / 1000
    return MIXTURE.denoiser(VP).noise(x.double(), float(t)).to(x.dtype)


DETERMINISTIC = [n for n in names("diffusers") if not sd.preset(n).plan(VP, 20).stochastic]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_diffusers_end_to_end(name):
    """As shipped, in float32: equal to 2e-3, since labels of noise levels are rounded there."""
    theirs, _, _, config = DIFFUSERS[name.partition(" ")[2]]
    made = diffusers_peer.scheduler(theirs, **config)
    made.set_timesteps(20)
    z = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    plan = sd.preset(name).plan(VP, 20)
    level = float(VP.sigma(plan.times[0]))
    exploding = DIFFUSERS[name.partition(" ")[2]][2]
    x = z * (level / float(VP.alpha(plan.times[0])) if exploding else level)
    for label in made.timesteps:
        seen = made.scale_model_input(x, label)
        x = made.step(network(seen, label), label, x, return_dict=False)[0]
    denoiser = sd.NetworkDenoiser(network, VP, "noise", label="timestep")
    ours = sd.sample(denoiser, (64, 2), solver=name, steps=20, start=z * level)
    assert (ours - x).abs().max() < 2e-3 * x.abs().max()
