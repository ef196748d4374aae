r"""Manifold-preserving guidance: a gradient step on the mean, none through the network.

d_y = d + c_t A'^T (y - A(d)).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..denoise import Denoiser
from .measurement import Measurement
from .posterior import Here, Posterior, check_posed, check_setting


def mpgd(
    denoiser: Denoiser,
    measurement: Measurement,
    variance: float = 1.0,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Posterior:
    """A step down |y - A(z)|^2 from z = d; no gradient of the network; A may be nonlinear.

    d_y = d + r_t^2 g/s_t^2,    g = A'^T (y - A(d)),    s_t^2 = sigma_y^2 + r_t^2 |A'g|^2/|g|^2,
    r_t^2 = v sigma^2/(v alpha^2 + sigma^2)

    He, Murata, Lai, Takida, Uesaka, Kim, Liao, Mitsufuji, Kolter, Salakhutdinov & Ermon, "Manifold
    preserving guided diffusion", 2023, arXiv:2311.16424. Its step c_t is a setting; here it is the
    one that minimises |y - A z|^2/sigma_y^2 + |z - d|^2/r_t^2 along g, for data of variance v. The
    paper also projects onto the data's manifold by an autoencoder: pass
    `lambda d: space.decode(space.encode(d))`.

    Args:
        denoiser: d = E[x_0 | x_t].
        measurement: y, A and sigma_y; a nonlinear A is linearised at d.
        variance: v >= 0, of the data in one coordinate; inf for any.
        project: data -> data, applied to d after the step.

    Raises:
        TypeError: project not callable.
        ValueError: a negative variance; a projection that changes the shape.
    """
    check_posed(denoiser, measurement)
    check_setting("variance", variance)
    if project is not None and not callable(project):
        raise TypeError(
            f"project = {project!r} must be a function of the mean, "
            "lambda d: space.decode(space.encode(d))"
        )

    def rule(here: Here) -> Tensor:
        d = here.prior()
        around = here.around(d)
        g = around.pull(around.residual)
        _, step = here.precision(around, g, variance)
        d = d + step * g
        return d if project is None else _projected(d, project)

    return Posterior(denoiser, measurement, rule)


def _projected(d: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    found = project(d)
    if not isinstance(found, Tensor) or found.shape != d.shape:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"project returned {what} for means of shape {tuple(d.shape)}; data -> data"
        )
    return found
