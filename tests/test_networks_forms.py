"""What belongs to one form of network: sizes, symmetries, and what a new block does."""

import pytest
import torch
from networks_listed import perturbed
from torch.nn.attention import SDPBackend, sdpa_kernel

from sde_diffusion.networks import DiT, ResidualMLP, Told, UNet, count_parameters
from sde_diffusion.networks.blocks import Attention, Block
from sde_diffusion.networks.dit import DiTBlock, _image, _patches, _places
from sde_diffusion.networks.layers import group_norm
from sde_diffusion.networks.mlp import ResidualBlock


def random(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_unet_of_ddpm_has_the_size_it_is_reported_with():
    # Ho, Jain & Abbeel 2020, appendix B: 35.7 million parameters for CIFAR-10.
    network = UNet(3, width=128, multipliers=(1, 2, 2, 2), attention=(1,), dropout=0.1)
    assert count_parameters(network) / 1e6 == pytest.approx(35.7, abs=0.05)


def test_the_small_dit_has_the_size_it_is_reported_with():
    # Peebles & Xie 2023, table 1: DiT-S has 33 million parameters.
    network = DiT(4, patch=2, width=384, depth=12, heads=6, classes=1000, outputs=2)
    assert count_parameters(network) / 1e6 == pytest.approx(33, abs=0.5)


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (lambda: UNet(1, width=8, multipliers=(1, 2), blocks=1), 0.05),
        (lambda: UNet(1, width=152, multipliers=(1, 2, 2, 2)), 50),
        (lambda: DiT(1, width=36, depth=2), 0.05),
        (lambda: DiT(1, width=480, depth=12), 50),
        (lambda: ResidualMLP((2,), width=64, depth=3), 0.05),
        (lambda: ResidualMLP((64,), width=2048, depth=6), 50),
    ],
    ids=["unet", "unet", "dit", "dit", "mlp", "mlp"],
)
def test_fifty_thousand_and_fifty_million_parameters(make, millions):
    assert count_parameters(make()) / 1e6 == pytest.approx(millions, rel=0.2)


def test_parameters_of_the_mlp_by_formula():
    d, width, depth, hidden, embedding = 6, 10, 3, 7, 5
    network = ResidualMLP((2, 3), width, depth, hidden, embedding)
    layer = lambda inputs, outputs: (inputs + 1) * outputs
    block = layer(embedding, 2 * width) + layer(width, hidden) + layer(hidden, width)
    ends = layer(32, embedding) + layer(d, width) + layer(width, d) + layer(embedding, 1)
    assert count_parameters(network) == ends + depth * block


def test_groups_of_the_norm_are_even_and_not_too_small():
    groups = {channels: group_norm(channels).num_groups for channels in range(1, 300)}
    assert all(channels % n == 0 and n <= 32 for channels, n in groups.items())
    assert all(channels // n >= min(4, channels) for channels, n in groups.items())
    # As in DDPM where it can be: 32 groups.
    assert {groups[128], groups[192], groups[256]} == {32}


def test_new_blocks_change_nothing():
    generator, e, told = torch.Generator().manual_seed(0), random(2, 12), Told()
    image, patches = random(2, 8, 4, 4), random(2, 5, 12)
    block = Block(8, 8, 12, True, 2, 0.0, None, generator)
    assert torch.equal(block(image, e, told), image)
    assert torch.equal(Attention(8, 2, 5, generator)(image, told), image)
    assert torch.equal(DiTBlock(12, 2, 5, generator)(patches, e, told), patches)
    assert torch.equal(ResidualBlock(12, 7, 12, generator)(e, e), e)


def test_the_unet_of_turned_kernels_on_a_turned_image_is_turned():
    # Rows and columns play one part: no axis is taken for another.
    network = UNet(2, width=8, multipliers=(1, 2), blocks=1, attention=(0,), heads=2)
    network = perturbed(network).double()
    x, t = random(2, 2, 4, 6).double(), torch.tensor([0.2, 0.7]).double()
    out = network(x, t)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.copy_(weight.mT.clone())
    torch.testing.assert_close(network(x.mT, t), out.mT)
    assert not torch.allclose(network(x, t), out)


def test_attention_over_pixels_knows_no_places():
    generator = torch.Generator().manual_seed(0)
    layer, told = perturbed(Attention(8, 2, 5, generator)).double(), Told()
    h, turned = random(2, 8, 3, 4).double(), torch.randperm(12, generator=generator)
    turn = lambda h: h.flatten(2)[:, :, turned].reshape(h.shape)
    torch.testing.assert_close(layer(turn(h), told), turn(layer(h, told)))


def test_every_pixel_of_the_unet_sees_every_pixel():
    network = perturbed(UNet(1, width=8, multipliers=(1, 1), blocks=1)).double()
    t = torch.tensor([0.5]).double()
    with sdpa_kernel(SDPBackend.MATH):
        jacobian = torch.func.jacrev(lambda x: network(x, t))(random(1, 1, 16, 16).double())
    assert (jacobian != 0).all()


def test_patches_are_put_together_as_they_were_cut():
    x = random(2, 3, 6, 4)
    cut = _patches(x, 2)
    assert torch.equal(cut[1, 2].reshape(3, 2, 2), x[1, :, 2:4, :2]), "row 1, column 0 of two"
    assert torch.equal(_image(cut, 3, 2, 2), x)


def test_a_dit_without_attention_keeps_patches_apart():
    # A new block changes nothing; then only the first and last layers act, patch by patch.
    network = DiT(2, patch=2, width=8, depth=1, heads=2)
    perturbed(network.leave)
    t = torch.tensor([0.5])
    with sdpa_kernel(SDPBackend.MATH):
        jacobian = torch.func.jacrev(lambda x: network(x, t))(random(1, 2, 4, 6))[0, :, :, :, 0]
    patch = torch.arange(4)[:, None] // 2 * 3 + torch.arange(6) // 2
    same = (patch[:, :, None, None] == patch).expand(2, 2, 4, 6, 4, 6).movedim(1, 3)
    assert torch.equal(jacobian != 0, same)


def test_the_product_of_two_places_depends_on_their_distance_alone():
    places = _places(5, 7, 24, torch.device("cpu")).double().reshape(5, 7, 24)
    row, column = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    nu = 10000.0 ** (-torch.arange(6).double() / 6)
    product = torch.einsum("ijk,mnk->ijmn", places, places)
    apart = lambda i: torch.cos((i[:, :, None, None] - i)[..., None] * nu).sum(-1)
    torch.testing.assert_close(product, apart(row) + apart(column), rtol=0, atol=1e-5)


def test_dropout_acts_in_training_alone():
    network = perturbed(UNet(1, width=8, multipliers=(1,), blocks=1, dropout=0.5))
    x, t = random(2, 1, 4, 4), torch.tensor([0.1, 0.9])
    assert not torch.equal(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputing_blocks_keeps_less_and_has_the_same_gradients(dropout):
    def gradients(recompute):
        network = UNet(
            1, width=8, multipliers=(1, 2), blocks=1, token_size=3,
            dropout=dropout, recompute=recompute,
        )  # fmt: skip
        perturbed(network)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda saved: kept.append(saved.numel()) or saved, lambda saved: saved
        ):
            torch.manual_seed(4)
            loss = network(random(2, 1, 8, 8), torch.tensor([0.1, 0.9]), random(2, 4, 3))
        loss.square().mean().backward()
        return sum(kept), [weight.grad for weight in network.parameters()]

    with torch.random.fork_rng():
        (much, plain), (little, again) = gradients(False), gradients(True)
    assert little < 0.5 * much
    for first, second in zip(plain, again, strict=True):
        torch.testing.assert_close(second, first) if first is not None else None
