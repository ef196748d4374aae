"""The engine: one loop for every plan."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import each
from enumeration import every_solver, representatives, smooth_grid
from hypothesis import given
from hypothesis import strategies as st
from models import DOUBLE, GRID, VP, Net

import sde_diffusion as sd
from sde_diffusion.denoise import NetworkDenoiser
from sde_diffusion.problems import ring
from sde_diffusion.solvers import ddim, dpm_solver_pp_2m


@each(("name", "options"), representatives())
def test_running_changes_nothing_but_its_own(name, options, x, denoiser):
    """Inputs, network and plan are as before; a second run and eight threads agree."""
    plan = sd.SOLVERS[name](VP, GRID, **options)
    before, weights, table = x.clone(), copy.deepcopy(denoiser.network.state_dict()), str(plan)
    first = sd.run(plan, denoiser, x, noise=3)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: sd.run(plan, denoiser, x, noise=3), range(8)))
    assert all(torch.equal(first, again) for again in runs)
    assert torch.equal(x, before)
    assert str(plan) == table
    for key, value in denoiser.network.state_dict().items():
        assert torch.equal(value, weights[key])
    assert not first.requires_grad


@each(("name", "options"), every_solver())
def test_autograd_form_is_the_same_run(name, options, x, denoiser):
    plan = sd.SOLVERS[name](VP, GRID, **options)
    y = sd.run(plan, denoiser, x.clone().requires_grad_(), noise=3, grad=True)
    assert y.requires_grad
    torch.testing.assert_close(y.detach(), sd.run(plan, denoiser, x, noise=3), rtol=1e-4, atol=1e-4)


@given(
    event=st.lists(st.integers(1, 3), max_size=4),
    batch=st.integers(1, 4),
    name=st.sampled_from(sorted(sd.SOLVERS)),
)
def test_any_event_shape(event, batch, name):
    """A sample is its numbers: any shape gives the same as flat."""
    grid = smooth_grid(VP, 4)
    plan = sd.SOLVERS[name](VP, grid)
    if plan.stochastic:
        plan = ddim(VP, grid)
    flat = torch.linspace(-1, 1, batch * math.prod(event), dtype=DOUBLE)
    y = sd.run(plan, lambda x, t: torch.tanh(x), flat.reshape(batch, *event))
    assert y.shape == (batch, *event)
    torch.testing.assert_close(y.flatten(), sd.run(plan, lambda x, t: torch.tanh(x), flat))


@each(("name", "options"), every_solver())
def test_network_that_hands_its_input_back(name, options, x):
    plan = sd.SOLVERS[name](VP, GRID, **options)
    y = sd.run(plan, lambda x, t: x, x, noise=0)
    torch.testing.assert_close(y, sd.run(plan, lambda x, t: x.clone(), x, noise=0))


@each(("name", "options"), every_solver())
def test_callbacks_see_every_grid_point(name, options, x, denoiser):
    """The times of the plan, which are those of the grid except for churn, which raises them."""
    plan = sd.SOLVERS[name](VP, GRID, **options)
    seen = []
    sd.run(plan, denoiser, x, noise=1, callback=lambda p: seen.append((p.index, p.steps, p.t)))
    assert [s[0] for s in seen] == list(range(7))
    assert {s[1] for s in seen} == {6}
    assert [s[2] for s in seen] == list(plan.times)
    assert options.get("s_churn") or list(plan.times) == GRID.tolist()


def test_callbacks_may_change_the_state(x, denoiser):
    """Replacing the state at grid point k continues from there: the tail of a longer plan."""
    whole = ddim(VP, GRID)
    other = torch.full_like(x, 0.3)
    y = sd.run(whole, denoiser, x, callback=lambda p: other if p.index == 3 else None)
    torch.testing.assert_close(y, sd.run(ddim(VP, GRID[3:]), denoiser, other))
    pinned = sd.run(whole, denoiser, x, callback=lambda p: other if p.index == 6 else None)
    assert torch.equal(pinned, other)


@pytest.mark.parametrize("replacement", [torch.zeros(2, 3), torch.zeros(5, 3, dtype=torch.int64)])
def test_callbacks_must_return_a_state(replacement, x, denoiser):
    with pytest.raises(ValueError, match="return None to leave it"):
        sd.run(ddim(VP, GRID), denoiser, x, callback=lambda p: replacement)


def test_trajectory_is_the_run_at_every_grid_point(x, denoiser):
    plan = dpm_solver_pp_2m(VP, GRID)
    path = sd.record(plan, denoiser, x)
    assert path.times.tolist() == GRID.tolist()
    assert torch.equal(path.states[0], x)
    assert torch.equal(path.states[-1], sd.run(plan, denoiser, x))
    for k in range(6):
        torch.testing.assert_close(
            path.denoised[k], denoiser(path.states[k], float(GRID[k])).detach()
        )
    prefix = sd.run(dpm_solver_pp_2m(VP, GRID[:4]), denoiser, x)
    torch.testing.assert_close(path.states[3], prefix)


def test_not_finite_is_found_and_placed(x):
    """The step and time of the first bad output, though nothing is checked on the way."""

    def network(x, label):
        return x * (math.nan if float(label[0]) < 0.4 else 0.1)

    denoiser = NetworkDenoiser(network, VP)
    first_bad = next(float(t) for t in GRID if t < 0.4)
    with pytest.raises(FloatingPointError, match=rf"output is not finite at t = {first_bad:.6g}"):
        sd.run(ddim(VP, GRID), denoiser, x)
    with pytest.raises(FloatingPointError, match="step 4 of 6"):
        sd.run(ddim(VP, GRID), denoiser, x)


def test_a_callback_that_leaves_no_number_is_named(x, denoiser):
    with pytest.raises(FloatingPointError, match=r"the callback left is not finite.*step 2 of 6"):
        sd.run(
            ddim(VP, GRID),
            denoiser,
            x,
            callback=lambda p: p.x * math.nan if p.index == 2 else None,
        )


def test_progress_bar_counts_network_calls(x, denoiser, capsys):
    y = sd.run(ddim(VP, GRID), denoiser, x, progress=True)
    assert torch.equal(y, sd.run(ddim(VP, GRID), denoiser, x))


@pytest.mark.parametrize("noisy", [False, True])
def test_a_state_in_any_buffer_may_be_handed_back(noisy, x):
    """x_1 lies in a draw's buffer or in a fresh one; the network returns it as its output."""
    trace = sd.Trace(1.0)
    start, d = trace.denoise(trace.x, 1.0)
    y, e = trace.denoise((trace.noise(1.0, 0.5) if noisy else 3.0 * start) + d, 0.5)
    plan = trace.end(0.5 * y + 2.0 * e + start, 0.0)
    result = sd.run(plan, lambda x, t: x, x, noise=0)
    torch.testing.assert_close(result, sd.run(plan, lambda x, t: x.clone(), x, noise=0))


def test_a_network_that_hands_back_a_view_of_its_input(x):
    plan = dpm_solver_pp_2m(VP, GRID)
    y = sd.run(plan, lambda x, t: x[:, -1:].expand_as(x), x)
    torch.testing.assert_close(y, sd.run(plan, lambda x, t: x[:, -1:].expand_as(x).clone(), x))


def test_gradients_reach_the_times_through_the_network_too():
    """d(result)/d(times) of a run and of the law equal central differences."""
    problem = ring()
    grid = smooth_grid(VP, 3, -1.5, 1.5)
    x = problem.sample_marginal(4, *VP(float(grid[0])), torch.Generator().manual_seed(0))

    def value(times):
        plan = ddim(VP, times, eta=0.0)
        y = sd.run(plan, problem.denoiser(VP), x, grad=True)
        return y.square().sum() + plan.law(VP, 0.3, 0.7, start=(0.0, 1.0))[1]

    times = grid.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(times), times)
    for i in range(len(grid)):
        bump = torch.zeros_like(grid)
        bump[i] = 1e-6
        difference = float(value(grid + bump) - value(grid - bump)) / 2e-6
        assert float(gradient[i]) == pytest.approx(difference, rel=1e-5, abs=1e-6)


def test_callbacks_and_networks_cannot_reach_the_callers_state(x, denoiser):
    before = x.clone()

    def spoil(point):
        point.x.mul_(0.5)

    for grad in (False, True):
        sd.run(ddim(VP, GRID), denoiser, x, callback=spoil, grad=grad)
        assert torch.equal(x, before)


def test_plans_know_their_schedule_by_its_values(x):
    """Equal schedules written otherwise are accepted, others of the same name are not."""

    class Own(sd.Schedule):
        def __init__(self, power):
            self.power = power

        def alpha(self, t):
            return 1 - t**self.power

        def sigma(self, t):
            return t * 1.0

    plan = ddim(Own(1), [0.9, 0.5, 0.1])
    assert sd.run(plan, NetworkDenoiser(Net(), sd.FlowMatching()), x).shape == x.shape
    with pytest.raises(ValueError, match="was made for"):
        sd.run(plan, NetworkDenoiser(Net(), Own(2)), x)
    with pytest.raises(ValueError, match="was made for"):
        plan.law(Own(2), 0.0, 1.0)
