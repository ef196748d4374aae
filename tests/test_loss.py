"""What is compared with the teacher: ends, paths at moving times, functions of one's own."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.loss import (
    Loss,
    balanced,
    endpoint,
    features,
    path_at,
    robust,
    trajectory,
)
from sde_diffusion.tuning.measure import Errors
from sde_diffusion.tuning.pairs import Pairs
from tests.enumeration import SCHEDULES

CASES = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def gaussian_pairs(schedule, points, n=5):
    """Exact paths on N(mu, v), with all of the schedule's range that float64 can tell."""
    problem = sd.problems.Gaussian([0.5, -1.0, 0.2], [0.3, 1.0, 0.05])
    times = sd.times.kl_optimal(schedule, points - 1)
    alpha, sigma = schedule(float(times[0]))
    x = problem.sample_marginal(n, alpha, sigma, generator=torch.Generator().manual_seed(0))
    path = problem.trajectory(x, schedule, times)
    return problem, Pairs(x, path[-1], float(times[0]), float(times[-1]), times, path)


@CASES
def test_the_path_between_known_times_is_of_order_four(schedule):
    at = sd.times.kl_optimal(schedule, 11)
    errors = []
    for points in (21, 41):
        problem, pairs = gaussian_pairs(schedule, points)
        exact = problem.trajectory(pairs.starts, schedule, at)
        size = torch.hypot(*(torch.as_tensor(v) for v in schedule(at)))[:, None, None]
        errors.append(float(((path_at(schedule, pairs, at) - exact) / size).abs().max()))
    assert errors[1] < 2e-4
    assert errors[1] < errors[0] / 8 or errors[0] < 1e-9


@CASES
def test_the_path_at_known_times_is_the_known_path(schedule):
    _, pairs = gaussian_pairs(schedule, 9)
    torch.testing.assert_close(
        path_at(schedule, pairs, pairs.times), pairs.states, rtol=1e-7, atol=1e-9
    )


def test_the_path_moves_with_the_times():
    schedule = sd.VPLinear()
    _, pairs = gaussian_pairs(schedule, 9)
    times = torch.tensor([0.9, 0.43, 0.11]).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t: path_at(schedule, pairs, t), (times,), check_forward_ad=True
    )


@CASES
def test_a_time_at_an_exact_end_gets_no_gradient(schedule):
    _, pairs = gaussian_pairs(schedule, 9)
    ends = pairs.times[[0, -1]]
    scales = torch.stack([torch.as_tensor(v) for v in schedule(ends)])
    exact = (scales == 0).any(0)
    slope = torch.func.jacrev(lambda t: path_at(schedule, pairs, t).flatten(1).sum(1))(ends)
    ahead = torch.func.jacfwd(lambda t: path_at(schedule, pairs, t).flatten(1).sum(1))(ends)
    assert bool((slope.diag()[exact] == 0).all())
    torch.testing.assert_close(slope, ahead)


def test_two_known_times_are_joined_by_a_line_in_the_angle():
    schedule = sd.FlowMatching()
    _, pairs = gaussian_pairs(schedule, 2)
    middle = path_at(schedule, pairs, torch.tensor([0.5]).double())
    size = math.hypot(0.5, 0.5)
    torch.testing.assert_close(middle[0], size * (pairs.starts + pairs.ends) / 2)


def test_times_outside_the_path_and_pairs_without_one_are_refused():
    schedule = sd.VPLinear()
    _, pairs = gaussian_pairs(schedule, 9)
    part = Pairs(pairs.starts, pairs.states[4], 1.0, 0.3, pairs.times[:5], pairs.states[:5])
    with pytest.raises(ValueError, match="outside the teacher's path"):
        path_at(schedule, part, pairs.times[-2:])
    with pytest.raises(ValueError, match="times and states"):
        path_at(schedule, Pairs(pairs.starts, pairs.ends, 1.0, 0.0), pairs.times)


def test_a_trajectory_loss_is_the_mean_of_relative_errors_along_the_path():
    schedule = sd.VPLinear()
    _, pairs = gaussian_pairs(schedule, 9)
    times, exact = pairs.times[::2], pairs.states[::2]
    states = exact * torch.tensor([7.0, 1.1, 0.8, 1.0, 1.3]).double()[:, None, None]
    r = trajectory(schedule).residual(states, times, pairs)
    wanted = (0.1**2 + 0.2**2 + 0.0 + 0.3**2) / 4  # the start is not compared
    torch.testing.assert_close(r.square().sum(1), torch.full((5,), wanted).double())


def test_an_endpoint_loss_is_the_relative_error_and_features_that_of_a_function():
    ends = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).double()
    pairs = Pairs(ends, ends, 1.0, 0.0)
    states = torch.stack([ends, ends + torch.tensor([[0.5, 0.0], [0.0, 1.0]]).double()])
    squares = endpoint().residual(states, torch.tensor([1.0, 0.0]), pairs).square().sum(1)
    torch.testing.assert_close(squares, torch.tensor([0.01, 0.25]).double())
    first = features(lambda x: x[:, :1] ** 2, name="first coordinate squared")
    r = first.residual(states, torch.tensor([1.0, 0.0]), pairs)
    torch.testing.assert_close(r, torch.tensor([[3.5**2 - 9.0], [0.0]]).double())
    assert first.name == "first coordinate squared"


def test_a_robust_penalty_is_the_square_when_small_and_grows_as_its_logarithm():
    loss, squares = endpoint(0.5), torch.tensor([1e-8, 0.25, 1e6]).double()
    expected = torch.tensor([1e-8, 0.25 * math.log(2), 0.25 * math.log1p(4e6)]).double()
    torch.testing.assert_close(loss.penalty(squares), expected)
    moving = squares.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss.penalty(moving).sum(), moving)
    torch.testing.assert_close(loss.weight(squares), slope)
    assert endpoint().penalty(squares).equal(squares)
    assert endpoint().weight(squares).equal(torch.ones(3).double())


def test_a_share_of_the_square_counts_all_the_same():
    loss, squares = endpoint(0.5, share=0.1), torch.tensor([1e-8, 0.25, 1e6]).double()
    expected = endpoint(0.5).penalty(squares) + squares / 10
    torch.testing.assert_close(loss.penalty(squares), expected)
    moving = squares.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss.penalty(moving).sum(), moving)
    torch.testing.assert_close(loss.weight(squares), slope)
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"share = {wrong}"):
            endpoint(0.5, share=wrong)


def test_the_balanced_loss_has_no_unit():
    """Errors ten times as large, of what is bettered and of the fit, have the same loss."""
    s = torch.tensor([1e-6, 1e-4, 0.3]).double()
    one, other = (balanced(Errors(0, x * 0.2, x * 0.01)) for x in (0.1, 1.0))
    torch.testing.assert_close(
        one.penalty(s / 100) / one.scale**2, other.penalty(s) / other.scale**2
    )
    assert balanced(Errors()) == robust(Errors()) == endpoint()
    assert 0 < float(balanced(Errors(0, 0, 0)).penalty(s).min()) < math.inf


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_no_size_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        Loss("endpoint", endpoint().residual, scale)
