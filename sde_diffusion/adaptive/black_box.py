"""Other people's ODE solvers on the probability-flow ODE: torchdiffeq and scipy.

These choose their steps by looking at the sample, so they are no plans; they are functions
(denoiser, x, times, **options) -> Solution. The ODE has no limit form at sigma = 0: where a grid
ends there, they integrate to `schedule.t_clean` and take one DDIM step, x = alpha_s d, to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torchdiffeq import odeint

from ..denoise import Denoiser
from ..names import unknown
from ..run import check_state_for
from ..scalar import Scalar
from ..sde import ProbabilityFlowODE
from ..times import check_grid
from .solution import Solution

_ADAPTIVE_STEPS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED_STEPS = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
TORCHDIFFEQ_METHODS = _ADAPTIVE_STEPS + FIXED_STEPS
SCIPY_METHODS = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")


def torchdiffeq(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Solution:
    """Solve the probability-flow ODE with a method of torchdiffeq.

    Chen, "torchdiffeq", 2018; with "dopri5", the sampler of Song et al. (2021), arXiv:2011.13456,
    section 4.3. The error norm is over the whole batch, so a sample's result depends on its batch
    within the tolerance.

    Args:
        denoiser: E[x_0 | x_t].
        x: state at times[0], shape (batch, *event).
        times: noisy to clean. Adaptive methods use the ends only; fixed-step methods ("euler",
            "midpoint", "heun2", "heun3", "rk4", ...) step from point to point.
        method: one of `TORCHDIFFEQ_METHODS`.
        rtol, atol: tolerances of the adaptive methods.

    Raises:
        ValueError: unknown method, tolerance not positive, bad times or state.
    """
    _check(method, TORCHDIFFEQ_METHODS, rtol, atol)

    def solve(ode: Callable[[Tensor, Tensor], Tensor], state: Tensor, grid: list[float]) -> Tensor:
        points = torch.tensor(grid, dtype=torch.float64, device=state.device)
        options = {}
        if method in _ADAPTIVE_STEPS:  # else they step past the end, where sigma may not exist
            points = points[[0, -1]]
            options = {"step_t": points[-1:]}
        return odeint(ode, state, points, method=method, rtol=rtol, atol=atol, options=options)[-1]

    return _integrate(denoiser, x, times, solve)


def scipy(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    method: str = "RK45",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Solution:
    """Solve the probability-flow ODE with `scipy.integrate.solve_ivp`, in float64 on the host.

    With "RK45", the sampler of score_sde (Song et al. 2021, arXiv:2011.13456, section 4.3). The
    network is asked in x's dtype.

    Args:
        denoiser: E[x_0 | x_t].
        x: state at times[0], shape (batch, *event).
        times: noisy to clean; only the ends are used.
        method: one of `SCIPY_METHODS`.
        rtol, atol: tolerances.

    Raises:
        ValueError: unknown method, tolerance not positive, bad times or state.
        RuntimeError: if scipy gives up before the end.
    """
    _check(method, SCIPY_METHODS, rtol, atol)

    def solve(ode: Callable[[Tensor, Tensor], Tensor], state: Tensor, grid: list[float]) -> Tensor:
        def slope(t: float, y: np.ndarray) -> np.ndarray:
            point = torch.from_numpy(y).to(state).reshape(state.shape)
            slopes: np.ndarray = ode(t, point).double().cpu().numpy()  # type: ignore[arg-type]
            if not np.isfinite(slopes).all():  # scipy would shorten its step for ever
                raise FloatingPointError(
                    f"scipy {method}: the network's output is not finite at t = {t:.6g}"
                )
            return slopes.reshape(-1)

        start = state.double().cpu().numpy().reshape(-1)
        solution = solve_ivp(slope, (grid[0], grid[-1]), start, method=method, rtol=rtol, atol=atol)
        if not solution.success:
            raise RuntimeError(
                f"scipy {method} stopped at t = {solution.t[-1]:.6g}: {solution.message}"
            )
        return torch.from_numpy(solution.y[:, -1]).to(state).reshape(state.shape)

    return _integrate(denoiser, x, times, solve)


def _integrate(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    solve: Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, list[float]], Tensor],
) -> Solution:
    """To the end of the grid, or to t_clean and then by one denoising step to sigma = 0."""
    check_state_for(denoiser, x)
    schedule = denoiser.schedule
    grid = [float(t) for t in check_grid(schedule, times)]
    calls = 0
    flow = ProbabilityFlowODE(denoiser)

    def ode(t: Scalar, state: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        # torchdiffeq tries an Euler step of any length to choose its first: not outside the grid.
        return flow.drift(state, min(max(float(t), grid[-1]), grid[0]))

    end, jump = grid[-1], bool(schedule.sigma(grid[-1]) == 0)
    if jump:
        grid = [t for t in grid if t > schedule.t_clean] + [schedule.t_clean]
    with torch.no_grad():
        state = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
        if len(grid) > 1:
            try:
                state = solve(ode, state, grid)
            except (AssertionError, RuntimeError) as error:  # how either package gives up
                raise FloatingPointError(
                    f"the solver gave up after {calls} network calls ({error}); look at the "
                    "network's output for numbers that are not finite, or relax the tolerance"
                ) from error
        if jump:
            state = float(schedule.alpha(end)) * denoiser(state, grid[-1])
    if not torch.isfinite(state).all():
        raise FloatingPointError(f"the solution is not finite at t = {end:g}")
    return Solution(state, calls + jump)


def _check(method: str, known: tuple[str, ...], rtol: float, atol: float) -> None:
    if method not in known:
        raise ValueError(unknown("method", method, known))
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol = {rtol}, atol = {atol}: tolerances must be positive")
