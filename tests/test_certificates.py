"""Every solver holds what it claims; a solver that claims too much is found out."""

from itertools import pairwise
from math import inf
from pathlib import Path

import pytest
import torch
from enumeration import every_claim

import sde_diffusion as sd
from sde_diffusion.certificates import converge, exactness, paths
from sde_diffusion.certificates.convergence import even_grid, rough_grid
from sde_diffusion.solvers.adams import multistep
from sde_diffusion.solvers.exponential import weights

VP = sd.VPLinear()


@pytest.mark.parametrize(("name", "claim"), every_claim())
def test_measurements_bear_the_claim_out(name, claim):
    certificate = sd.certify(name, **claim.options)
    assert certificate.claim == claim
    assert not certificate.failures, str(certificate)
    assert certificate.float32_floor < 2e-6


def test_the_table_in_the_documentation_has_every_claim():
    rows = (Path(__file__).parent.parent / "docs" / "certificates_table.md").read_text()
    for name, claims in sd.CLAIMS.items():
        for claim in claims:
            options = ", ".join(f"{key}={value!r}" for key, value in claim.options.items())
            assert f"| `{name}({options})` " in rows, "run: sde-diffusion certify --table FILE"


def steps_of(times):
    """(trace, x, steps) with which short solvers begin."""
    trace = sd.Trace(times[0])
    return trace, trace.x, list(pairwise(times))


def second_order(schedule, times, error=0.0):
    """The two-step exponential Adams method, its older weight off by a factor."""
    trace, x, steps = steps_of(times)
    past = []
    for t, s in steps:
        x, d = trace.denoise(x, t)
        past = [(t, d), *past][:2]
        w = weights(schedule, t, s, [u for u, _ in past])
        if len(past) == 2:
            w.outputs[1] *= 1 + error
        x = w.x * x + sum(b * d for b, (_, d) in zip(w.outputs, past, strict=True))
    return trace.end(x, times[-1])


def test_a_solver_of_ones_own_is_certified():
    claim = sd.Claim(2, point_exact=True, exact=("data", "lambda", 2))
    certificate = sd.certify(second_order, claim)
    assert not certificate.failures
    assert certificate.order == pytest.approx(2, abs=0.05)
    assert (certificate.history, certificate.calls_per_step) == (2, 1)
    assert str(certificate.exact) == "2 (data, lambda)"
    assert "second_order" in str(certificate)


def test_one_table_is_measured_once_and_a_fault_on_one_schedule_is_found_out():
    once = sd.certify(second_order)
    assert {schedules for schedules, _ in once.convergence} == {"VP=EDM=flow"}

    def faulty(schedule, times):
        return second_order(schedule, times, 1e-3 if isinstance(schedule, sd.EDM) else 0.0)

    certificate = sd.certify(faulty, sd.Claim(2))
    assert {schedules for schedules, _ in certificate.convergence} == {"VP=flow", "EDM"}
    assert certificate.convergence["VP=flow", "exact start"].order == once.order
    assert certificate.failures


@pytest.mark.parametrize("error", [1e-3, -0.5])
def test_a_wrong_coefficient_is_found_out(error):
    claim = sd.Claim(2, {"error": error}, point_exact=True, exact=("data", "lambda", 2))
    certificate = sd.certify(second_order, claim)
    assert certificate.order < 0.5  # not even consistent
    text = " ".join(certificate.failures)
    assert "order is" in text
    assert "exact for data" in text
    assert "marginals" in text
    assert "FAILS" in str(certificate)


def test_too_high_a_claim_is_found_out():
    failures = sd.certify("ddim", sd.Claim(2, exact=("data", "lambda", 2))).failures
    assert len(failures) == 3
    assert sd.certify("ddim", sd.Claim(1, {"eta": 1.0}, strong=2.0)).failures
    assert sd.certify("ddpm", sd.Claim(1, point_exact=True)).failures


def test_the_exact_start_shows_what_the_own_start_hides():
    certificate = sd.certify("adams")
    assert certificate.order > 2.85
    assert certificate.usual_order < 2.3


def test_uneven_steps_show_coefficients_of_even_ones():
    """Adams-Bashforth with the constants 3/2, -1/2 in lambda, as if all steps were equal."""

    def constant(schedule, times):
        trace, x, steps = steps_of(times)
        old = None
        for t, s in steps:
            x, d = trace.denoise(x, t)
            eps = (x - schedule.alpha(t) * d) / schedule.sigma(t)
            slope = eps if old is None else 1.5 * eps - 0.5 * old
            move = schedule.rho(s) - schedule.rho(t)
            x = schedule.alpha(s) / schedule.alpha(t) * x + schedule.alpha(s) * move * slope
            old = eps
        return trace.end(x, times[-1])

    certificate = sd.certify(constant)
    assert certificate.claim is None
    assert certificate.order > 1.8
    assert certificate.uneven_order < 1.3


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("prediction", "variable"),
    [
        *(("data", "lambda"), ("noise", "rho"), ("noise", "t"), ("velocity", "phi")),
        *(("data", "phi"), ("angular", "angle")),
    ],
)
def test_exactness_finds_the_polynomials_of_the_family(order, prediction, variable):
    for schedule in (VP, sd.EDM(), sd.FlowMatching()):
        grid = rough_grid(schedule, 8).tolist()
        plan = multistep(schedule, grid, order, prediction, variable)
        found = exactness(plan, schedule, plan.history)
        assert found.q == order
        if order > 1 and (variable != "t" or isinstance(schedule, sd.VPLinear)):
            assert (found.prediction, found.variable) == (prediction, variable)


@pytest.mark.parametrize("scales", [(1.0, 0.0), (0.9, 0.1), (0.3, 0.9), (0.0, 1.0), (1.0, 80.0)])
def test_the_mixture_of_paths_is_denoised_as_any_mixture(scales):
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    expected = paths._MIXTURE.denoised(x[:, None], *scales)[:, 0]
    torch.testing.assert_close(paths._denoised(x, *scales), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("solver", ["ddpm", "restart", "seeds"])
def test_the_path_that_is_kept_is_the_brownian_path(solver):
    """Back and forth and with points inside a step too."""
    course = sd.SOLVERS[solver](VP, even_grid(VP, 4)).course
    like = torch.empty(1, paths._COORDINATES, dtype=torch.float64)
    for _ in range(2):  # the second time, nothing is drawn
        kept, true = (n.stream(like, course) for n in (paths._KeptPath(), sd.BrownianPath([0])))
        for t, s in course.intervals:
            assert torch.equal(kept(like.clone(), t, s), true(like.clone(), t, s))


def test_converge_reads_slopes_and_stops_at_the_floor():
    assert converge(lambda n: 3.0 / n**2).order == pytest.approx(2)
    assert converge(lambda n: 5 / n**3 + 40 / n**4).order == pytest.approx(3, abs=0.06)
    stuck = converge(lambda n: 100.0 / n**4 + 1e-9)
    assert stuck.order == pytest.approx(4, abs=0.1)
    assert converge(lambda n: 0.0 if n > 20 else 1.0).order == inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sd.certify("dimm"), "did you mean 'ddim'"),
        (lambda: sd.certify("ddim", etta=1.0), "did you mean 'eta'"),
        (lambda: sd.certify(3), "name or a function"),
        (lambda: sd.certify(lambda schedule, times: torch.ones(3)), "not a Plan"),
    ],
)
def test_bad_requests_are_refused(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
