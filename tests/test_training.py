"""The loss and a small network against closed forms.

On Gaussian data x_0 ~ N(m, v) the best predictors are linear in x_t, with V = alpha^2 v + sigma^2:

    E[eps | x_t] = sigma (x_t - alpha m)/V,      E[x_0 | x_t] = m + alpha v (x_t - alpha m)/V,

and their mean squared errors are alpha^2 v/V and sigma^2 v/V.
"""

import itertools

import pytest
import torch
from torch import nn

from sde_diffusion.networks import ResidualMLP
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.training import diffusion_loss

MEAN, VARIANCE = 0.7, 0.3
TARGETS = ["noise", "data", "velocity"]
SCHEDULES = [VPLinear(), SubVP(), VPCosine(), VE(), EDM(), FlowMatching()]


class BestPredictor(nn.Module):
    """The conditional mean of a target given x_t, on data N(MEAN, VARIANCE)."""

    def __init__(self, schedule, target):
        super().__init__()
        self.schedule, self.target = schedule, target

    def forward(self, x, t):
        alpha_t, sigma_t = (torch.as_tensor(c).reshape(-1, 1) for c in self.schedule(t))
        centred = (x - alpha_t * MEAN) / (alpha_t**2 * VARIANCE + sigma_t**2)
        noise, clean = sigma_t * centred, MEAN + alpha_t * VARIANCE * centred
        return {"noise": noise, "data": clean, "velocity": alpha_t * noise - sigma_t * clean}[
            self.target
        ]


class Converted(nn.Module):
    """A noise predictor read as a predictor of another target."""

    def __init__(self, network, schedule, target):
        super().__init__()
        self.network, self.schedule, self.target = network, schedule, target

    def forward(self, x, t):
        alpha_t, sigma_t = (c.reshape(-1, 1, 1) for c in self.schedule(t))
        eps = self.network(x, t)
        clean = (x - sigma_t * eps) / alpha_t
        return {"noise": eps, "data": clean, "velocity": alpha_t * eps - sigma_t * clean}[
            self.target
        ]


def perturbed(network, seed=0):
    """Random weights everywhere: a new network answers zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return network


def gaussian_data(n=1024):
    """The n quantiles of N(MEAN, VARIANCE) at (i + 1/2)/n, shape (n, 1)."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (MEAN + VARIANCE**0.5 * torch.special.ndtri(p)).float()[:, None]


def bits(network):
    return [value.numpy().tobytes() for value in network.state_dict().values()]


# The loss


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_loss_of_the_best_predictor_on_gaussian_data(schedule, target):
    # The four sign pairs have the moments of independent normals up to the second, and the
    # squared error of a linear predictor is quadratic: the mean over them is the expectation.
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=torch.float64)
    x_0, eps = MEAN + VARIANCE**0.5 * signs[:, :1], signs[:, 1:]
    for part in (0.05, 0.4, 0.95):
        time = schedule.t_clean + part * (schedule.t_max - schedule.t_clean)
        t = torch.full((4,), time, dtype=torch.float64)
        loss = diffusion_loss(BestPredictor(schedule, target), schedule, x_0, t, eps, target)
        alpha_t, sigma_t = (float(c) for c in schedule(time))
        total = alpha_t**2 * VARIANCE + sigma_t**2
        expected = {
            "noise": alpha_t**2 * VARIANCE / total,
            "data": sigma_t**2 * VARIANCE / total,
            "velocity": (alpha_t**2 + sigma_t**2) ** 2 * VARIANCE / total,
        }[target]
        assert float(loss) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_errors_in_the_three_targets_are_proportional(schedule):
    generator = torch.Generator().manual_seed(1)
    network = perturbed(ResidualMLP((2, 3), width=8, depth=2)).double()
    x_0, eps = torch.randn((2, 5, 2, 3), generator=generator, dtype=torch.float64)
    for part in (0.1, 0.5, 0.9):
        t = torch.full((5,), schedule.t_clean + part * (schedule.t_max - schedule.t_clean)).double()
        noise, data, velocity = (
            diffusion_loss(Converted(network, schedule, k), schedule, x_0, t, eps, k).item()
            for k in TARGETS
        )
        alpha_t, sigma_t = (float(c) for c in schedule(float(t[0])))
        assert noise == pytest.approx((alpha_t / sigma_t) ** 2 * data, rel=1e-9)
        assert velocity == pytest.approx(
            ((alpha_t**2 + sigma_t**2) / sigma_t) ** 2 * data, rel=1e-9
        )


def test_scales_are_taken_in_float64():
    # Half precision has 11 bits: 1 - 1e-4 rounds to 1, and sigma would be 0 if computed there.
    seen = []

    class Recorder(nn.Module):
        def forward(self, x, t):
            seen.append((x, t))
            return torch.zeros_like(x)

    t = torch.tensor([1e-4, 1 / 3], dtype=torch.float64)
    x_0, eps = torch.zeros(2, 1, dtype=torch.float16), torch.ones(2, 1, dtype=torch.float16)
    diffusion_loss(Recorder(), VPLinear(), x_0, t, eps)
    ((x_t, label),) = seen
    assert torch.equal(x_t[:, 0], VPLinear().sigma(t).half())
    assert x_t.dtype == torch.float16
    assert label.dtype == torch.float32
    assert torch.equal(label, t.float())


# The network


@pytest.mark.parametrize("event_shape", [(), (3,), (2, 5), (1, 8, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_keeps_shape_and_treats_samples_alone(event_shape, dtype):
    generator = torch.Generator().manual_seed(2)
    network = perturbed(ResidualMLP(event_shape, width=16, depth=2)).to(dtype)
    x = torch.randn((4, *event_shape), generator=generator, dtype=dtype)
    t = torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=dtype)
    with torch.no_grad():
        out = network(x, t)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(4)])
        assert network(x[:0], t[:0]).shape == (0, *event_shape)
    assert out.shape == x.shape
    assert out.dtype == dtype
    torch.testing.assert_close(alone, out)


def test_time_is_told_apart_and_continuous():
    # Times a thousandth apart differ, and the answer has a slope there: |jump| <= L |dt|.
    network = perturbed(ResidualMLP((1,), width=16, depth=2)).double()
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    with torch.no_grad():
        coarse = network(torch.ones(1001, 1).double(), t)[:, 0].diff().abs()
        fine = network(torch.ones(1001, 1).double(), t[500] + (t - 0.5) * 1e-6)[:, 0].diff().abs()
    assert (coarse > 0).all()
    assert fine.max() < 1e-5 * coarse.max()


def test_sixteen_bit_networks_do_not_round_the_time():
    network = ResidualMLP((1,), width=8, depth=1)
    t = torch.tensor([0.5, 0.5001])  # the same number in bfloat16
    exact, rounded = network.time(t), network.bfloat16().time(t)
    assert not torch.equal(rounded[0], rounded[1])
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.02)


def test_network_errors():
    network = ResidualMLP((1, 8, 8), width=8, depth=1)
    with pytest.raises(ValueError, match=r"reshape x, or build ResidualMLP\(\(64,\)"):
        network(torch.zeros(2, 64), torch.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        network(torch.zeros(2, 1, 8, 8), torch.tensor(0.5))
    with pytest.raises(TypeError, match=r"i / N"):
        network(torch.zeros(2, 1, 8, 8), torch.tensor([10, 20]))
    with pytest.raises(ValueError, match="at least 1"):
        ResidualMLP((1, 0), width=8)
