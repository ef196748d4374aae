"""How two packages find likelihoods, written for this benchmark from their descriptions.

`score_sde` follows likelihood.py of score_sde_pytorch (Song et al. 2021, arXiv:2011.13456): scipy's
RK45 on the flattened batch with a log-density beside each sample, rtol = atol = 1e-5, one probe a
sample; at each step one evaluation of the drift and a second, with a graph, for v^T (d drift) v.
`flow_matching` follows ODESolver.compute_likelihood of flow_matching (Lipman et al. 2024,
arXiv:2412.06264): torchdiffeq's dopri5 at 1e-5 and the exact divergence, coordinate by coordinate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torchdiffeq import odeint

from sde_diffusion import Denoiser, ProbabilityFlowODE


@dataclass(frozen=True)
class Found:
    """log p (batch,), and evaluations of the network."""

    log_prob: Tensor
    nfe: int


def score_sde(
    denoiser: Denoiser, x: Tensor, t: float, seed: int, probe: str = "rademacher", tol: float = 1e-5
) -> Found:
    """log p_t(x) with one probe and RK45."""
    ode, shape, n = ProbabilityFlowODE(denoiser), x.shape, len(x)
    v = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    v = v.sign() if probe == "rademacher" else v
    calls = 0

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 2
        state = torch.from_numpy(y[:-n]).to(x.dtype).reshape(shape)
        with torch.no_grad():
            drift = ode.drift(state, u)
        with torch.enable_grad():
            state.requires_grad_()
            inner = (ode.drift(state, u) * v).sum()
            (product,) = torch.autograd.grad(inner, state)
        divergence = (product * v).flatten(1).sum(1)
        return np.concatenate([drift.flatten().double().numpy(), divergence.double().numpy()])

    start = np.concatenate([x.flatten().double().numpy(), np.zeros(n)])
    end = denoiser.schedule.t_max
    solution = solve_ivp(slope, (t, end), start, rtol=tol, atol=tol, method="RK45")
    y = torch.from_numpy(solution.y[:, -1])
    return Found(prior(y[:-n].reshape(shape), denoiser) + y[-n:], calls)


def flow_matching(denoiser: Denoiser, x: Tensor, t: float, tol: float = 1e-5) -> Found:
    """log p_t(x) with the exact divergence and dopri5."""
    ode, dimension = ProbabilityFlowODE(denoiser), math.prod(x.shape[1:])
    end = denoiser.schedule.t_max
    calls = 0

    def slope(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            drift = ode.drift(y, min(max(float(u), t), end)).flatten(1)
            divergence = torch.zeros(len(y), dtype=y.dtype)
            for i in range(dimension):
                (row,) = torch.autograd.grad(drift[:, i].sum(), y, retain_graph=True)
                divergence += row.flatten(1)[:, i]
        return drift.detach().reshape(y.shape), divergence

    start = (x, torch.zeros(len(x), dtype=x.dtype))
    options = {"step_t": torch.tensor([end], dtype=torch.float64)}
    ends = torch.tensor([t, end], dtype=torch.float64)
    y, change = odeint(slope, start, ends, method="dopri5", rtol=tol, atol=tol, options=options)
    return Found(prior(y[-1].double(), denoiser) + change[-1].double(), calls)


def prior(x: Tensor, denoiser: Denoiser) -> Tensor:
    """log N(x; 0, sigma_T^2 I)."""
    law = torch.distributions.Normal(0.0, float(denoiser.schedule.sigma(denoiser.schedule.t_max)))
    return law.log_prob(x).flatten(1).sum(1)
