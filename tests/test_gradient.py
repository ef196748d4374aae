"""Fitting by reverse mode: exact slopes, closed-form optima, resumption to the bit, memory."""

import math
from dataclasses import replace

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.family import Family
from sde_diffusion.tuning.gradient import Task, gradient
from sde_diffusion.tuning.kept import keep, kept
from sde_diffusion.tuning.knots import knots
from sde_diffusion.tuning.loss import Loss, endpoint
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.tune import tune

SCHEDULE = sd.VPLinear()


def exact_pairs(problem, n, seed, t_end=0.0, points=None):
    """Starts of the exact law at t = 1 and the exact ends of their paths."""
    alpha, sigma = SCHEDULE(1.0)
    x = problem.sample_marginal(n, alpha, sigma, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(1.0, t_end, points or 2, dtype=torch.float64)
    path = problem.trajectory(x, SCHEDULE, times)
    return Pairs(x, path[-1], 1.0, t_end, times if points else None, path if points else None)


@pytest.fixture(scope="module")
def gaussian():
    problem = sd.problems.Gaussian([0.5, -1.0, 0.0], [0.3, 1.0, 0.05])
    train, validation = exact_pairs(problem, 64, 1), exact_pairs(problem, 32, 2)
    return problem.denoiser(SCHEDULE), train, validation


def task(family, denoiser, train, validation, chunk=100, loss=None):
    return Task.of(family, denoiser, loss or endpoint(), train, validation, chunk, 0)


STILL = torch.zeros(0)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("solver", ["ddim", "adams", "dpm_solver_pp_2s", "angular"])
def test_the_slope_in_the_times_is_that_of_differences(gaussian, solver, asked):
    family = knots(solver, SCHEDULE, sd.times.default(SCHEDULE, 4), asked=asked)
    one = task(family, *gaussian, loss=endpoint(0.3))
    u = family.start + 0.1 * torch.sin(torch.arange(len(family.start)).double())
    everything = torch.arange(len(one.train))
    value, slope, _ = one.slope(u, everything, STILL, 0)
    assert value == pytest.approx(one.value(u, one.train), rel=1e-12)
    for i, step in enumerate(1e-5 * torch.eye(len(u), dtype=torch.float64)):
        difference = (one.value(u + step, one.train) - one.value(u - step, one.train)) / 2e-5
        assert float(slope[i]) == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_chunks_do_not_change_loss_or_slope(gaussian):
    family = knots("ddim", SCHEDULE, sd.times.default(SCHEDULE, 4))
    found = [
        task(family, *gaussian, chunk=chunk).slope(family.start, torch.arange(50), STILL, 0)
        for chunk in (7, 64)
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-14)


def test_the_noise_of_a_sample_depends_on_no_chunk(gaussian):
    denoiser, train, validation = gaussian
    plan = sd.SOLVERS["ddpm"](SCHEDULE, sd.times.default(SCHEDULE, 4))
    family = Family("nothing much", lambda u: scaled(plan, u[0]), torch.ones(1).double(), ("u",))
    found = [
        task(family, denoiser, train, validation, chunk).slope(
            family.start, torch.arange(30), STILL, 5
        )
        for chunk in (4, 30)
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)


def scaled(plan, factor):
    """The plan with its result multiplied by a factor."""
    end = plan.rows[-1]
    terms = [{k: c * factor for k, c in group.items()} for group in (end.x, end.d, end.z)]
    return replace(plan, rows=(*plan.rows[:-1], type(end)(end.kind, end.t, *terms)))


def test_a_closed_form_optimum_is_found(gaussian):
    """A factor on the result: the best is <x*, y>/<y, y> in the loss's own metric."""
    denoiser, train, _ = gaussian
    plan = sd.SOLVERS["ddim"](SCHEDULE, sd.times.default(SCHEDULE, 3))
    y, norm = sd.run(plan, denoiser, train.starts), train.ends.norm(dim=1, keepdim=True)
    best = float((train.ends * y / norm**2).sum() / (y * y / norm**2).sum())
    family = Family("factor", lambda u: scaled(plan, u[0]), torch.ones(1).double(), ("factor",))
    fit = gradient(family, denoiser, endpoint(), train, train, max_iterations=150, every=1)
    assert float(fit.numbers[0]) == pytest.approx(best, abs=1e-4)
    assert abs(best - 1) > 1e-2  # else nothing was found


def test_knots_find_the_best_interior_time():
    """DDIM in two steps on N(0, v): its gain is a function of one time, minimised on a fine grid.

    The gain of a step t -> s is (sigma_s/sigma_t)(1 - K alpha_t) + alpha_s K with
    K = alpha_t v/(alpha_t^2 v + sigma_t^2), and the exact one is sqrt(V_s/V_t).
    """
    v, schedule = 0.25, sd.EDM()
    problem = sd.problems.Gaussian([0.0], [v])
    t_start, t_end = 10.0, 0.05

    def gain(t, s):
        return (s / t) * (1 - v / (v + t * t)) + v / (v + t * t)

    middle = torch.linspace(0.06, 9.0, 200_000, dtype=torch.float64)
    exact = math.sqrt((v + t_end**2) / (v + t_start**2))
    errors = (gain(t_start, middle) * gain(middle, t_end) - exact).abs()
    best = float(middle[errors.argmin()])
    x = problem.sample_marginal(32, 1.0, t_start, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(x, exact * x, t_start, t_end)
    family = knots("ddim", schedule, [t_start, 3.0, t_end])
    fit = gradient(
        family, problem.denoiser(schedule), endpoint(), pairs, pairs, max_iterations=150, every=1
    )
    assert family.plan(fit.numbers).times[1] == pytest.approx(best, rel=2e-3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # that other samplers are better here
@pytest.mark.parametrize("free", ["gits", "oss", "bound", "knots", "knots and calls"])
def test_tune_takes_every_way_to_the_times(gaussian, free):
    denoiser, generator = gaussian[0], torch.Generator().manual_seed(8)
    starts = denoiser.problem.sample_marginal(24, *SCHEDULE(1.0), generator=generator)
    options = {"method": "gradient", "loss": "trajectory", "max_iterations": 20}
    plan = tune("ddim", denoiser, starts, nfe=4, free=free, **options if "knots" in free else {})
    results = {key: value["validation"]["loss"] for key, value in plan.origin["results"].items()}
    assert (plan.nfe, plan.times[0], plan.times[-1]) == (4, 1.0, 0.0)
    assert results["tuned"] != results["base"]
    assert results["tuned"] < results["base"] or free == "bound"  # which looks at no path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("free", ["gits", "oss", "knots"])
def test_tune_asks_for_no_more_samples_at_once_than_its_chunk(gaussian, free):
    asked = []

    def counting(x, t):
        asked.append(len(x))
        return gaussian[0](x, t)

    denoiser, starts = sd.FunctionDenoiser(counting, SCHEDULE), gaussian[1].starts[:24]
    teacher = sd.SOLVERS["adams"](SCHEDULE, sd.times.default(SCHEDULE, 12))
    options = {"method": "gradient", "max_iterations": 2} if free == "knots" else {}
    tune("ddim", denoiser, starts, teacher, nfe=3, free=free, chunk=5, **options)
    assert max(asked) == 5


class Stop(Exception):
    """Ctrl-C, as it were."""


@pytest.mark.parametrize("radius", [0.0, 0.1])
def test_a_fit_resumed_from_a_file_is_the_uninterrupted_one_to_the_bit(gaussian, radius, tmp_path):
    family = knots("adams", SCHEDULE, sd.times.default(SCHEDULE, 4), asked=True)
    options = {"max_iterations": 12, "batch": 16, "every": 5, "radius": radius, "seed": 3}
    seen = []

    def stop(progress):
        seen.append(progress)
        if progress.iteration == 7:
            raise Stop

    whole = gradient(family, gaussian[0], endpoint(), *gaussian[1:], **options)
    with pytest.raises(Stop):
        gradient(family, gaussian[0], endpoint(), *gaussian[1:], watch=stop, **options)
    keep(tmp_path / "state.npz", seen[-1].state)
    state = kept(tmp_path / "state.npz")
    rest = gradient(family, gaussian[0], endpoint(), *gaussian[1:], state=state, **options)
    assert rest.numbers.equal(whole.numbers)
    assert (rest.train, rest.validation) == (whole.train, whole.validation)
    assert rest.iterations == whole.iterations == 12
    other = gradient(family, gaussian[0], endpoint(), *gaussian[1:], **{**options, "seed": 4})
    assert not other.numbers.equal(whole.numbers)


def test_steps_that_leave_the_finite_numbers_are_refused(gaussian):
    """The plan is singular beyond u = 1.02, and the loss falls towards it."""
    denoiser, train, _ = gaussian
    plan = sd.SOLVERS["ddim"](SCHEDULE, sd.times.default(SCHEDULE, 3))
    towards = Loss("towards", lambda states, times, pairs: 10 - states[-1].flatten(1).abs())
    train = replace(train, starts=train.starts.abs() + 1)

    def build(u):
        return scaled(plan, u[0] if u[0] < 1.02 else u[0] * math.inf)

    family = Family("factor", build, torch.ones(1).double(), ("factor",))
    seen = []
    fit = gradient(
        *(family, denoiser, towards, train, train),
        max_iterations=40,
        every=1,
        watch=lambda progress: seen.append(float(progress.numbers)),
    )
    assert all(math.isfinite(u) and u < 1.02 for u in seen)
    assert seen[0] == 1.0
    assert fit.numbers[0] > 1.005
    assert fit.stopped in ("iterations", "not finite")
    assert fit.validation < task(family, denoiser, train, train, loss=towards).value(
        family.start, train
    )


def test_a_loss_that_is_never_finite_is_said(gaussian):
    family = knots("ddim", SCHEDULE, sd.times.default(SCHEDULE, 3))
    never = Loss("never", lambda states, times, pairs: states[-1].flatten(1) * math.inf)
    fit = gradient(family, gaussian[0], never, *gaussian[1:])
    assert fit.stopped == "not finite"
    assert fit.iterations == 0
    assert fit.numbers.equal(family.start)


def test_soft_teacher_forcing_moves_starts_within_their_ball_and_lowers_the_loss(gaussian):
    denoiser, train, validation = gaussian
    family = knots("ddim", SCHEDULE, sd.times.default(SCHEDULE, 3))
    states = []
    for radius in (0.0, 0.05):
        gradient(
            *(family, denoiser, endpoint(), train, validation),
            max_iterations=30,
            radius=radius,
            watch=lambda progress: states.append(progress),
        )
    hard, first, soft = states[29], states[30], states[59]
    limit = 0.05 * float(SCHEDULE.sigma(1.0)) * math.sqrt(3)
    assert float(first.state["moves"].norm(dim=1).max()) < 0.3 * limit  # by a step, no more
    lengths = soft.state["moves"].norm(dim=1)
    assert float(lengths.max()) <= limit * (1 + 1e-12)
    assert float(lengths.max()) > 0.5 * limit
    assert soft.train < 0.9 * hard.train


def test_only_inputs_of_network_calls_are_kept():
    """Tensors that autograd saves, without the network's own: their number is that of states."""
    width, x = 512, torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    network = torch.nn.Sequential(
        torch.nn.Linear(8, width), torch.nn.SiLU(), torch.nn.Linear(width, 8)
    )
    denoiser = sd.FunctionDenoiser(lambda x, t: network(x), SCHEDULE)
    family = knots("ddim", SCHEDULE, sd.times.default(SCHEDULE, 5))
    pairs = Pairs(x, torch.ones_like(x), 1.0, 0.0)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one = task(family, denoiser, pairs, pairs)
        u = family.start.clone().requires_grad_()
        one._path(family.build(u), x, 0, torch.arange(16))
        assert max(sizes) < 16 * width
        sd.run(family.build(u), denoiser, x, grad=True)
        assert max(sizes) >= 16 * width  # what is kept otherwise
    assert network[0].weight.grad is None


def test_the_parameters_of_the_network_get_no_gradient():
    network = sd.ResidualMLP((2,), width=16, depth=1)
    denoiser = sd.NetworkDenoiser(network, SCHEDULE)
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(x, 0.5 * x, 1.0, 1e-3)
    family = knots("ddim", SCHEDULE, sd.times.default(SCHEDULE, 3, t_end=1e-3), asked=True)
    fit = gradient(family, denoiser, endpoint(), pairs, pairs, max_iterations=3)
    assert math.isfinite(fit.train)
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"chunk": 0}, "chunk = 0"),
        ({"max_iterations": 2.5}, "max_iterations = 2.5"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"radius": math.nan}, "radius"),
        ({"state": {"numbers": torch.zeros(9)}}, "a state of 9 numbers"),
    ],
)
def test_bad_arguments_are_named(gaussian, options, word):
    family = knots("ddim", SCHEDULE, sd.times.default(SCHEDULE, 3))
    with pytest.raises(ValueError, match=word):
        gradient(family, gaussian[0], endpoint(), *gaussian[1:], **options)
