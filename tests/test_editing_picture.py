"""Masks at the door of editing: the cures that their errors name work."""

import pytest
import torch

from sde_diffusion.editing.picture import checked_mask

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
