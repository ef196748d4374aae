"""Levenberg-Marquardt on families of plans."""

import math
from functools import cache

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.begin import begin
from sde_diffusion.tuning.choices import FAMILIES
from sde_diffusion.tuning.family import Family
from sde_diffusion.tuning.gradient import gradient
from sde_diffusion.tuning.laws import sliced
from sde_diffusion.tuning.least_squares import least_squares
from sde_diffusion.tuning.loss import Loss, endpoint, features, relative_ends, trajectory
from sde_diffusion.tuning.measure import measure
from sde_diffusion.tuning.objective import Objective
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.quasi_newton import quasi_newton
from sde_diffusion.tuning.table import table

SCHEDULE = sd.VPLinear()
DATA = sd.problems.ring()


@cache
def exact_pairs(n, seed, data, schedule):
    t = schedule.t_max
    generator = torch.Generator().manual_seed(seed)
    x = data.sample_marginal(n, *schedule(t), generator=generator)
    return x, data.endpoint(x, schedule, t, 0.0)


def pairs(n, seed, data=DATA, schedule=SCHEDULE):
    starts, ends = exact_pairs(n, seed, data, schedule)
    return Pairs(starts.clone(), ends.clone(), schedule.t_max, 0.0)


def base(nfe, schedule=SCHEDULE):
    plan = sd.SOLVERS["angular"](schedule, sd.times.default(schedule, nfe + 1))
    return sd.transform.analytic_first_step(plan, schedule)


def absolute_ends(states, times, part):
    return states[-1] - part.ends


def test_a_linear_problem_is_solved_in_one_step():
    """With the times fixed and one call the result is linear in the numbers that are free."""
    family = table(base(1), SCHEDULE, times=False)
    fixed = family.start[0]
    linear = Family(  # a0 fixed: a1 and b1,0 free
        "last row", lambda n: family.build(torch.cat([fixed[None], n])), family.start[1:], ()
    )
    train, denoiser = pairs(64, 1), DATA.denoiser(SCHEDULE)
    loss = Loss("absolute", absolute_ends)
    fit = least_squares(linear, denoiser, loss, train, train, max_iterations=1, probes=2)
    x = train.starts.flatten()
    start = torch.cat([fixed[None], linear.start])
    d = denoiser(family.plan(start).rows[1].x[0] * train.starts, family.plan(start).rows[1].t)
    radius = math.hypot(*map(float, SCHEDULE(SCHEDULE.t_max)))
    columns = torch.stack([x / radius, d.flatten()], 1)
    best = torch.linalg.lstsq(columns, train.ends.flatten()[:, None]).solution[:, 0]
    # The first damping is 1e-3 of the diagonal: what it leaves is of that order.
    torch.testing.assert_close(
        fit.numbers, best, rtol=0, atol=0.1 * float((linear.start - best).norm())
    )
    more = least_squares(linear, denoiser, loss, train, train, max_iterations=20, probes=2, ftol=0)
    torch.testing.assert_close(more.numbers, best, rtol=1e-7, atol=1e-9)


def test_the_signs_estimate_the_exact_hessian():
    """The gradient does not depend on the signs; H does, with the mean of the exact H.

    The mean over 16 seeds of 32 samples is within 0.3 of the diagonal's scale: some samples count
    more than others, so this is about 5 of its standard deviations; the seeds are fixed.
    """
    family, denoiser = table(base(3), SCHEDULE), DATA.denoiser(SCHEDULE)
    train = pairs(32, 1)
    exact = Objective(family, denoiser, endpoint(0.3), train, probes=2)
    signs = Objective(family, denoiser, endpoint(0.3), train, chunk=7)
    gradient, hessian = exact.normal_equations(family.start, 0)
    found = [signs.normal_equations(family.start, seed) for seed in range(16)]
    for other, _ in found:
        torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-12)
    mean = torch.stack([h for _, h in found]).mean(0)
    scale = hessian.diagonal().sqrt()
    assert ((mean - hessian).abs() / torch.outer(scale, scale)).max() < 0.3
    assert not torch.equal(found[0][1], found[1][1])


def test_the_gradient_is_that_of_the_loss():
    family, denoiser = table(base(2), SCHEDULE), DATA.denoiser(SCHEDULE)
    objective = Objective(family, denoiser, endpoint(0.2), pairs(16, 3), chunk=5)
    gradient, _ = objective.normal_equations(family.start, 0)
    for p, basis in enumerate(torch.eye(len(family.start), dtype=torch.float64)):
        step = 1e-5 * basis
        quotient = (
            objective.value(family.start + step) - objective.value(family.start - step)
        ) / 2e-5
        assert math.isclose(2 * gradient[p], quotient, rel_tol=1e-5, abs_tol=1e-8)


def test_gaussian_data_are_reached_exactly():
    """On N(0, v I) the exact map is one number, and one call has it: the loss goes to 0."""
    data = sd.problems.Gaussian([0.0, 0.0], 0.3)
    train, validation = pairs(32, 1, data), pairs(32, 2, data)
    family = table(base(1), SCHEDULE)
    fit = least_squares(
        family, data.denoiser(SCHEDULE), endpoint(), train, validation, max_iterations=40
    )
    assert fit.validation < 1e-20
    end = sd.run(family.plan(fit.numbers), data.denoiser(SCHEDULE), validation.starts)
    torch.testing.assert_close(end, validation.ends, rtol=1e-9, atol=1e-9)


def test_the_loss_never_rises_and_the_best_is_by_validation():
    family, seen = table(base(3), SCHEDULE), []
    fit = least_squares(
        family, DATA.denoiser(SCHEDULE), endpoint(0.1), pairs(96, 1), pairs(64, 2),
        watch=seen.append, max_iterations=15, ftol=0,
    )  # fmt: skip
    train = [p.train for p in seen]
    assert train == sorted(train, reverse=True)
    assert train[-1] < 0.2 * train[0]
    assert fit.validation == min(p.validation for p in seen)
    assert fit.iterations == len(seen) == 15
    assert fit.stopped == "iterations"
    best = next(p for p in seen if p.validation == fit.validation)
    assert torch.equal(best.numbers, fit.numbers)
    assert best.train == fit.train


@pytest.mark.parametrize("solver", ["angular", "ddim"])
def test_going_on_after_a_break_is_as_if_there_had_been_none(solver):
    """Bit for bit, for a stochastic plan too (its noise is drawn again from its seed)."""
    denoiser, train, validation = DATA.denoiser(SCHEDULE), pairs(48, 1), pairs(32, 2)
    grid = sd.times.uniform_lambda(SCHEDULE, 4, 0.99, 0.01)
    family = table(base(2), SCHEDULE)
    if solver == "ddim":
        family = Family(
            "eta", lambda n: sd.SOLVERS["ddim"](SCHEDULE, grid, eta=n[0]),
            torch.tensor([0.8], dtype=torch.float64), ("eta",),
        )  # fmt: skip
    give = (family, denoiser, endpoint(0.3), train, validation)

    def fit(iterations, **options):
        seen = []
        found = least_squares(
            *give, max_iterations=iterations, ftol=0, watch=seen.append, **options
        )
        return found, seen

    whole, _ = fit(6)
    _, seen = fit(3)
    resumed, _ = fit(6, state=seen[-1].state)
    assert torch.equal(whole.numbers, resumed.numbers)
    assert (whole.train, whole.validation) == (resumed.train, resumed.validation)
    assert whole.iterations == resumed.iterations == 6


def test_a_fit_that_had_converged_at_the_break_does_not_go_on():
    denoiser, train = DATA.denoiser(SCHEDULE), pairs(48, 1)
    give, seen = (table(base(1), SCHEDULE), denoiser, endpoint(), train, train), []
    fit = least_squares(*give, watch=seen.append)
    assert fit.stopped == "converged"
    again = least_squares(*give, state=seen[-1].state)
    assert again.iterations == fit.iterations
    assert torch.equal(again.numbers, fit.numbers)


def test_an_exception_of_the_watcher_ends_the_fit():
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        least_squares(
            table(base(1), SCHEDULE), DATA.denoiser(SCHEDULE), endpoint(), pairs(8, 1), pairs(8, 2),
            watch=stop,
        )  # fmt: skip


def test_steps_that_leave_the_finite_numbers_are_not_taken():
    """A family whose plans exist for numbers below 0.5 only: the fit stays there."""
    inner, seen = table(base(2), SCHEDULE, times=False), []

    def build(numbers):
        if float(numbers.detach().sum()) > 0.5:
            raise ValueError("no such plan")
        return inner.build(inner.start + numbers.sum())

    family = Family("walled", build, torch.tensor([0.4], dtype=torch.float64), ("n",))
    fit = least_squares(
        family, DATA.denoiser(SCHEDULE), endpoint(), pairs(8, 1), pairs(8, 2), watch=seen.append
    )
    assert math.isfinite(fit.validation)
    assert float(fit.numbers) <= 0.5


def test_no_loss_at_the_start_is_said_and_the_start_is_kept():
    def nowhere(states, times, part):
        return relative_ends(states, times, part) * math.nan

    family = table(base(1), SCHEDULE)
    fit = least_squares(
        family, DATA.denoiser(SCHEDULE), Loss("nan", nowhere), pairs(8, 1), pairs(8, 2)
    )
    assert fit.stopped == "not finite"
    assert torch.equal(fit.numbers, family.start)


def test_a_residual_that_looks_at_the_times_moves_with_them():
    """r = x at a grid point minus a line in its time: its gradient has the line's slope."""

    def line(states, times, part):
        return states[1] - times[1] * torch.ones_like(part.ends)

    family, denoiser = table(base(2), SCHEDULE), DATA.denoiser(SCHEDULE)
    objective = Objective(family, denoiser, Loss("line", line), pairs(8, 3))
    gradient, _ = objective.normal_equations(family.start, 0)
    for p, basis in enumerate(torch.eye(len(family.start), dtype=torch.float64)):
        step = 1e-5 * basis
        quotient = (
            objective.value(family.start + step) - objective.value(family.start - step)
        ) / 2e-5
        assert math.isclose(2 * gradient[p], quotient, rel_tol=1e-5, abs_tol=1e-8)
    assert gradient[family.names.index("l0")] != 0


def test_bad_input_is_refused():
    family, denoiser = table(base(4), SCHEDULE), DATA.denoiser(SCHEDULE)
    give = (family, denoiser, endpoint())
    with pytest.raises(ValueError, match=r"18 starts to fit 19 free numbers \(table\)"):
        least_squares(*give, pairs(18, 1), pairs(8, 2))
    with pytest.raises(ValueError, match="no pairs to validate on"):
        least_squares(*give, pairs(19, 1), pairs(8, 2).part(0, 0))
    with pytest.raises(ValueError, match=r"max_iterations = 2.5 must be an integer"):
        least_squares(*give, pairs(19, 1), pairs(8, 2), max_iterations=2.5)
    with pytest.raises(ValueError, match="a state of 3 numbers, and 'table' has 19"):
        least_squares(*give, pairs(19, 1), pairs(8, 2), state={"numbers": torch.zeros(3)})


CHOSEN = {"churn": "euler", "stochasticity": "ddim"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # that other samplers are better here
@pytest.mark.parametrize("schedule", [sd.VPLinear(), sd.EDM()], ids=["vp", "edm"])
@pytest.mark.parametrize("free", FAMILIES)
def test_every_family_is_fitted_to_paths(free, schedule):
    """The times at the two ends stay, and no time beyond them is asked of the teacher's path."""
    solver = CHOSEN.get(free, "angular")
    base = begin(solver, schedule, 3)
    family, denoiser = FAMILIES[free](base), DATA.denoiser(schedule)
    generator = torch.Generator().manual_seed(0)
    x = DATA.sample_marginal(40, *schedule(base.times[0]), generator=generator)
    times = sd.times.kl_optimal(schedule, 20, base.times[0], base.times[-1])
    path = DATA.trajectory(x, schedule, times)
    train = Pairs(x, path[-1], base.times[0], base.times[-1], times, path)
    fit = least_squares(
        family, denoiser, trajectory(schedule), train, train, max_iterations=2, ftol=0
    )
    objective = Objective(family, denoiser, trajectory(schedule), train)
    assert fit.train < objective.value(family.start)


MODES = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
FITS = pytest.mark.parametrize("fitted", [least_squares, gradient, quasi_newton])


@MODES
@FITS
def test_a_fit_is_the_same_where_gradients_are_off(fitted, mode):
    """The pairs made there too, as tensors of the inference mode."""
    denoiser, family = DATA.denoiser(SCHEDULE), table(base(2), SCHEDULE)

    def numbers():
        seen = []
        give = (family, denoiser, endpoint(0.1), pairs(24, 1), pairs(8, 2))
        fitted(*give, max_iterations=2, watch=seen.append)
        return seen[-1].numbers

    expected = numbers()
    with mode():
        found = numbers()
    assert found.equal(expected)
    assert not expected.equal(family.start)


@FITS
@pytest.mark.parametrize("what", [endpoint(), trajectory(SCHEDULE), features(torch.sin), sliced()])
def test_samples_that_are_single_numbers_are_fitted(fitted, what):
    """Events of shape () and (1,) are one problem."""
    data = sd.problems.Gaussian([0.5], [0.3])
    family, denoiser = table(base(1), SCHEDULE), data.denoiser(SCHEDULE)
    alone = sd.FunctionDenoiser(lambda x, t: denoiser(x[:, None], t)[:, 0], SCHEDULE)
    x, times = pairs(16, 1, data).starts, sd.times.kl_optimal(SCHEDULE, 8)
    path = data.trajectory(x, SCHEDULE, times)
    wide = Pairs(x, path[-1], 1.0, 0.0, times, path)
    thin = Pairs(x[:, 0], path[-1, :, 0], 1.0, 0.0, times, path[..., 0])
    found = [
        fitted(family, of, what, some, some, max_iterations=2)
        for of, some in ((denoiser, wide), (alone, thin))
    ]
    torch.testing.assert_close(found[0].numbers, found[1].numbers)
    errors = [
        measure(family.plan(found[0].numbers), of, what, some)
        for of, some in ((denoiser, wide), (alone, thin))
    ]
    assert errors[0].plain() == pytest.approx(errors[1].plain())


@FITS
def test_an_end_of_zero_is_named_under_a_relative_loss(fitted):
    train, validation = pairs(24, 1), pairs(8, 2)
    train.ends[3] = 0.0
    family, denoiser = table(base(1), SCHEDULE), DATA.denoiser(SCHEDULE)
    with pytest.raises(ValueError, match="end of start 3 of 24 is 0"):
        fitted(family, denoiser, endpoint(), train, validation)
    with pytest.raises(ValueError, match="end of start 3 of 24 is 0"):
        measure(family.plan(), denoiser, endpoint(), train)
    own = Loss("absolute", absolute_ends)
    fit = fitted(family, denoiser, own, train, validation, max_iterations=1)
    assert math.isfinite(fit.train)


def network(x, label):
    """About the noise in x, at any time."""
    return x / (1 + x.square().mean(1, keepdim=True)).sqrt()


def blind(x, label):
    with torch.no_grad():
        return network(x, label)


WEIGHT = torch.ones(2, dtype=torch.float64, requires_grad=True)


@FITS
@pytest.mark.parametrize("prediction", ["data", "noise", "velocity"])
@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (network, ""),
        (blind, "no gradient in x"),
        (lambda x, label: WEIGHT * network(x.detach(), label), "no gradient in x"),
        (lambda x, label: network(x.detach(), label) + 0 * x, "as far as autograd sees"),
        (lambda x, label: torch.ones_like(x) + 0 * x, ""),
        (lambda x, label: network(x, label) + 0.1 * torch.randn_like(x), ""),
    ],
    ids=["plain", "no_grad", "detach", "half", "constant", "dropout"],
)
def test_a_network_that_cuts_the_graph_is_refused(fitted, prediction, answer, refused):
    denoiser = sd.NetworkDenoiser(answer, SCHEDULE, prediction)
    base = begin("angular", SCHEDULE, 2, t_end=0.01)
    family = FAMILIES["coefficients"](base)
    give = (family, denoiser, endpoint(0.1), pairs(24, 1), pairs(8, 2))
    if refused:
        with pytest.raises(ValueError, match=refused):
            fitted(*give, max_iterations=1)
    else:
        assert math.isfinite(fitted(*give, max_iterations=1).train)
