"""A mixture with a class in closed form, on which tests of guidance run."""

import torch
from models import DOUBLE

from sde_diffusion.problems import GaussianMixture

BOTH = GaussianMixture(
    [0.2, 0.3, 0.5],
    [[-1.0, 0.2], [0.9, 0.4], [0.3, -0.8]],
    [[0.09, 0.04], [0.04, 0.02], [0.05, 0.1]],
)
WANTED = BOTH.given([0, 2])


def evidence(schedule):
    """(x, t) -> log p(y | x_t = x) of the class WANTED, up to a constant."""

    def log_p(x, t):
        alpha, sigma = schedule(t)
        return WANTED.log_prob(x, alpha, sigma) - BOTH.log_prob(x, alpha, sigma)

    return log_p


def states(n, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def noised(schedule, t, n=6, seed=0):
    return BOTH.sample_marginal(n, *schedule(t), torch.Generator().manual_seed(seed))
