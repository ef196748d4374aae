"""Sampling in parallel: the limit is the sequential result, for every solver and every method."""

import pytest
import torch
from enumeration import every_solver, smooth_grid
from models import DOUBLE, PROBLEM, VP

import sde_diffusion as sd
from sde_diffusion.parallel import METHODS, run_parallel

DENOISER = PROBLEM.denoiser(VP)


def starts(n=3, seed=0):
    return torch.randn(
        n, *PROBLEM.event_shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "options"), every_solver())
def test_the_limit_is_the_sequential_result(name, options, method):
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 6), **options)
    x = starts()
    found = run_parallel(plan, DENOISER, x, noise=[1, 2, 3], method=method, tolerance=1e-13)
    torch.testing.assert_close(
        found.x, sd.run(plan, DENOISER, x, noise=[1, 2, 3]), rtol=1e-9, atol=1e-9
    )
    assert found.rounds <= plan.nfe
    assert found.converged.all()
