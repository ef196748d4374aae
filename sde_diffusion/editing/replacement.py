r"""Inpainting by replacement: where the network looks, the known part is the noised picture.

The mask M is 1 where the picture y is known. At every network call, at time t, the known part of
the state is replaced by alpha_t y + sigma_t z, and that of the answer by y:

    x' = M (alpha_t y + sigma_t z) + (1 - M) x,     d = M y + (1 - M) E[x_0 | x_t = x'].

A plan's rows combine states entry by entry, so that the known part reaches the unknown one through
the network alone: it has to be right where the network is asked, at trial points too, and nowhere
else. With one z for the whole path the known part moves along alpha_t y + sigma_t z, for which
d = y and eps = z at all times. The unknown part then solves an ODE (or SDE) of its own,

    dx_u/dt = v_u(x_u, alpha_t y + sigma_t z, t),

whose right-hand side is as smooth in t as before, and every solver keeps its order on it: its
history consists of outputs along one path. This is a denoiser made of another, and any sampler
runs it.

With z drawn anew at each call, outputs of different calls belong to different z, and a row that
combines them takes the difference of two noises for a slope. So z may only change where a plan
forgets (`forgets`): at states after which no row uses anything older. The table tells.

Either way the unknown part sees p(x_0 | x_t') and not p(x_0 | y): what is drawn is near the law of
x_0 given y and not equal to it, however fine the grid. On two coordinates of variance 1 and
correlation r, of which the first is known (limit of small steps, from pure noise):

                     mean/y                     variance
    exact            r                          1 - r^2
    fresh z, DDPM    (1 - sqrt(1 - r^2))/r      (1 - r^2) atanh(r)/r
    one z, ODE       r s I_0 / 2                s^2 (1 + r^2 I_1^2 / 4)

with s = (1 - r^2)^(1/4) and integrals from 1 to infinity, I_0 of q(u) = (u^2 - r^2)^(-5/4), I_1 of
sqrt(u - 1) q(u): for small r a half and a third of the mean that is due. RePaint's jumps
(`solvers.repaint`) mend it, and so does guidance by the measurement (`inverse`), of which DDNM with
a mask is the form in which the known part of d alone is replaced.

Song et al., "Score-based generative modeling through SDEs", 2021, arXiv:2011.13456, appendix I.2.
Lugmayr et al., "RePaint: inpainting using denoising diffusion probabilistic models", 2022,
arXiv:2201.09865, eq. 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..conditions import one_count
from ..denoise import Call, Denoiser, check_denoiser
from ..plan import Plan, check_plan
from ..scalar import Scalar
from ..schedule import Schedule
from ..states import along
from .picture import checked_mask, checked_picture


class Known:
    """The known part of pictures: y, and the mask that says where.

    Args:
        picture: y, (batch, *event); its values where the mask is 0 are not read.
        mask: 1 (or True) where y is known, (batch, *event) or (*event).

    Raises:
        TypeError, ValueError: as `picture.checked_picture` and `picture.checked_mask`.
    """

    def __init__(self, picture: Tensor, mask: Tensor) -> None:
        self.mask = checked_mask(mask, picture)
        y = checked_picture(picture, self.mask)
        self.y = torch.where(self.mask, y, torch.zeros((), dtype=y.dtype, device=y.device))

    def put(self, x: Tensor, alpha_t: Scalar, sigma_t: Scalar, z: Tensor) -> Tensor:
        """x with alpha_t y + sigma_t z in the known part."""
        return torch.where(self.mask, alpha_t * self.y + sigma_t * z, x)

    def put_clean(self, d: Tensor) -> Tensor:
        """d with y in the known part."""
        return torch.where(self.mask, self.y, d)

    def like(self, x: Tensor) -> Known:
        """The same in the dtype and on the device of states x; ValueError for another shape."""
        if self.y.shape[1:] != x.shape[1:] or len(self.y) not in (1, len(x)):
            raise ValueError(
                f"the known picture has shape {tuple(self.y.shape)} and the states "
                f"{tuple(x.shape)}: give one picture for each sample, or one for all"
            )
        if self.y.dtype is x.dtype and self.y.device == x.device:
            return self
        return self._with(self.y.to(x), self.mask.to(x.device))

    def select(self, who: Tensor) -> Known:
        """Of some samples, by index."""
        if len(self.y) == 1:
            return self
        who = who.to(self.y.device)
        return self._with(self.y[who], self.mask[who])

    def _with(self, y: Tensor, mask: Tensor) -> Known:
        other = object.__new__(Known)
        other.y, other.mask = y, mask
        return other


class Replaced(Denoiser):
    """A denoiser that is told the known part of a picture, noised with one z for the whole path.

    It may be given to any sampler, guided or guide, adaptive or on a plan.

    Args:
        denoiser: asked at the replaced states.
        known: the picture and where it is known.
        z: the noise of the path, (batch, *event) or (1, *event): best the noise from which
            sampling starts, x_T = alpha_T y + sigma_T z.

    Raises:
        TypeError: no Denoiser; z no floating tensor.
        ValueError: z not of the picture's shape, or not finite; conditions of the denoiser for
            another number of samples.
    """

    def __init__(self, denoiser: Denoiser, known: Known, z: Tensor) -> None:
        check_denoiser(denoiser)
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError("z, the noise of the known part, must be a floating tensor")
        z_shape, shape = tuple(z.shape), tuple(known.y.shape)
        lengths = {*z_shape[:1], *shape[:1]} - {1}
        if z_shape[1:] != shape[1:] or not z.numel() or len(lengths) > 1:
            raise ValueError(
                f"z has shape {z_shape} for pictures of shape {shape}: give one number for each of "
                "theirs"
            )
        if not bool(torch.isfinite(z).all()):
            raise ValueError("z, the noise of the known part, has entries that are not finite")
        self.denoiser, self.known, self.z = denoiser, known, z
        self.schedule = denoiser.schedule
        _ = self.samples  # refuses different numbers

    @property
    def device(self) -> torch.device | None:
        """Where the network is; None: unknown."""
        return getattr(self.denoiser, "device", None)

    @property
    def samples(self) -> int | None:
        own = (len(part) for part in (self.z, self.known.y) if len(part) > 1)  # 1: one for all
        return one_count((*own, self.denoiser.samples))

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        known, z = self.known.like(x), self._noise(x)
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        return known.put_clean(self.denoiser(known.put(x, alpha_t, sigma_t, z), t))

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        known, z = self.known.like(x), self._noise(x)
        calls = self.denoiser.bind(times, x)
        return [
            replaced(call, known, scales(self.schedule, t), z)
            for call, t in zip(calls, times, strict=True)
        ]

    def select(self, who: Tensor) -> Replaced:
        z = self.z if len(self.z) == 1 else self.z[who.to(self.z.device)]
        return Replaced(self.denoiser.select(who), self.known.select(who), z)

    def _noise(self, x: Tensor) -> Tensor:
        if len(self.z) not in (1, len(x)):
            raise ValueError(
                f"z, the noise of the known part, is of {len(self.z)} samples, and the state has "
                f"{len(x)}"
            )
        return self.z.to(x)


def scales(schedule: Schedule, t: float) -> tuple[float, float]:
    """(alpha_t, sigma_t) as floats."""
    alpha_t, sigma_t = schedule(t)
    return float(alpha_t), float(sigma_t)


def replaced(call: Call, known: Known, at: tuple[float, float], z: Tensor) -> Call:
    """A call of a denoiser at (alpha_t, sigma_t) with the known part replaced, before and after."""

    def ask(x: Tensor, out: Tensor | None) -> Tensor:
        d = call.function(known.put(x, *at, z), out)
        return known.put_clean(d if call.scale == 1.0 else call.scale * d)

    return Call(ask)


def replacement(denoiser: Denoiser, picture: Tensor, mask: Tensor, z: Tensor) -> Replaced:
    """A denoiser that is told the known part of a picture at every call.

    d = M y + (1 - M) E[x_0 | x_t = M (alpha_t y + sigma_t z) + (1 - M) x], one z for all times.

    Song et al. 2021, arXiv:2011.13456, appendix I.2, with the noises of all times the same. For
    samplers that are plans, `inpaint` does all that belongs to it; this is for the others:

        z = torch.randn(pictures.shape)
        told = replacement(denoiser, pictures, mask, z)
        sample(told, pictures.shape, solver="per_sample_ode", start=sigma_T * z)

    Nobody sets the last state here: at sigma = 0 its known part is y by samplers that are exact on
    a point ("ddim", "unipc"), and y up to their error by others ("heun"). `inpaint` sets it.

    Args:
        denoiser: any Denoiser.
        picture: y, (batch, *event); values where the mask is 0 are not read.
        mask: 1 where y is known, (batch, *event) or (*event).
        z: standard normal, (batch, *event).

    Raises:
        TypeError, ValueError: a bad picture or mask; z of another shape, or not finite.
    """
    return Replaced(denoiser, Known(picture, mask), z)


def forgets(plan: Plan) -> list[bool]:
    """For every row of a plan, whether it forgets there: later rows use nothing older, by itself.

    All that came before then matters through that row's state and the output asked there alone. At
    grid points of single-step methods it is so, of multistep ones not.
    """
    check_plan(plan)
    made: dict[tuple[str, int], int] = {}
    reach = [0] * len(plan.rows)  # the last row that uses what row i made
    outputs = 0
    for i, row in enumerate(plan.rows):
        for symbol, _ in row.terms():
            if symbol[0] != "z":
                reach[made[symbol]] = i
        made["x", i] = i
        if row.asks:
            made["d", outputs] = i
            outputs += 1
    answers, furthest = [], 0
    for i in range(len(plan.rows)):
        answers.append(furthest <= i)
        furthest = max(furthest, reach[i])
    return answers


def check_forgets(plan: Plan, forgotten: list[bool]) -> None:
    """Raise ValueError if a plan has history across a grid point."""
    for i, row in enumerate(plan.rows):
        if row.kind == "denoise" and not forgotten[i]:
            raise ValueError(
                f"{plan.name} goes on from t = {float(row.t):.6g} with states or outputs from "
                "before it, for which the known part had another noise: their differences would "
                "be noise. Take noise='fixed', one noise for the whole path, or a solver without "
                "history, as 'ddpm', 'ddim', 'repaint' or 'heun'"
            )


__all__ = ["Known", "Replaced", "check_forgets", "forgets", "replaced", "replacement", "scales"]
