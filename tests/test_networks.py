"""What every network promises: shapes, dtypes, seeds, times, gradients, and its configuration."""

import inspect
import json

import pytest
import torch
from networks_listed import (
    CONTEXTS,
    SMALL,
    asked,
    bits,
    every_condition,
    every_kind,
    perturbed,
    small,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

from sde_diffusion import NetworkDenoiser, VPLinear
from sde_diffusion.networks import NETWORKS, DiT, ResidualMLP, TimeEmbedding, UNet, build


@every_kind
@every_condition
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_shape_and_dtype_and_treats_samples_alone(kind, condition, dtype):
    network = perturbed(small(kind, condition)).to(dtype)
    x, t = asked(kind, dtype)
    context = CONTEXTS[condition]
    part = lambda i: None if context is None else context[i : i + 1]
    with torch.no_grad():
        out = network(x, t, context)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1], part(i)) for i in range(4)])
        assert network(x[:0], t[:0]).shape == (0, *x.shape[1:])
    assert out.shape == x.shape
    assert out.dtype == dtype
    torch.testing.assert_close(alone, out)


@pytest.mark.parametrize("event_shape", [(), (3,), (2, 5), (1, 8, 8)], ids=str)
def test_mlp_takes_events_of_any_shape(event_shape):
    network = perturbed(ResidualMLP(event_shape, width=16, depth=2))
    generator = torch.Generator().manual_seed(2)
    x, t = torch.randn(4, *event_shape, generator=generator), torch.rand(4, generator=generator)
    with torch.no_grad():
        out = network(x, t)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    assert out.shape == x.shape
    torch.testing.assert_close(alone, out)


@pytest.mark.parametrize("size", [(4, 4), (8, 4), (4, 12), (16, 16), (28, 32)], ids=str)
def test_image_networks_take_every_size_that_is_a_multiple(size):
    for network in (
        UNet(1, width=4, multipliers=(1, 2, 1), blocks=1),
        DiT(1, patch=4, width=8, depth=1, heads=2),
        DiT(3, patch=1, width=8, depth=1, heads=2),
    ):
        x = torch.randn(2, network.channels, *size)
        assert perturbed(network)(x, torch.rand(2)).shape == x.shape


@every_kind
def test_two_outputs_are_the_prediction_and_another_channel_by_channel(kind):
    network = perturbed(small(kind, outputs=2))
    x, t = asked(kind)
    out = network(x, t)
    assert out.shape == (4, 4, *x.shape[2:])
    # The last layer alone tells the two apart: without its second half, the first is the same.
    one = small(kind)
    state = network.state_dict()
    wanted = one.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            wanted[name].copy_(value[: len(wanted[name])])
    torch.testing.assert_close(one(x, t), out[:, :2])
    assert not torch.allclose(out[:, :2], out[:, 2:])


@every_kind
def test_a_new_network_answers_zero(kind):
    x, t = asked(kind)
    assert torch.equal(small(kind)(x, t), torch.zeros_like(x))
    assert not torch.equal(perturbed(small(kind))(x, t), torch.zeros_like(x))


@every_kind
@every_condition
def test_a_seed_is_one_network_and_moves_no_global_state(kind, condition):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = small(kind, condition, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    assert bits(small(kind, condition, seed=1)) == bits(first)
    other = small(kind, condition, seed=2).state_dict()
    drawn = [name for name, value in first.state_dict().items() if value.unique().numel() > 1]
    assert drawn
    assert all(not torch.equal(first.state_dict()[name], other[name]) for name in drawn)


@every_kind
@every_condition
def test_a_configuration_makes_the_network_again(kind, condition):
    network = small(kind, condition, outputs=2, seed=3)
    text = json.dumps(network.configuration)
    again = build(json.loads(text))
    assert type(again) is type(network)
    assert bits(again) == bits(network)
    assert json.dumps(again.configuration) == text
    assert network.configuration == json.loads(text), "nothing in it that JSON would change"
    assert network.configuration["kind"] == kind
    arguments = set(inspect.signature(NETWORKS[kind]).parameters)
    assert set(network.configuration) == {"kind"} | arguments, "every argument is remembered"


@every_kind
@every_condition
def test_the_gradient_reaches_every_weight(kind, condition):
    network = perturbed(small(kind, condition))
    x, t = asked(kind)
    drop = None if condition == "none" else torch.tensor([False, False, False, True])
    network(x, t, CONTEXTS[condition], drop).square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert (weight.grad != 0).any(), name
    if condition == "classes":  # the fourth sample was dropped; the other three name all classes
        assert (network.condition.table.grad != 0).any(dim=1).all()


@every_kind
@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.7, 1.7)], ids=["time", "edm"])
def test_times_are_told_apart_and_the_answer_is_continuous(kind, ends):
    # Labels a thousandth of the range apart differ, and so do all of them from each other; and
    # the answer has a slope: |jump| <= L |dt|.
    network = perturbed(small(kind)).double()
    x = asked(kind, torch.float64)[0][:1].expand(1001, -1, -1, -1)
    t = torch.linspace(*ends, 1001, dtype=torch.float64)
    with torch.no_grad():
        answers = network(x, t).flatten(1)
        near = network(x, t[500] + (t - t[500]) * 1e-6).flatten(1)
    coarse = answers.diff(dim=0).norm(dim=1)
    assert (coarse > 0).all()
    assert near.diff(dim=0).norm(dim=1).max() < 1e-5 * coarse.max()
    distances = torch.cdist(answers, answers) + torch.eye(1001).double() * 1e9
    assert distances.min() > 1e-4 * coarse.max()


def test_the_lowest_frequency_alone_tells_all_labels_apart():
    # With W = 1 the embedding is silu of the features, which is monotone on [-1, 1].
    embedding = TimeEmbedding(32).double()
    with torch.no_grad():
        embedding.layer.weight.copy_(torch.eye(32))
        pair = embedding(torch.linspace(-1.99, 1.99, 399, dtype=torch.float64))[:, [0, 16]]
    assert torch.cdist(pair, pair).add(torch.eye(399).double()).min() > 1e-3


@every_kind
def test_sixteen_bit_networks_do_not_round_the_time_and_answer_in_the_states_dtype(kind):
    network = perturbed(small(kind, "tokens"), scale=0.1)
    x, t = asked(kind)
    near = torch.tensor([0.5, 0.5001])  # the same number in bfloat16
    exact, full = network.time(near), network(x, t, CONTEXTS["tokens"]).detach()
    rounded = network.bfloat16().time(near)
    assert not torch.equal(rounded[0], rounded[1])
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.02)
    half = network(x, t, CONTEXTS["tokens"])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=0.05 * float(full.abs().max()))


@every_kind
@every_condition
def test_mixed_precision_answers_in_the_states_dtype(kind, condition):
    network = perturbed(small(kind, condition), scale=0.1)
    x, t = asked(kind)
    drop = None if condition == "none" else torch.tensor([True, False, True, False])
    full = network(x, t, CONTEXTS[condition], drop).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(x, t, CONTEXTS[condition], drop)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, full, rtol=0, atol=0.05 * float(full.abs().max()))


def test_every_network_is_one_graph_for_the_compiler():
    drop = torch.tensor([True, False, False, True])
    for kind, condition in zip(SMALL, ("classes", "tokens", "image"), strict=True):
        network = perturbed(small(kind, condition))
        given = *asked(kind), CONTEXTS[condition], drop
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*given), network(*given))


@every_kind
def test_second_derivatives_by_the_plain_attention(kind):
    # The fused attention of torch has first derivatives only; the plain one has all.
    network = perturbed(small(kind)).double()
    x, t = asked(kind, torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ask = lambda x: network(x, t)
    with sdpa_kernel(SDPBackend.MATH):
        _, forward = torch.func.jvp(ask, (x,), (v,))
        pulled = torch.func.vjp(lambda w: torch.func.vjp(ask, x)[1](w)[0], torch.zeros_like(x))
        torch.testing.assert_close(pulled[1](v)[0], forward)
    step = 1e-6
    torch.testing.assert_close((ask(x + step * v) - ask(x - step * v)) / (2 * step), forward)


# Bad input


@every_kind
def test_states_and_times_that_do_not_fit_are_refused(kind):
    network = small(kind)
    x, t = asked(kind)
    with pytest.raises(ValueError, match="reshape x, or build"):
        network(x.flatten(1), t)
    with pytest.raises(ValueError, match="reshape x, or build"):
        network(x[:, :1], t)
    with pytest.raises(ValueError, match="reshape x, or build"):
        network(x[..., 0], t)
    with pytest.raises(ValueError, match=r"t has shape \(\).*shape \(4,\)"):
        network(x, torch.tensor(0.5))
    with pytest.raises(TypeError, match=r"i / N"):
        network(x, torch.tensor([10, 20, 30, 40]))


def test_sizes_that_work_are_named():
    unet = UNet(1, width=4, multipliers=(1, 1, 1), blocks=1)
    ask = lambda *size: unet(torch.zeros(2, 1, *size), torch.zeros(2))
    with pytest.raises(ValueError, match=r"halves.*multiples of 4: 28 or 32, not 30"):
        ask(28, 30)
    with pytest.raises(ValueError, match=r"multiples of 4: 4, not 2"):
        ask(2, 4)
    with pytest.raises(ValueError, match=r"multiples of 4: 4, not 0"):
        ask(0, 4)
    with pytest.raises(ValueError, match=r"patches of side 3.*multiples of 3: 6 or 9, not 8"):
        DiT(1, patch=3, width=8, heads=2)(torch.zeros(2, 1, 8, 9), torch.zeros(2))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ResidualMLP((1, 0), width=8), r"event_shape = \(1, 0\).*at least 1"),
        (lambda: ResidualMLP((3,), depth=0), "depth = 0"),
        (lambda: ResidualMLP((3,), width=8.0), "width = 8.0: sizes are integers"),
        (lambda: ResidualMLP((), outputs=2), r"use event_shape \(1,\)"),
        (lambda: UNet(1, outputs=3), "outputs = 3: 1 for the prediction alone"),
        (lambda: UNet(1, dropout=1.0), r"dropout = 1.0 must be in \[0, 1\)"),
        (lambda: UNet(1, multipliers=()), "multipliers is empty"),
        (
            lambda: UNet(1, multipliers=(1, 2), attention=(2,)),
            r"level 2, but the levels are 0 .. 1",
        ),
        (lambda: UNet(1, width=10, multipliers=(1,), heads=4), "not a multiple of heads = 4"),
        (lambda: UNet(1, classes=0), "classes = 0"),
        (lambda: DiT(1, width=64, heads=3), "width = 64 is not a multiple of heads = 3"),
        (lambda: DiT(1, width=6, heads=2), "width = 6 is not a multiple of 4"),
        (lambda: DiT(1, classes=2, token_size=3), "labels, tokens or an image, not two"),
        (lambda: UNet(1, classes=2, condition_channels=1), "as channels of the image"),
        (lambda: ResidualMLP((3,), condition_channels=1), r"event_shape = \(3,\).* as one token"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"channels": 1}, "network lacks kind: .*unet"),
        ({"kind": "unett", "channels": 1}, "network: unknown kind 'unett'; did you mean 'unet'"),
        ({"kind": 3}, "network: unknown kind 3"),
        (
            {"kind": "unet", "chanels": 1},
            "network 'unet': unknown key 'chanels'; did you mean 'channels'",
        ),
        ({"kind": "dit"}, "network 'dit' lacks channels"),
        ({"kind": "mlp", "width": 3}, "network 'mlp' lacks event_shape"),
    ],
    ids=str,
)
def test_configurations_that_name_no_network_are_refused(configuration, said):
    with pytest.raises(ValueError, match=said):
        build(configuration)


def test_lists_that_are_none_are_refused():
    for wrong, make in (
        ("multipliers = 2", lambda: UNet(1, multipliers=2)),
        ("attention = 1", lambda: UNet(1, attention=1)),
        ("event_shape = 64", lambda: ResidualMLP(64)),
        ("event_shape = '64'", lambda: ResidualMLP("64")),
    ):
        with pytest.raises(TypeError, match=f"{wrong} must be a list"):
            make()


def test_the_data_settle_what_is_not_given_and_what_is_given_must_agree():
    images, vectors = (3, 8, 8), (5,)
    assert build({"kind": "unet", "width": 4}, images).channels == 3
    assert build({"kind": "dit", "channels": 3, "width": 8}, images).channels == 3
    assert build({"kind": "mlp", "event_shape": [5]}, vectors).event_shape == vectors
    with pytest.raises(ValueError, match=r"channels = 1 in the config.*\(3, 8, 8\) need 3"):
        build({"kind": "unet", "channels": 1}, images)
    with pytest.raises(ValueError, match=r"not images \(channels, height, width\).*kind 'mlp'"):
        build({"kind": "unet"}, vectors)
    with pytest.raises(ValueError, match="network = 'unet': give a table with its kind"):
        build("unet")


@every_kind
def test_networks_are_read_by_the_denoiser_with_their_conditions(kind):
    network = perturbed(small(kind, "classes"), scale=0.1)
    x, _ = asked(kind)
    labels, drop = CONTEXTS["classes"], torch.tensor([True, False, True, False])
    model = NetworkDenoiser(network, VPLinear(), prediction="data")
    told, untold = model.given(labels)(x, 0.5), model(x, 0.5)
    mixed = model.given(labels, drop)(x, 0.5)
    assert torch.equal(mixed[drop], untold[drop])
    assert torch.equal(mixed[~drop], told[~drop])
    assert not torch.equal(told, untold)
