"""Pictures and masks at the door of editing: the cures that are named work."""

import warnings

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.editing.picture import checked_mask, checked_picture
from sde_diffusion.editing.replacement import Known

PICTURES = torch.zeros(2, 3, 4, 5)
CURE = r"mask\[None\] for \(H, W\), mask\[:, None\] for \(batch, H, W\)"


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)])
def test_a_mask_without_channels_is_refused_with_what_adds_them(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    with pytest.raises(ValueError, match=CURE):
        checked_mask(mask, PICTURES)
    cured = mask[None] if mask.ndim == 2 else mask[:, None]
    found = checked_mask(cured, PICTURES)
    for channel in range(3):
        assert torch.equal(found[:, channel], mask.expand(2, 4, 5))


def test_the_cure_is_not_named_for_what_it_does_not_cure():
    with pytest.raises(ValueError, match=r"mask has shape \(5,\).*standing for all$"):
        checked_mask(torch.ones(5), PICTURES)


GREY = torch.linspace(0, 255, 16).reshape(1, 1, 4, 4)


@pytest.mark.parametrize("door", [checked_picture, lambda x: Known(x, torch.ones(1, 4, 4)).y])
def test_pictures_that_look_like_bytes_are_told_of_and_taken(door):
    """A network may have been trained on them; of other shapes or ranges there is no word."""
    with pytest.warns(UserWarning, match=r"from 0 to 255.*/ 127.5 - 1 .*all is well"):
        assert torch.equal(door(GREY), GREY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (GREY / 127.5 - 1, 2 * GREY, GREY - 1, GREY.expand(1, 2, 4, 4), GREY.flatten(1)):
            assert torch.equal(checked_picture(x), x)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pictures_become_states_of_float32_or_wider_without_a_graph(kind):
    x = (GREY / 127.5 - 1).to(kind).requires_grad_()
    for found in (checked_picture(x), Known(x, torch.ones(1, 4, 4)).y):
        assert found.dtype is (torch.float64 if kind is torch.float64 else torch.float32)
        assert torch.equal(found.to(kind), x)
        assert not found.requires_grad


def test_the_warning_points_at_the_users_line():
    denoiser = sd.FunctionDenoiser(lambda x, t: x, sd.VPLinear())
    for call in (
        lambda: sd.editing.sdedit(denoiser, GREY, t=0.0),
        lambda: sd.editing.inpaint(denoiser, GREY, torch.ones(1, 4, 4), steps=1),
        lambda: sd.editing.replacement(denoiser, GREY, torch.ones(1, 4, 4), GREY),
        lambda: sd.editing.edit(GREY, denoiser, denoiser, steps=1),
    ):
        with pytest.warns(UserWarning, match="as bytes have") as told:
            call()
        assert [w.filename for w in told] == [__file__]
