"""A small network on flattened events: shapes, samples apart, the time told apart."""

import pytest
import torch

from sde_diffusion.networks import ResidualMLP


def perturbed(network, seed=0):
    """Random weights everywhere: a new network answers zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return network


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
