"""The benchmark of sampling in parallel: what a cell holds, resuming, and the peer's loop."""

import json

import pytest
import torch

from benchmarks.parallel import peers
from benchmarks.parallel.__main__ import measure, table
from benchmarks.parallel.errors import differences
from benchmarks.parallel.figure import draw
from benchmarks.parallel.measure import (
    METHODS,
    SEQUENTIAL,
    TOLERANCES,
    Bench,
    Case,
    Job,
    call_times,
)
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.parallel import METHODS as KNOWN
from sde_diffusion.store import Store

CASES = {"DDIM": Case("ddim", 12), "DDPM": Case("ddim", 12, {"eta": 1.0})}
JOBS = [job for name in CASES for job in Job.of(name)]


@pytest.fixture(scope="module")
def network():
    made = ResidualMLP((1, 8, 8), 16, 1, 16, seed=0)
    with torch.no_grad():  # the last layer starts at zero
        for p in made.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def cells(network, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("kept") / "cells.json")
    return measure(Bench(network, CASES, 3), JOBS, store)


def test_differences_of_known_states():
    exact = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    found = differences(exact + torch.tensor([[0.0, 0.5], [0.0, 0.0]]), exact)
    assert found == {"rms": pytest.approx(0.1 / 2**0.5), "worst": pytest.approx(0.1)}


def test_every_method_is_measured_at_every_tolerance(cells):
    assert {method.method for method in METHODS.values()} == set(KNOWN)
    assert len(cells) == len(CASES) * (1 + len(METHODS) * len(TOLERANCES))
    for cell in cells:
        if cell["method"] == SEQUENTIAL:
            assert cell["rounds"] == cell["evaluations"] == 12
        else:
            assert cell["worst"] < cell["tolerance"]
            assert cell["rounds"] <= 12
            assert cell["evaluations"] > 12
        assert 0 < cell["beyond_network"] < cell["seconds"]


def test_a_second_run_takes_the_cells_that_are_kept(network, tmp_path, monkeypatch):
    store = Store(tmp_path / "cells.json")
    jobs = JOBS[:3]
    first = measure(Bench(network, CASES, 2), jobs, store)
    store.save()
    solved = []
    again = Bench(network, CASES, 2)
    monkeypatch.setattr(again, "solve", solved.append)
    assert measure(again, jobs, Store(tmp_path / "cells.json")) == first
    assert not solved
    other = Bench(network, CASES, 3)
    measure(other, jobs[:1], store)
    assert len(store.cells) == 4


def test_the_table_and_the_picture(cells, network, tmp_path):
    about = {"command": "command", "date": "date", "processor": "processor"}
    content = {"ours": {"about": about, "samples": 3, "cells": cells}}
    text = table(json.loads(json.dumps(content)))
    assert text.count("\n|") == len(cells) + 2 * len(CASES)
    assert draw(content, tmp_path / "picture.png").stat().st_size > 10_000
    assert list(call_times(network, (1, 4), repeats=1)) == ["1", "4"]


class Toy:
    """Steps x -> x + F(x, t)/8 at 8 times, the noise of each of variance 0.01."""

    timesteps = torch.arange(8).flip(0)
    _is_ode_scheduler = False

    @staticmethod
    def _get_variance(t):
        return torch.tensor(0.01)

    @staticmethod
    def batch_step_no_noise(output, t, x):
        return x + output / 8


@pytest.mark.parametrize("window", [1, 3, 8])
def test_the_loop_of_paradigms_ends_at_the_sequential_states(window):
    start = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = peers._noise(Toy, start).double()
    x = start.clone()
    for t, z in zip(Toy.timesteps, draws, strict=True):
        x = x + torch.sin(x + (float(t) + 1) / 1000) / 8 + z
    network = lambda x, t: torch.sin(x + t[:, None])
    found, rounds, asked = peers._solve(Toy, network, start, draws, window, 1e-9)
    torch.testing.assert_close(found, x, rtol=1e-7, atol=1e-7)
    assert rounds <= 8 <= asked
    near, fewer, _ = peers._solve(Toy, network, start, draws, 8, 0.1)
    assert fewer < 8
    assert 0 < (near - x).abs().max() < 0.1
