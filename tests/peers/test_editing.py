"""Editing as peers have it, their code against ours: strength of diffusers, RePaint of both."""

import types
from functools import partial
from itertools import pairwise

import azula.guidance.repaint
import azula_peer
import diffusers_peer
import pytest
import torch
from diffusers import RePaintScheduler
from diffusers.pipelines.kandinsky2_2.pipeline_kandinsky2_2_img2img import (
    KandinskyV22Img2ImgPipeline,
)
from probe import patched
from probing import UnitNoise, law_of
from test_presets import DIFFUSERS, VP, network

import sde_diffusion as sd
from sde_diffusion.editing import inpaint, sdedit
from sde_diffusion.solvers import ddim, repaint

DOUBLE = torch.float64
BY_STEPS = ["DPM++ 3M", "DEIS"]  # last orders lowered below 15 steps of the whole grid
PICTURE = torch.tensor([[0.8, -0.2], [-1.0, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(("steps", "strength"), [(50, 0.75), (20, 0.3), (100, 0.29), (20, 1.0)])
@pytest.mark.parametrize(
    "name", ["DDIM", "Euler", "Euler Karras", "Heun", "DPM++ 2M", "UniPC", *BY_STEPS]
)
def test_strength_is_the_last_steps(name, steps, strength):
    """The loop of an img2img pipeline, float32 and rounded labels: equal to 2e-3 of the result.

    Multistep methods that miss a history there (LMS) are not.
    """
    theirs, _, exploding, config = DIFFUSERS[name]
    made = diffusers_peer.scheduler(theirs, **config)
    made.set_timesteps(steps)
    pipeline = types.SimpleNamespace(scheduler=made)
    _, last = KandinskyV22Img2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
    assert last == min(int(steps * strength), steps)
    begin = (steps - last) * made.order  # as the pipelines of Stable Diffusion have it
    labels = made.timesteps[begin:]
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(begin)
    z = sd.PerSampleNoise([1, 2, 3]).start(torch.empty_like(PICTURE))
    x = made.add_noise(PICTURE, z, labels[:1])
    begun = x / torch.sqrt(1 + made.sigmas[begin] ** 2) if exploding else x
    for label in labels:
        seen = made.scale_model_input(x, label)
        x = made.step(network(seen, label), label, x, return_dict=False)[0]

    first = []
    keep = lambda point: first.append(point.x.clone()) if point.index == 0 else None
    denoiser = sd.NetworkDenoiser(network, VP, "noise", label="timestep")
    give = {"solver": f"diffusers {name}", "seed": [1, 2, 3], "callback": keep}
    ours = sdedit(denoiser, PICTURE, last=last, steps=steps, **give)
    torch.testing.assert_close(first[0], begun, rtol=1e-4, atol=1e-4)
    assert (ours - x).abs().max() < 2e-3 * x.abs().max()
    t = float(sd.preset(f"diffusers {name}").times(VP, steps)[steps - last])
    sdedit(denoiser, PICTURE, level=float(VP.rho(t)), times="default", **give | {"solver": "ddim"})
    torch.testing.assert_close(first[1], begun, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("iterations", [1, 3])
def test_azulas_repaint_is_ours_from_the_end(iterations, eta):
    """Iterations are jumps of one step + 1, the last step's too: one law on a Gaussian, exactly.

    The peer's first state is replaced here, which it leaves to its user.
    """
    schedule, batch = sd.VPLinear(), 120
    grid = torch.tensor([1.0, 0.7, 0.4, 0.2, 0.05], dtype=DOUBLE)
    law = sd.problems.Gaussian([0.2, -0.1], [[1.0, 0.6], [0.6, 0.5]]).denoiser(schedule)
    y, mask = torch.tensor([0.8, 0.0], dtype=DOUBLE).expand(batch, 2), torch.tensor([True, False])
    noise = UnitNoise(batch)
    stub = azula_peer._Torch(types.SimpleNamespace(draw=lambda: noise.unit(torch.empty_like(y))))

    def mean(x, t):
        return types.SimpleNamespace(mean=law(x, float(t)))

    mean.schedule = lambda t: tuple(torch.as_tensor(c, dtype=DOUBLE) for c in schedule(float(t)))
    kind = azula.guidance.repaint.RePaintSampler
    sampler = type("OnGrid", (kind,), {"timesteps": property(lambda self: grid)})(
        mean, y, mask, iterations=iterations, eta=eta, silent=True
    )
    alpha_T, sigma_T = schedule(1.0)
    start = sigma_T * noise.unit(torch.empty_like(y))
    with patched("azula.sample", torch=stub), patched("azula.guidance.repaint", torch=stub):
        theirs = law_of(sampler(torch.where(mask, alpha_T * y, 0 * y) + start))

    base = partial(ddim, eta=eta)
    plan = repaint(schedule, grid, 1, iterations - 1, base=base, from_end=True)
    give = {"solver": plan, "noise": "independent", "seed": UnitNoise(batch)}
    ours = law_of(inpaint(law, y, mask, **give))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("steps", "length", "count"), [(23, 5, 1), (51, 10, 9), (20, 3, 2)])
def test_diffusers_repaint_walks_as_ours_from_the_end(steps, length, count):
    """Where its pipeline asks the network: at every timestep but those it goes back up to.

    It jumps from the state after the timestep that the paper jumps from. Where the length divides
    the steps it leaves out the jump back to the start, which ours makes.
    """
    made = RePaintScheduler(num_train_timesteps=1000)
    for n in (steps, steps // length * length):
        made.set_timesteps(n, length, count + 1)
        above = [made.timesteps[0] + 1, *made.timesteps]  # of each, the one before it
        theirs = [int(t) for before, t in pairwise(above) if t < before]
        plan = repaint(VP, sd.times.leading(VP, n), length, count, base="ddim", from_end=True)
        ours = [round(1000 * t) - 1 for t in plan.asked_at]
        again = length * count if n % length == 0 else 0
        assert theirs == ours[:length] + ours[length + again :]
