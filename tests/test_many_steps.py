"""With many steps nothing blows up: the step to sigma = 0, which does not shrink, stays regular."""

import pytest
import torch
from enumeration import every_solver

import sde_diffusion as sd
from sde_diffusion.certificates import invariants
from sde_diffusion.solvers.exponential import weights
from sde_diffusion.solvers.multistep import multistep


@pytest.mark.parametrize(("name", "options"), every_solver())
def test_no_row_amplifies_rounding_much_in_many_steps(name, options):
    """The terms of a row are at most 150 times as large as states, with 200 steps as with 20."""
    for schedule in (sd.VPLinear(), sd.EDM()):
        plan = sd.SOLVERS[name](schedule, sd.times.default(schedule, 200), **options)
        assert invariants(plan, schedule).amplification < 150


def test_nodes_of_the_last_step_lie_half_its_length_apart():
    """Through them it is the exact integral of a polynomial in rho: the row of `weights`."""
    edm = sd.EDM()
    times = [3.0, 2.5, 2.0, 1.6, 1.5, 1.4, 1.0, 0.0]
    last = multistep(edm, times, 4, "noise", "rho").rows[-1]
    nodes = (1.0, 1.5, 2.0, 2.5)  # not 1.4 and 1.6
    exact = weights(edm, 1.0, 0.0, nodes, "noise", "rho")
    coefficient = {at: -b / at for at, b in zip(nodes, exact.outputs, strict=True)}
    asked = times[:-1]
    assert {asked[j] for j in last.d} == set(nodes)
    for j, c in last.d.items():
        assert float(c) == pytest.approx(coefficient[asked[j]], rel=1e-12)


def test_a_last_step_far_longer_than_those_before_it_has_a_lower_order():
    """Where no output lies half the step back, the step takes the latest one alone."""
    edm = sd.EDM()
    times = [3.2, 3.0, 2.8, 2.6, 0.0]
    last = multistep(edm, times, 3, "noise", "rho").rows[-1]
    assert last.d.keys() == {3}


def test_float32_states_reach_a_millionth_in_hundreds_of_steps():
    """On the ring at 300 steps, float32 states and network: off by rounding alone."""
    vp, ring = sd.VPLinear(), sd.problems.ring()
    x = ring.sample_marginal(64, *vp(1.0), torch.Generator().manual_seed(0))
    exact = ring.endpoint(x, vp, 1.0, 0.0)
    found = sd.run(sd.default_plan(vp, 300), ring.denoiser(vp), x.float()).double()
    assert float(((found - exact).norm(dim=1) / exact.norm(dim=1)).median()) < 2e-6
