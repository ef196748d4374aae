"""ER-SDE-Solvers between what they equal: DDIM, Adams methods in rho, and the laws of a point."""

import pytest
import torch
from enumeration import SCHEDULES

import sde_diffusion as sd
from sde_diffusion.solvers import adams, ddim, er_sde
from sde_diffusion.solvers.er_sde import EXCESS


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_order_one_is_ddim_at_both_ends(schedule):
    grid = sd.times.uniform(schedule, 6, t_start=schedule.time_of(-3.5))
    assert er_sde(schedule, grid, order=1, phi="ode").equals(ddim(schedule, grid))
    assert er_sde(schedule, grid, order=1, phi="sde").equals(ddim(schedule, grid, eta=1.0))
    assert not er_sde(schedule, grid, order=1).equals(ddim(schedule, grid), 1e-3)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_higher_orders_are_adams_methods_in_rho(schedule, order):
    """Newton's polynomial and quadrature here, Lagrange's and another quadrature there."""
    grid = sd.times.uniform(schedule, 6, t_start=schedule.time_of(-3.0), t_end=schedule.t_clean)
    for phi, tau in (("ode", 0.0), ("sde", 1.0)):
        other = adams(schedule, grid, order=order, variable="rho", tau=tau)
        assert er_sde(schedule, grid, order=order, phi=phi).equals(other, 1e-8)
    shipped = er_sde(schedule, grid, order=order, phi="ode", difference="shipped")
    same = shipped.equals(er_sde(schedule, grid, order=order, phi="ode"), 1e-6)
    assert same == (order == 2)


@pytest.mark.parametrize("phi", EXCESS)
def test_every_noise_function_keeps_the_marginals_of_a_point(phi):
    schedule = sd.EDM()
    grid = sd.times.karras(schedule, 8)[:-1]
    mean, variance = er_sde(schedule, grid, phi=phi).law(schedule, 0.7, 0.0)
    assert float(mean) == pytest.approx(0.7, rel=1e-12)
    assert float(variance) == pytest.approx(float(grid[-1]) ** 2, rel=1e-9)


def test_a_function_of_ones_own_is_as_good_as_a_word():
    schedule = sd.VPLinear()
    grid = sd.times.uniform(schedule, 6)
    mine = er_sde(schedule, grid, phi=lambda rho: rho**1.5)
    assert mine.equals(er_sde(schedule, grid, phi="er_sde_2"))
    assert not mine.equals(er_sde(schedule, grid, phi="er_sde_3"), 1e-3)


def test_starts_from_pure_noise_and_gradients_reach_the_times():
    schedule = sd.FlowMatching()
    assert er_sde(schedule, [1.0, 0.7, 0.4, 0.0], phi="sde").rows[1].x == {}
    times = torch.tensor([0.9, 0.6, 0.4, 0.2], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(er_sde(schedule, times).matrix()[-1, :5].sum(), times)
    assert torch.isfinite(slope).all()
    assert (slope != 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phi": "er_sde_6"}, "unknown phi"),
        ({"phi": lambda rho: rho**0.5}, "must not increase"),
        ({"order": 4}, "at least 4 steps|1, 2 or 3"),
        ({"difference": "forward"}, "unknown difference"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        er_sde(sd.VPLinear(), [0.9, 0.6, 0.4, 0.2], **options)
