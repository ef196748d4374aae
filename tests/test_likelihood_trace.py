"""Traces from probes: unbiased, exact with all of them, their standard errors honest."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.likelihood import TRACES, GaussianReference, log_likelihood
from sde_diffusion.likelihood.trace import Hutchinson, Jacobian, make_trace

D, COUNT = 6, 4000
GENERATOR = torch.Generator().manual_seed(3)
MATRIX = torch.randn(D, D, generator=GENERATOR, dtype=torch.float64)


def jacobian(count=COUNT, matrix=MATRIX, chunk=None, reference=0.7):
    """d = M x for every sample."""
    x = torch.ones(count, D, dtype=torch.float64, requires_grad=True)
    known = GaussianReference(reference)
    return Jacobian(x, x @ matrix.T, known, known.gain(0.6, 0.8, x), chunk)


TRUE = float(MATRIX.trace()) - D * 0.6 * 0.7 / (0.36 * 0.7 + 0.64)


@pytest.mark.parametrize("name", TRACES)
def test_estimates_are_unbiased_and_their_standard_errors_honest(name):
    """4,000 estimates: the mean within 4.5 standard errors (7e-6 by chance), the spread that of
    the lanes within 10 %."""
    probes = 5
    trace = make_trace(name, probes, torch.empty(COUNT, D, dtype=torch.float64), range(COUNT))
    lanes = trace(jacobian())
    assert lanes.shape == (COUNT, trace.lanes)
    error = lanes.mean(1) - TRUE
    assert abs(float(error.mean())) < 4.5 * float(error.std()) / math.sqrt(COUNT)
    told = trace.standard_error(lanes).square().mean().sqrt()
    assert float(told) == pytest.approx(float(error.std()), rel=0.1)


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_exact_traces_in_chunks(chunk):
    trace = make_trace("exact", 1, torch.empty(2, D), [0, 1])
    assert trace.products == D
    assert torch.allclose(trace(jacobian(2, chunk=chunk)), torch.tensor(TRUE).double())


def test_all_orthogonal_probes_are_exact():
    z = torch.randn(3, D, D, generator=GENERATOR, dtype=torch.float64)
    probes = math.sqrt(D) * torch.linalg.qr(z).Q.permute(2, 0, 1)
    trace = Hutchinson(probes, share=1.0)
    lanes = trace(jacobian(3))
    assert torch.allclose(lanes.mean(1), torch.tensor(TRUE).double())
    assert (trace.standard_error(lanes) == 0).all()
    assert make_trace("orthogonal", D, torch.empty(2, D), [0, 1]).products == D  # the exact trace


def test_hutch_plus_plus_is_exact_on_a_matrix_of_low_rank():
    u = torch.randn(2, D, generator=GENERATOR, dtype=torch.float64)
    low = u.T @ u
    trace = make_trace("hutch++", 5, torch.empty(7, D, dtype=torch.float64), range(7))
    assert trace.products == 5  # sketch 1, its range 1, probes 3: rank 1 is exact, rank 2 is not
    rank_1 = u[:1].T @ u[:1]
    lanes = trace(jacobian(7, rank_1, reference=0.0))
    assert torch.allclose(lanes, rank_1.trace().expand(7, 3))
    assert trace(jacobian(7, low, reference=0.0)).std(1).min() > 1e-6


def test_rademacher_probes_are_exact_on_diagonal_matrices():
    diagonal = torch.diag(torch.arange(float(D), dtype=torch.float64))
    trace = make_trace("rademacher", 2, torch.empty(5, D, dtype=torch.float64), range(5))
    lanes = trace(jacobian(5, diagonal, reference=0.0))
    assert torch.allclose(lanes, diagonal.trace().expand(5, 2))


@pytest.mark.parametrize(
    ("name", "probes"), [("orthogonal", 6), ("rademacher", 12), ("gaussian", 16), ("hutch++", 24)]
)
def test_the_exact_density_lies_within_the_error_bar_of_the_probes(name, probes):
    """At least 95 % of 200 samples in 32 dimensions: t-intervals and the solver's error."""
    problem, schedule = sd.problems.spectrum_mixture(3, 32), sd.VPLinear()
    x = problem.sample_marginal(200, *schedule(0.02), torch.Generator().manual_seed(0))
    found = log_likelihood(
        problem.denoiser(schedule),
        x,
        times=sd.times.default(schedule, 16, t_end=0.02),
        trace=name,
        probes=probes,
        seed=1,
        prior=lambda x: problem.log_prob(x, *schedule(1.0)),
    )
    error = (found.log_prob - problem.log_prob(x, *schedule(0.02))).abs()
    assert (error <= found.error_bar()).double().mean() >= 0.95
    assert (found.standard_error > 0).all()


def test_probes_stay_the_same_for_a_solve():
    """Else a finer grid would average them, and errors would fall with the steps."""
    problem, schedule = sd.problems.spectrum_mixture(4, 16), sd.VPLinear()
    x = problem.sample_marginal(16, *schedule(0.1), torch.Generator().manual_seed(0))
    few, many = (
        log_likelihood(
            problem.denoiser(schedule),
            x,
            times=sd.times.default(schedule, n, t_end=0.1),
            probes=2,
            seed=0,
            tolerance_error=False,
        )
        for n in (24, 96)
    )
    change = (few.standard_error - many.standard_error).abs()
    assert few.standard_error.median() > 0.3
    assert change.median() < 0.01
    assert (few.log_prob - many.log_prob).abs().median() < 0.01
