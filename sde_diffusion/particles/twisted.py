r"""The twisted diffusion sampler: exact posteriors of inverse problems as particles grow.

Particles follow the reverse process towards y and are weighed by what that guidance gets wrong:

    propose    x_s ~ N(mean(x_t) + c^2 kappa g, c^2 I),    g = grad log psi_t(x_t)
    weigh      w = p(x_s | x_t) psi_s(x_s) / (proposal(x_s | x_t) psi_t(x_t))
    at the end psi(x_0) = N(y; A(x_0), sigma_y^2 I), the likelihood itself

so that the weighted particles converge to p(x_0 | y) of the plan's own model of x_0, and the
product of the mean weights is an unbiased estimate of p(y).

The published proposal has kappa = 1, right for small steps. The best Gaussian proposal of
covariance c^2 I moves the mean by c^2 times the gradient of log psi_s, damped by its curvature.
For d linear in x with slope j_t = alpha_t r_t^2/sigma_t^2, as on data N(., v I), and A A^T = I,

    kappa = (j_s/j_t) (sigma_y^2 + r_t^2) / (sigma_y^2 + r_s^2 + c^2 j_s^2),

which goes to 1 with the step and does not overshoot in large ones.

Where the data vary more than v, J is larger than j_t and the push too long for any one v. So g is
first shortened as far as d + (sigma_t^2/alpha_t) g would lie farther from y than d does. A proposal
decides how many particles are needed, never what they converge to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor

from ..denoise import Denoiser
from ..gradient import Pull, denoise_with_pull
from ..inverse.measurement import Measurement
from ..inverse.operator import LinearOperator
from ..inverse.posterior import Linearised, check_posed, check_setting, remaining
from ..names import look_up
from ..plan import Plan
from .engine import Options, run_particles
from .guide import Guide, Move, Seen
from .result import Population
from .twists import TWISTS, Level, Twist


def twisted(
    plan: Plan,
    denoiser: Denoiser,
    measurement: Measurement,
    shape: Sequence[int],
    *,
    twist: str | Twist | None = None,
    variance: float = 1.0,
    **options: Unpack[Options],
) -> Population:
    """Samples of p(x_0 | y), y = A(x_0) + sigma_y n, by the twisted diffusion sampler.

    Any stochastic plan serves; the operator may be nonlinear. One call of the network and one
    gradient through it a particle and step.

    Wu, Trippe, Naesseth, Blei & Cunningham, "Practical and asymptotically exact conditional
    sampling in diffusion models", 2023, arXiv:2306.17775 (there with DDPM's kernel, kappa = 1).

    Args:
        plan: a plan that draws noise, best `solvers.ddpm` or `solvers.sde_dpm_solver_pp_2m`: the
            more noise a step has, the farther can particles be moved.
        denoiser: d = E[x_0 | x_t], differentiable in x.
        measurement: y, its operator and its noise sigma_y > 0; one y for all populations, or one
            for each.
        shape: (populations, K, *event).
        twist: psi_t: a name of `TWISTS` or a `Twist`; default: "matched" for a linear operator,
            else "isotropic".
        variance: v > 0 of r_t^2: about the variance of the data in one number; one too large costs
            less than one too small. "isotropic": of all of A(x_0) together over its number of
            independent readings (n times one number of variance v: n v).
        options: resampling, threshold, seed, start, dtype, device, batch, progress: see `Options`.

    Returns:
        The weighted particles; `log_evidence` is that of p(y).

    Raises:
        TypeError, ValueError, FloatingPointError: as `run_particles`; a measurement without
            noise; a variance that is not positive; data of another shape than the operator's.
    """
    guide = TwistedGuide(denoiser, measurement, twist, variance)
    return run_particles(plan, guide, shape, **options)


class TwistedGuide(Guide):
    """Weighs by a twisting function and proposes along its gradient.

    Args:
        denoiser, measurement, twist, variance: see `twisted`.

    Raises:
        TypeError, ValueError: no Denoiser or no Measurement; one without noise; an unknown twist;
            a variance that is not positive and finite.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        measurement: Measurement,
        twist: str | Twist | None = None,
        variance: float = 1.0,
    ) -> None:
        check_posed(denoiser, measurement)
        if measurement.noise == 0:
            raise ValueError(
                "noise = 0: results that fit y exactly have probability zero, and so would every "
                "particle have weight zero; give the noise that y has, or a small one"
            )
        check_setting("variance", variance, above=True, finite=True)
        self.denoiser, self.measurement, self.variance = denoiser, measurement, float(variance)
        if twist is None:
            linear = isinstance(measurement.operator, LinearOperator)
            twist = "matched" if linear else "isotropic"
        self.twist = twist if callable(twist) else look_up("twist", twist, TWISTS)

    def see(self, x: Tensor, t: float, index: int, who: Tensor) -> Seen:
        d, pull = denoise_with_pull(self.denoiser.select(who), x, t)
        measurement, level = self.measurement.select(who), self._level(t)
        log_psi, gradient = self._twisted(measurement, d, pull, level)
        self._check_twist("log psi", log_psi, d.shape[:1])
        self._check_twist("the gradient", gradient, d.shape)
        if level.alpha > 0:  # at alpha = 0 there is no push
            gain = level.sigma**2 / level.alpha
            gradient = Linearised(measurement, d).no_farther(gain * gradient) / gain
        return Seen(d, gradient, log_psi)

    def drift(self, move: Move, pushes: Mapping[int, Tensor]) -> Tensor | None:
        """c^2 kappa g, in a row that takes a denoiser's answer (no jump back to noise)."""
        noise, t, s = self.measurement.noise**2, self._level(move.t), self._level(move.s)
        if not move.d or t.alpha == 0:  # at alpha = 0, g is 0
            return None
        slope = lambda level: level.alpha / (level.alpha**2 * self.variance + level.sigma**2)
        j = self.variance * slope(s)
        damped = noise + s.remaining + move.variance * j**2
        kappa = slope(s) / slope(t) * (noise + t.remaining) / damped
        return move.variance * kappa * pushes[max(pushes)]

    def end(self, x: Tensor, who: Tensor) -> Tensor:
        return self.measurement.select(who).log_likelihood(x)

    def check(self, populations: int, event_shape: tuple[int, ...]) -> None:
        operator, y = self.measurement.operator, self.measurement.y
        if event_shape != tuple(operator.event_shape):
            raise ValueError(
                f"shape has the event {event_shape}, and the operator takes data of shape "
                f"{tuple(operator.event_shape)}: shape = (populations, particles, *event)"
            )
        if y.ndim > len(operator.measured_shape) and len(y) != populations:
            raise ValueError(
                f"{len(y)} measurements for {populations} populations: give one y for all, or one "
                "for each population"
            )

    def _twisted(
        self, measurement: Measurement, d: Tensor, pull: Pull, level: Level
    ) -> tuple[Tensor, Tensor]:
        found = self.twist(measurement, d, pull, level)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ValueError(
                f"the twist {getattr(self.twist, '__name__', self.twist)!r} returned "
                f"{type(found).__name__}; it must return two tensors, log psi (n,) and its "
                "gradient in x_t, of d's shape"
            )
        return found[0], found[1]

    def _check_twist(self, what: str, value: Any, shape: tuple[int, ...]) -> None:
        real = isinstance(value, Tensor) and value.is_floating_point()
        if not (real and tuple(value.shape) == tuple(shape)):
            given = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else value
            raise ValueError(
                f"the twist {getattr(self.twist, '__name__', self.twist)!r} returned {what} "
                f"{given}; it must be a real tensor of shape {tuple(shape)}"
            )

    def _level(self, t: float) -> Level:
        alpha, sigma = (float(c) for c in self.denoiser.schedule(t))
        return Level(alpha, sigma, float(remaining(self.variance, alpha, sigma)))
