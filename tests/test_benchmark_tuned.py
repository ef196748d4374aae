"""What the benchmark of tuned plans says of its figures."""

from benchmarks.tuned.__main__ import row, untuned


def figures(rms, median):
    return {"rms": rms, "median": median}


def test_the_untuned_is_the_best_of_every_library_in_each_figure():
    """The best by RMS and the best by median are two samplers, of two libraries perhaps."""
    ours = {"5": {"rms": figures(0.2, 0.09), "median": figures(0.3, 0.04)}}
    theirs = {"5": {"rms": figures(0.1, 0.08), "median": figures(0.4, 0.05)}}
    cell = {"sde_diffusion": ours, "azula": theirs, "default": {"5": figures(0.2, 0.06)}}
    assert untuned(cell, 5) == figures(0.1, 0.04)
    cell["default"] = {"5": figures(0.2, 0.02)}
    assert untuned(cell, 5) == figures(0.1, 0.02)


def test_a_share_within_the_bar_is_bold():
    pair = figures(0.1, 0.03)
    cell = {"test": figures(0.05, 0.0101), "float32": pair, "other seed": pair}
    cell |= {"numbers": 26, "processor seconds": 52.5}
    assert "| **0.50**/0.34 |" in row(5, cell, pair)
    cell["test"] = figures(0.0501, 0.0099)
    assert "| 0.50/**0.33** |" in row(5, cell, pair)
    assert row(8, cell, pair).startswith("| 8 | 0.1/0.03 |")
    assert "**0.50**" in row(8, cell, pair)  # 0.65 is allowed there
