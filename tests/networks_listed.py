"""Every kind of network, small, with every kind of condition."""

import pytest
import torch

from sde_diffusion.networks import NETWORKS, build

# kind -> (configuration, shape of one sample)
SMALL = {
    "mlp": ({"event_shape": (2, 4, 6), "width": 16, "depth": 2, "embedding": 12}, (2, 4, 6)),
    "unet": (
        {
            "channels": 2,
            "width": 8,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (1,),
            "heads": 2,
        },
        (2, 4, 6),
    ),
    "dit": ({"channels": 2, "width": 16, "depth": 2, "heads": 2}, (2, 4, 6)),
}
CONDITIONS = {
    "none": {},
    "classes": {"classes": 3},
    "tokens": {"token_size": 5},
    "image": {"condition_channels": 3},
}
CONTEXTS = {
    "none": None,
    "classes": torch.tensor([2, 0, 1, 2]),
    "tokens": torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(7)),
    "image": torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(8)),
}

assert set(SMALL) == set(NETWORKS), "a new kind of network is tested too"

every_kind = pytest.mark.parametrize("kind", list(SMALL))
every_condition = pytest.mark.parametrize("condition", list(CONDITIONS))
conditional = pytest.mark.parametrize("condition", ["classes", "tokens", "image"])


def perturbed(network, seed=0, scale=0.3):
    """Random weights everywhere: a new network answers zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return network


def small(kind, condition="none", **changes):
    """A small network of a kind, as `build` makes it."""
    return build({"kind": kind, **SMALL[kind][0], **CONDITIONS[condition], **changes})


def asked(kind, dtype=torch.float32, seed=2):
    """(x, t) of four samples."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((4, *SMALL[kind][1]), generator=generator, dtype=dtype)
    return x, torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=dtype)


def bits(network):
    return [value.numpy().tobytes() for value in network.state_dict().values()]
