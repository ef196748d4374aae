"""The simplest way to fit, and the small task on which tune is tried."""

import sde_diffusion as sd
from sde_diffusion.tuning.fit import Fit, Progress
from sde_diffusion.tuning.measure import measure

VP = sd.VPLinear()
RING = sd.problems.ring()
IDEAL = RING.denoiser(VP)
END = VP.t_clean
TASK = {"shape": (2,), "nfe": 4, "t_end": END, "free": "scalars"}


def walk(
    family,
    denoiser,
    loss,
    train,
    validation,
    *,
    state=None,
    watch=None,
    max_iterations=6,
    fail=None,
):
    """Coordinate descent, the simplest way to fit."""
    here = family.start.clone() if state is None else state["numbers"]
    done, step = (0, 0.3) if state is None else (state["done"], state["step"])
    best = here if state is None else state["best"]
    for i in range(done, max_iterations):
        if i == fail:
            raise FloatingPointError("no number")
        before = here
        for k in range(len(here)):
            for move in (step, -step):
                tried = here.clone()
                tried[k] += move
                if _loss(tried, family, denoiser, loss, train) < _loss(
                    here, family, denoiser, loss, train
                ):
                    here = tried
        step = step / 2 if here is before else step
        best = min((best, here), key=lambda v: _loss(v, family, denoiser, loss, validation))
        values = [_loss(here, family, denoiser, loss, part) for part in (train, validation)]
        known = {"numbers": here, "done": i + 1, "step": step, "best": best}
        if watch is not None:
            watch(Progress(i + 1, here, *values, known))
    values = [_loss(best, family, denoiser, loss, part) for part in (train, validation)]
    return Fit(best, *values, max_iterations, 0.1, "iterations")


def _loss(numbers, family, denoiser, loss, pairs):
    return measure(family.plan(numbers), denoiser, loss, pairs).loss
