"""The likelihood benchmark: its peers are right, and its tables compare what they say."""

import pytest
import torch

import sde_diffusion as sd
from benchmarks import likelihood as benchmark
from benchmarks import likelihood_bars as bars
from benchmarks import likelihood_peers as peers

VP, RING = sd.VPLinear(), sd.problems.ring()
X = RING.sample_marginal(6, *VP(0.01), torch.Generator().manual_seed(0))
EXACT = RING.log_prob(X, *VP(0.01))
NAMES = ("exact trace, 8 steps", "exact trace, 128 steps", "exact trace by dopri5, 1e-06")
SOME = {name: benchmark.EXACT[name] for name in NAMES}


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
    rows = benchmark.equal_error(
        RING.denoiser(VP), X, EXACT, 0.01, (8, 24), (1,), 2, 1, exactly=SOME
    )
    assert {row["method"] for row in rows} >= {*benchmark.PEERS, benchmark.EXACT_PEER}
    pairs = benchmark.at_equal_error(rows)
    by_name = {row["method"]: row for row in rows}
    assert pairs
    for pair in pairs:
        ours, peer = by_name[pair["ours"]], by_name[pair["peer"]]
        assert ours["ours"]
        assert not peer["ours"]
        assert ours["rms"] <= peer["rms"]
        faster = round(peer["seconds"] / max(ours["seconds"], 1e-9), 2)
        assert pair["times faster"] == pytest.approx(faster)
    assert "| rms |" in benchmark.markdown(rows, ("method", "rms", "nfe"))


def _row(name, ours, rms, seconds):
    return benchmark.row_of(name, ours, [torch.tensor([rms])], 10, 10, seconds)


def test_a_peer_whose_error_is_not_reached_is_shown():
    rows = [
        _row("peer", False, 1e-5, 1.0),
        _row("far, 8 steps", True, 1e-2, 0.1),
        _row("near, 8 steps", True, 1e-3, 0.5),
        _row(f"near{benchmark.REFERENCE}, 8 steps", True, 1e-6, 0.4),
    ]
    alone, told = benchmark.at_equal_error(rows)
    assert alone["ours"] == "near, 8 steps"
    assert alone["times faster"] == "not reached (2)"
    assert told["times faster"] == 2.5


def test_exact_solves_reach_the_exact_peer():
    """On as many points, with an answer to it; the default call is there with its second solve."""
    rows = benchmark.equal_error(RING.denoiser(VP), X, EXACT, 0.01, (8,), (1,), 6, 1, exactly=SOME)
    (pair,) = [p for p in benchmark.at_equal_error(rows) if p["peer"] == benchmark.EXACT_PEER]
    assert isinstance(pair["times faster"], float)
    called = next(row for row in rows if row["method"].startswith("as called"))
    assert called["nfe"] > 40


def test_widths_of_bars_are_told_beside_their_coverage():
    case = {"method": "m", "problem": "p", "schedule": "s", "samples": 10}
    widths = ((10, 2.0), (9, 30.0), (10, 5.0))
    rows = [{**case, "within": w, "median error": 1.0, "median bar": b} for w, b in widths]
    (found,) = bars.summary(rows)
    assert (found["within"], found["worst of them"]) == ("96.7 %", "90.0 %")
    assert (found["bar / error"], found["from"], found["to"]) == (5.0, 2.0, 30.0)


def test_few_probes_have_bars_by_every_trace():
    few = bars.few_probes(quick=True)
    assert {row["method"] for row in few} == {
        f"{trace}, {m}" for trace in bars.TRACES[:3] for m in (2, 3)
    }
    assert all(row["median bar"] is None or row["median bar"] > 0 for row in few)
