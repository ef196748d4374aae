"""Every family that `tune` knows, by enumeration: its start is the base, its plans are plans."""

import pytest
from enumeration import SCHEDULES, smooth_grid
from families import away, check_gradient

import sde_diffusion as sd
from sde_diffusion.certificates import invariants
from sde_diffusion.certificates.certificate import float32_floor
from sde_diffusion.tuning.base import Base
from sde_diffusion.tuning.begin import begin
from sde_diffusion.tuning.choices import FAMILIES

STOCHASTIC = {
    "stochasticity": ("ddim", {"eta": 0.5}),
    "churn": ("edm_heun", {"s_churn": 0.4}),
}


@pytest.fixture(params=["vp", "edm", "flow"])
def schedule(request):
    return SCHEDULES[request.param]


@pytest.fixture(params=list(FAMILIES))
def begun(request, schedule):
    """(base, family) of four steps between lambda = -2 and 2."""
    name, options = STOCHASTIC.get(request.param, ("angular", {}))
    times = tuple(smooth_grid(schedule, 4).tolist())
    solver = sd.SOLVERS[name]
    base = Base(solver(schedule, times, **options), schedule, times, solver, options)
    return base, FAMILIES[request.param](base)


def test_the_start_is_the_base(begun):
    base, family = begun
    assert family.plan().equals(base.plan)
    assert len(family.names) == len(family.start) == len(set(family.names))


@pytest.mark.parametrize("name", ["ddim", "sa_solver", "edm_heun"])
def test_noise_is_tuned_from_a_name(name):
    """A base by its name brings all options, 0 for no noise: the family begins with some."""
    base = begin(name, sd.EDM(), 5)
    family = FAMILIES["churn" if name == "edm_heun" else "stochasticity"](base)
    assert family.plan().stochastic


def test_churn_refuses_what_it_would_overrule(schedule):
    times = tuple(smooth_grid(schedule, 4).tolist())
    for name, options, message in (
        ("edm_heun", {"s_tmax": 2.0}, "leave out \\['s_tmax'\\]"),
        ("ddim", {}, "the base is ddim: give base = 'edm_heun'"),
    ):
        solver = sd.SOLVERS[name]
        base = Base(solver(schedule, times, **options), schedule, times, solver, options)
        with pytest.raises(ValueError, match=message):
            FAMILIES["churn"](base)


def test_numbers_are_felt_and_differentiable(begun):
    _, family = begun
    check_gradient(family, away(family, 0.05))


def test_a_tuned_plan_is_an_ordinary_plan(begun, schedule, tmp_path):
    """It is as short as its base, is for the schedule, is read back as saved, and runs in float32.

    The difference of a float32 run is at most three roundings, times what the largest cancellation
    in a row makes of them.
    """
    base, family = begun
    tuned = family.plan(away(family, 0.05))
    assert not tuned.equals(base.plan)
    assert tuned.nfe == base.plan.nfe
    assert (tuned.rows[0].t, tuned.times[-1]) == (base.times[0], base.times[-1])
    tuned.check_schedule(schedule)
    with pytest.raises(ValueError, match="was made for"):
        tuned.check_schedule(sd.VPCosine())
    tuned.save(tmp_path / "plan.json")
    assert sd.Plan.load(tmp_path / "plan.json") == tuned
    found = invariants(tuned, schedule)
    assert float32_floor(tuned, schedule) < 3 * 2**-24 * found.amplification
