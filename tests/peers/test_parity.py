"""Every pair of a peer's sampler and ours has the same table."""

import pairs_azula
import pairs_diffusers
import pairs_k_diffusion
import pairs_singlestep
import pytest
from parity import TOLERANCE, parameters

PAIRS = [
    *parameters(pairs_azula.PAIRS),
    *parameters(pairs_k_diffusion.PAIRS),
    *parameters(pairs_diffusers.PAIRS),
    *parameters(pairs_singlestep.PAIRS),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_same_table(pair):
    """To rounding where both compute in float64."""
    assert pair.measure() < TOLERANCE


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.values[0].shipped])
def test_same_table_as_shipped(pair):
    """To the peer's own precision where it computes in float32."""
    assert pair.shipped() < pair.rounding
