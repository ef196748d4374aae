"""One scalar a network call, and the invariants by which any table is judged."""

import math

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver
from families import away, check_gradient

import sde_diffusion as sd
from sde_diffusion.certificates import invariants
from sde_diffusion.solvers import ddim
from sde_diffusion.tuning.scalars import scalars

DOUBLE = torch.float64


def grid(schedule, steps=4):
    return sd.times.default(schedule, steps, t_start=schedule.time_of(-3.0))


@pytest.mark.parametrize(
    ("schedule", "prediction"), [("vp", "data"), ("edm", "noise"), ("flow", "data")]
)
@each(("name", "options"), every_solver())
def test_zero_is_the_solver_and_point_data_stay_exact(name, options, schedule, prediction):
    """Any plan, and any scalars: what is exact for data in one point stays so."""
    schedule = SCHEDULES[schedule]
    plan = sd.SOLVERS[name](schedule, grid(schedule), **options)
    family = scalars(plan, schedule, prediction)
    assert family.plan().equals(plan)
    tuned = family.plan(away(family))
    assert not tuned.equals(plan)
    base, found = invariants(plan, schedule), invariants(tuned, schedule)
    if base.worst < 1e-9 and (prediction == "data" or not plan.stochastic):
        assert found.worst < 1e-9


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("schedule", ["vp", "edm", "flow"])
def test_gradients(schedule, prediction):
    schedule = SCHEDULES[schedule]
    plan = sd.SOLVERS["dpm_solver_pp_3m"](schedule, grid(schedule))
    family = scalars(plan, schedule, prediction)
    check_gradient(family, away(family))


def test_a_scalar_of_ddim_is_a_step_of_second_order():
    """DDIM with l_j = h_j/(2 h_{j-1}) is DPM-Solver++(2M) by the midpoint rule, step for step."""
    schedule = sd.VPLinear()
    times = sd.times.uniform_lambda(schedule, 5, t_end=0.01)
    h = torch.tensor([float(schedule.half_log_snr(t)) for t in times], dtype=DOUBLE).diff()
    family = scalars(ddim(schedule, times), schedule)
    assert family.plan(h[1:] / (2 * h[:-1])).equals(
        sd.SOLVERS["dpm_solver_pp_2m"](schedule, times, solver_type="midpoint")
    )


def test_a_scalar_of_the_noise_is_a_step_of_adams_and_bashforth():
    """DDIM with l_j = h_j/(2 h_{j-1}), h the steps in sigma/alpha, is DEIS of order 2."""
    schedule = sd.VPLinear()
    times = sd.times.uniform_lambda(schedule, 5, 0.99, 0.01)
    h = torch.tensor([float(schedule.rho(t)) for t in times], dtype=DOUBLE).diff()
    family = scalars(ddim(schedule, times), schedule, "noise")
    options = {"order": 2, "prediction": "noise", "variable": "rho"}
    assert family.plan(h[1:] / (2 * h[:-1])).equals(sd.SOLVERS["adams"](schedule, times, **options))


def test_refusals():
    schedule = sd.VPLinear()
    plan = ddim(schedule, [1.0, 0.5, 0.1])
    with pytest.raises(ValueError, match="was made for"):
        scalars(plan, sd.EDM())
    with pytest.raises(ValueError, match="one network call"):
        scalars(ddim(schedule, [1.0, 0.1]), schedule)
    with pytest.raises(ValueError, match="did you mean 'noise'"):
        scalars(plan, schedule, "nois")


def test_invariants_see_what_is_off():
    """A weight that is 0.01 too large shows in the mean of its state, to the digit."""
    schedule = sd.EDM()
    plan = ddim(schedule, [80.0, 2.0, 0.5], eta=0.5)
    found = invariants(plan, schedule)
    assert found.worst < 1e-12
    assert (found.nfe, found.history, found.draws) == (2, 1, 2)
    rows = list(plan.rows)
    rows[1].d[0] += 0.01
    found = invariants(plan, schedule)
    assert found.mean[1] == pytest.approx(0.01)
    assert found.worst == pytest.approx(
        max(0.01 / math.hypot(1, 2), abs(found.mean[2]) / math.hypot(1, 0.5))
    )
    assert "off by" in str(found)
    rows[2].z[1] += 0.1
    assert abs(invariants(plan, schedule).deviation[2]) > 0.01


def test_amplification_is_that_of_cancelling_terms():
    """Heun's rule in the noise divides by a small sigma: large terms that cancel."""
    schedule = sd.VPLinear()
    calm = invariants(ddim(schedule, [1.0, 0.6, 0.3]), schedule)
    rows = ddim(schedule, [1.0, 0.6, 0.3]).rows
    rows[1].d[0] += 100.0
    rows[1].x[0] -= 100.0
    wild = invariants(sd.Plan(rows, scales=()), schedule)
    assert calm.amplification < 2 < 199 < wild.amplification < 202
