"""Conditions: what is told matters, and what is withheld is as if it had never been."""

import pytest
import torch
from networks_listed import CONTEXTS, asked, conditional, every_kind, perturbed, small

import sde_diffusion as sd
from sde_diffusion.networks import Condition, CrossAttention, SelfAttention, Told

DROP = torch.tensor([True, False, True, False])


@every_kind
@conditional
def test_withheld_is_to_the_bit_as_never_given(kind, condition):
    network, context = perturbed(small(kind, condition)), CONTEXTS[condition]
    x, t = asked(kind)
    told, untold = network(x, t, context), network(x, t)
    assert torch.equal(network(x, t, context, torch.ones(4, dtype=torch.bool)), untold)
    assert torch.equal(network(x, t, context, torch.zeros(4, dtype=torch.bool)), told)
    mixed = network(x, t, context, DROP)
    assert torch.equal(mixed[DROP], untold[DROP])
    assert torch.equal(mixed[~DROP], told[~DROP])
    assert torch.equal(network(x, t, None, DROP), untold)
    other = context.roll(1, dims=0)
    assert torch.equal(network(x, t, other, DROP)[DROP], untold[DROP]), "not even glanced at"


@every_kind
@conditional
def test_every_condition_has_its_own_answer(kind, condition):
    network = perturbed(small(kind, condition))
    x, t = asked(kind)
    same_x, same_t, c = x[:1].expand_as(x), t[:1].expand_as(t), CONTEXTS[condition]
    answers = network(same_x, same_t, c).flatten(1)
    answers = torch.cat([answers, network(same_x, same_t).flatten(1)[:1]])
    # Classes 2, 0, 1, 2 and none: equal are the two of class 2; the four sequences all differ.
    equal = torch.isclose(answers[:, None], answers[None], rtol=1e-5, atol=1e-5).all(dim=2)
    same = torch.eye(5, dtype=torch.bool)
    if condition == "classes":
        same[0, 3] = same[3, 0] = True
    assert torch.equal(equal, same)


@every_kind
@conditional
def test_a_condition_is_learned(kind, condition):
    # One x for all and three answers: without the condition no loss below their variance.
    network, context = small(kind, condition), CONTEXTS[condition][:3]
    x, t = (value[:1].expand(3, *value.shape[1:]) for value in asked(kind))
    wanted = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand_as(x)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(80):
        loss = (network(x, t, context) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.25 * 2 / 3, "two thirds is the variance of the answers"


@every_kind
def test_the_order_of_tokens_is_told_by_the_tokens_alone(kind):
    network, tokens = perturbed(small(kind, "tokens")).double(), CONTEXTS["tokens"].double()
    x, t = asked(kind, torch.float64)
    turned = tokens[:, [2, 0, 1]]
    torch.testing.assert_close(network(x, t, turned), network(x, t, tokens))
    twice = torch.cat([tokens, tokens], dim=1)
    torch.testing.assert_close(network(x, t, twice), network(x, t, tokens))
    assert not torch.allclose(network(x, t, tokens[:, :2]), network(x, t, tokens))


def test_attention_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    tokens = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    itself = perturbed(SelfAttention(6, 2, generator)).double()
    cross = perturbed(CrossAttention(6, 3, 2, generator)).double()

    def by_hand(ask, k, v, leave):
        heads = []
        for part in (slice(0, 3), slice(3, 6)):
            weights = (ask[..., part] @ k[..., part].mT / 3**0.5).softmax(dim=-1)
            heads.append(weights @ v[..., part])
        return leave(torch.cat(heads, dim=-1))

    q, k, v = itself.enter(h).chunk(3, dim=-1)
    torch.testing.assert_close(itself(h), by_hand(q, k, v, itself.leave))
    k, v = cross.look_up(tokens).chunk(2, dim=-1)
    expected = by_hand(cross.ask(h), k, v, cross.leave)
    torch.testing.assert_close(cross(h, Told(tokens=tokens)), expected)


def test_a_learned_answer_is_attention_to_one_null_token():
    # One token leaves nothing to weigh: its value answers every question.
    generator = torch.Generator().manual_seed(0)
    cross = perturbed(CrossAttention(6, 3, 2, generator)).double()
    h, token = torch.randn(2, 5, 6).double(), torch.randn(1, 1, 3).double()
    answered = cross(h, Told(tokens=token.expand(2, 1, 3)))
    with torch.no_grad():
        cross.null.copy_(cross.look_up(token)[0, 0, 6:])
    torch.testing.assert_close(cross(h, Told()), answered)


def test_the_vector_of_tokens_is_its_formula():
    condition = perturbed(Condition(4, token_size=5)).double()
    tokens = CONTEXTS["tokens"].double()
    first, second = condition.expand, condition.project
    inner = torch.nn.functional.silu(tokens @ first.weight.mT + first.bias)
    mean = sum(inner[:, i] for i in range(3)) / 3
    spread = mean.var(dim=1, correction=0, keepdim=True) + 1e-5
    normal = (mean - mean.mean(dim=1, keepdim=True)) / spread.sqrt()
    expected = normal @ second.weight.mT + second.bias
    torch.testing.assert_close(condition(tokens, None, torch.zeros(4, 2)).vector, expected)


# Bad input


@every_kind
@pytest.mark.parametrize(
    ("condition", "context", "error", "said"),
    [
        ("classes", torch.tensor([0, 1, 3, 2]), ValueError, r"label 3 is .*3 classes, 0 .. 2"),
        ("classes", torch.tensor([0, -1, 1, 2]), ValueError, "label -1 is .*withhold a class use"),
        ("classes", torch.zeros(4), TypeError, r"torch.float32.*labels.long\(\)"),
        ("classes", torch.zeros(4, 1).long(), ValueError, r"\(4, 1\) for 4 samples.*\(4,\)"),
        ("classes", torch.zeros(3).long(), ValueError, r"\(3,\) for 4 samples"),
        ("tokens", torch.zeros(4, 3).long(), TypeError, "embed integer tokens beforehand"),
        ("tokens", torch.zeros(4, 5), ValueError, r"\(4, 5\), but 4 samples need .*\(4, length, 5"),
        ("tokens", torch.zeros(4, 3, 6), ValueError, r"\(4, 3, 6\).*length, 5\)"),
        ("tokens", torch.zeros(2, 3, 5), ValueError, r"\(2, 3, 5\).*\(4, length"),
        ("tokens", torch.zeros(4, 0, 5), ValueError, "length of at least 1"),
        ("image", torch.zeros(4, 3, 2, 3).long(), TypeError, "float.* / 127.5 - 1 for bytes"),
        ("image", torch.zeros(4, 3, 6), ValueError, r"\(4, 3, 6\).*\(4, 3, rows, columns\)"),
        ("image", torch.zeros(4, 2, 4, 6), ValueError, r"\(4, 2, 4, 6\), but 4 samples of 4 x 6"),
        ("image", torch.zeros(1, 3, 4, 6), ValueError, "1 images for 4 samples: give one each"),
        ("image", torch.zeros(8, 3, 4, 6), ValueError, "8 images for 4 samples: give one each"),
        ("image", torch.zeros(4, 3, 3, 6), ValueError, "divide 4 .*interpolate.* size=.4, 6"),
        ("image", torch.zeros(4, 3, 8, 12), ValueError, "columns that divide 6: resize them"),
        ("image", torch.zeros(4, 3, 0, 6), ValueError, "resize them"),
        ("classes", 2, TypeError, r"context is int: give a tensor .*\(4,\)"),
        ("classes", [0, 1, 2, 3], TypeError, "context is list"),
        ("none", torch.zeros(4).long(), ValueError, "built without a condition"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(kind, condition, context, error, said):
    with pytest.raises(error, match=said):
        small(kind, condition)(*asked(kind), context)


def test_drops_that_do_not_fit_are_refused():
    network, (x, t) = small("mlp", "classes"), asked("mlp")
    for drop in (torch.zeros(4), torch.zeros(3).bool(), torch.tensor(True)):
        with pytest.raises(ValueError, match=r"booleans of shape \(4,\)"):
            network(x, t, CONTEXTS["classes"], drop)
    with pytest.raises(ValueError, match="built without a condition"):
        small("mlp")(x, t, None, DROP)


def test_a_condition_without_values_is_refused():
    """A look-up of labels on the device "meta" is no error in torch: it answers anything."""
    network, (x, t) = small("mlp", "classes"), asked("mlp")
    denoiser, labels = sd.NetworkDenoiser(network, sd.VPLinear()), CONTEXTS["classes"]
    bare = denoiser.given(labels.to("meta")), denoiser.given(labels, DROP.to("meta"))
    for bound in bare:
        for time in (t, 0.5):
            with pytest.raises(ValueError, match=r"on the device meta, .* anew on cpu"):
                bound(x, time)
        with pytest.raises(ValueError, match="on the device meta"):
            sd.sample(bound, x.shape, steps=2, seed=0)
