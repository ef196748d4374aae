"""azula's twisted diffusion sampler against ours: its weights, and the one that it leaves out."""

import types

import torch
from azula.guidance.tds import TDSSampler

import sde_diffusion as sd
from sde_diffusion.inverse import Matrix, Measurement
from sde_diffusion.particles import twisted

VP = sd.VPLinear()
STEPS, NOISE = 4, 0.5
TIMES = sd.times.uniform_lambda(VP, STEPS, 1.0, 1e-3)
MEAN, VARIANCE = torch.tensor([[0.5, -0.2], [1.0, 0.3]], dtype=torch.float64)
DENOISER = sd.problems.Gaussian(MEAN, VARIANCE).denoiser(VP)
MATRIX, Y = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([1.2]).double()
PLAN = sd.solvers.ddim(VP, TIMES, eta=1.0)
ON_GRID = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)  # azula's name of each of TIMES


def place(t):
    return round((1 - float(t)) * STEPS)


def log_psi(x_0, rho):
    """N(y; A x_0, sigma_y^2 + r^2), r^2 as ours is with variance 1."""
    spread = (NOISE**2 + rho**2 / (1 + rho**2)) ** 0.5
    return torch.distributions.Normal(x_0 @ MATRIX.T, spread).log_prob(Y)


def theirs():
    scales = [tuple(map(torch.as_tensor, VP(t))) for t in TIMES]

    class Denoiser:
        schedule = staticmethod(lambda t: scales[place(t)])

        def __call__(self, x, t):
            return types.SimpleNamespace(mean=DENOISER(x, float(TIMES[place(t)])))

    return TDSSampler(Denoiser(), log_psi, steps=STEPS, silent=True, dtype=torch.float64)


def test_a_steps_weight_is_that_of_the_paper(monkeypatch):
    """p(x_s | x_t) / (proposal(x_s | x_t) psi_t(x_t)), from the rows of DDIM with eta = 1."""
    monkeypatch.setattr(torch, "multinomial", lambda w, n, replacement: torch.arange(n))
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    carry = {}
    x_s = theirs().step(x, ON_GRID[2], ON_GRID[3], carry)
    (alpha, sigma), t = VP(TIMES[2]), float(TIMES[2])
    leaf = x.clone().requires_grad_()
    psi = log_psi(DENOISER(leaf, t), sigma / alpha).sum(1)
    (gradient,) = torch.autograd.grad(psi.sum(), leaf)
    row = PLAN.rows[3]
    (a,), (b,), (c,) = row.x.values(), row.d.values(), row.z.values()
    d = DENOISER(x, t)
    law = lambda d: torch.distributions.Normal(a * x + b * d, c)
    expected = law(d).log_prob(x_s) - law(d + sigma**2 / alpha * gradient).log_prob(x_s)
    torch.testing.assert_close(carry["log_w"], expected.sum(1) - psi.detach())


def test_azula_leaves_out_the_last_weight():
    """Its samples have another mean than p(x_0 | y) at any number of particles; ours have not.

    Exact: under the plan's own law of x_0. 60 populations of 512 particles; azula's is 16 standard
    errors away, ours is held to 4.5 (false alarms: 7e-6 and a bias below 1/512).
    """
    sigma = float(VP.sigma(1.0))
    mean, variance = PLAN.law(VP, MEAN, VARIANCE, start=(0.0, sigma**2))
    gain = variance * MATRIX[0] / (MATRIX[0] ** 2 @ variance + NOISE**2)
    exact = (mean + gain * (Y - MATRIX @ mean))[0]
    torch.manual_seed(0)
    sampler = theirs()
    starts = (sigma * torch.randn(512, 2, dtype=torch.float64) for _ in range(60))
    samples = torch.stack([sampler(x)[:, 0].mean() for x in starts])
    measurement = Measurement(Matrix(MATRIX), Y, NOISE)
    found = twisted(PLAN, DENOISER, measurement, (60, 512, 2), dtype=torch.float64, seed=0)
    for values, right in ((samples, False), (found.expect()[:, 0], True)):
        error = (values.mean() - exact) / (values.std() / 60**0.5)
        assert bool(error.abs() < 4.5) is right, (values.mean(), exact, error)
