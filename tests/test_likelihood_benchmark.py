"""The likelihood benchmark: its peers are right, and its tables compare what they say."""

import pytest
import torch

import sde_diffusion as sd
from benchmarks import likelihood as benchmark
from benchmarks import likelihood_peers as peers

VP, RING = sd.VPLinear(), sd.problems.ring()
X = RING.sample_marginal(6, *VP(0.01), torch.Generator().manual_seed(0))
EXACT = RING.log_prob(X, *VP(0.01))


def test_peers_find_the_density():
    """Exactly, or on average over 40 probes (4.5 standard errors: 7e-6 by chance)."""
    denoiser = RING.denoiser(VP)
    exact = peers.flow_matching(denoiser, X, 0.01)
    assert torch.allclose(exact.log_prob, EXACT, atol=2e-3)
    many = torch.stack(
        [peers.score_sde(denoiser, X, 0.01, seed, tol=1e-3).log_prob for seed in range(40)]
    )
    error = (many.mean(0) - EXACT).abs()
    assert (error < 4.5 * many.std(0) / 40**0.5 + 0.02).all()


def test_rows_at_equal_error():
    rows = benchmark.equal_error(RING.denoiser(VP), X, EXACT, 0.01, (8, 24), (1, 2), 2, 1)
    assert {row["method"] for row in rows} >= {*benchmark.PEERS, benchmark.EXACT_PEER}
    pairs = benchmark.at_equal_error(rows)
    by_name = {row["method"]: row for row in rows}
    assert pairs
    for pair in pairs:
        ours, peer = by_name[pair["ours"]], by_name[pair["peer"]]
        assert ours["ours"]
        assert not peer["ours"]
        assert ours["rms"] <= peer["rms"]
        faster = round(peer["seconds"] / max(ours["seconds"], 1e-9), 1)
        assert pair["times faster"] == pytest.approx(faster)
    assert "| rms |" in benchmark.markdown(rows, ("method", "rms", "nfe"))
