"""SDEdit: where it starts, what it keeps, and its law on Gaussians in closed form."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver
from probing import UnitNoise, law_of

import sde_diffusion as sd
from sde_diffusion.editing import sdedit

DOUBLE = torch.float64
VP, EDM, FLOW = sd.VPLinear(), sd.EDM(), sd.FlowMatching()
RING = sd.problems.ring()
X = RING.sample(4, torch.Generator().manual_seed(0))


def test_all_noise_is_plain_sampling_and_none_the_picture():
    """Pure noise where alpha = 0; a level of 0, t_min or no steps give the picture back."""
    denoiser = RING.denoiser(FLOW)
    for how in ({"level": math.inf}, {"t": 1.0}, {"last": 8}):
        found = sdedit(denoiser, X, steps=8, seed=[1, 2, 3, 4], **how)
        grid = sd.times.default(FLOW, 8)
        plain = sd.sample(denoiser, (4, 2), times=grid, seed=[1, 2, 3, 4], dtype=DOUBLE)
        assert torch.equal(found, plain)
        other = sdedit(denoiser, -X, steps=8, seed=[1, 2, 3, 4], **how)
        assert torch.equal(found, other)
    for how in ({"level": 0.0}, {"t": 0.0}, {"last": 0}):
        same = sdedit(denoiser, X, steps=8, **how)
        assert torch.equal(same, X)
        assert same is not X


@each(("name", "options"), every_solver())
def test_the_last_steps_are_a_plan_of_their_own(name, options):
    """k = 5 of 8: noised to t_3 by the seed's draw, then the solver afresh on t_3 .. t_8."""
    grid = sd.times.uniform_lambda(EDM, 8, 3.0, 0.1)
    denoiser = RING.denoiser(EDM)
    found = sdedit(denoiser, X, last=5, times=grid, solver=name, seed=[5, 6, 7, 8], **options)
    noise = sd.PerSampleNoise([5, 6, 7, 8])
    x_t = X + EDM.sigma(float(grid[3])) * noise.start(torch.empty_like(X))
    plan = sd.SOLVERS[name](EDM, grid[3:], **options)
    torch.testing.assert_close(found, sd.run(plan, denoiser, x_t, noise=noise))
    alone = sdedit(denoiser, X[1:2], last=5, times=grid, solver=plan_or(name), seed=[6], **options)
    torch.testing.assert_close(found[1:2], alone)


def plan_or(name):
    """The solver as a function, which does the same as its name."""
    return sd.SOLVERS[name]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_level_is_the_noise_to_signal_ratio_on_every_schedule(schedule):
    """The first state has mean alpha x_0 and deviation sigma, sigma/alpha = level, exactly."""
    first = []
    keep = lambda point: first.append(point.x.clone()) if point.index == 0 else None
    x_0 = torch.tensor([0.7, -1.2], dtype=DOUBLE).expand(5, 2)
    t = schedule.time_of(-math.log(0.8))
    alpha_t, sigma_t = (float(c) for c in schedule(t))
    assert sigma_t / alpha_t == pytest.approx(0.8)
    for how in ({"level": 0.8}, {"t": t}):
        first.clear()
        denoiser = sd.problems.Gaussian([0.0, 0.0], 1.0).denoiser(schedule)
        sdedit(denoiser, x_0, steps=4, seed=UnitNoise(5), callback=keep, **how)
        mean, covariance = law_of(first[0])
        torch.testing.assert_close(mean, alpha_t * x_0[0])
        torch.testing.assert_close(covariance, sigma_t**2 * torch.eye(2, dtype=DOUBLE))


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "unipc", "heun"])
def test_the_law_on_gaussian_data(solver):
    """Exactly that of the plan from N(alpha x_0, sigma^2), and in small steps the formula's."""
    mu, v, level, x_0 = 0.4, 0.3, 1.1, -0.6
    denoiser, t = sd.problems.Gaussian([mu], v).denoiser(VP), VP.time_of(-math.log(1.1))
    alpha_t, sigma_t = VP(t)
    grid = sd.times.uniform_lambda(VP, 10, t, 0.02)
    plan = sd.SOLVERS[solver](VP, grid)
    picture = torch.full((40, 1), x_0, dtype=DOUBLE)
    mean, covariance = law_of(sdedit(denoiser, picture, solver=plan, seed=UnitNoise(40)))
    expected = plan.law(VP, mu, v, start=(alpha_t * x_0, sigma_t**2))
    assert float(mean) == pytest.approx(float(expected[0]))
    assert float(covariance) == pytest.approx(float(expected[1]))
    if not plan.stochastic:
        give = {"level": level, "steps": 400, "solver": "heun", "seed": UnitNoise(40)}
        mean, covariance = law_of(sdedit(denoiser, picture, **give))
        kept = 1 / math.sqrt(1 + level**2 / v)
        assert float(mean) == pytest.approx(mu + kept * (x_0 - mu), rel=1e-3)
        assert float(covariance) == pytest.approx((1 - kept**2) * v, rel=1e-3)


def test_a_preset_brings_its_grid_from_any_time_or_takes_another():
    denoiser, give = RING.denoiser(VP), {"level": 1.0, "steps": 6, "seed": [1, 2, 3, 4]}
    for preset, given, times in (
        ("k-diffusion euler Karras", "default", "karras"),
        ("diffusers DDIM", "uniform", "uniform"),
    ):
        found = sdedit(denoiser, X, solver=preset, times=given, **give)
        assert torch.equal(found, sdedit(denoiser, X, solver="ddim", times=times, **give))


def test_strength_of_other_packages_is_the_floor_of_the_product():
    """What `last` says of strength: 0.29 of 100 steps are 28 in floating point."""
    assert min(math.floor(100 * 0.29), 100) == 28
    labels = []

    def looks(x, t):
        labels.append(round(float(t) * 1000) - 1)
        return 0 * x

    schedule = sd.ddpm_linear()
    times = partial(sd.times.leading, offset=1)
    sdedit(
        sd.FunctionDenoiser(looks, schedule),
        X,
        last=int(50 * 0.75),
        steps=50,
        times=times,
        solver="ddim",
    )
    assert len(labels) == 37
    assert labels[:2] == [721, 701]  # the 37 last of 981, 961, .., 1
    assert labels[-1] == 1


NONE = sd.FunctionDenoiser(lambda x, t: x, VP)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sdedit(NONE, X), "none of level, t and last given"),
        (lambda: sdedit(NONE, X, level=1.0, last=3), "level, last of level, t and last"),
        (lambda: sdedit(NONE, X, level=1e3), r"level = 1000 lies outside \[0, 152"),
        (lambda: sdedit(NONE, X, level=-1.0), "level = -1 lies outside"),
        (lambda: sdedit(NONE, X, level=math.nan), "level = nan lies outside"),
        (lambda: sdedit(NONE, X, level="much"), "must be a number"),
        (lambda: sdedit(NONE, X, t=1.5), r"t = 1.5 lies outside \[0, 1\]"),
        (lambda: sdedit(NONE, X, last=21), "last = 21 steps of a grid that has 20"),
        (lambda: sdedit(NONE, X, last=3, steps=2), "at most 2, or more steps"),
        (lambda: sdedit(NONE, X, last=-1), "must be an integer of at least 0"),
        (lambda: sdedit(NONE, X, last=0.6), "must be an integer of at least 0"),
        (lambda: sdedit(NONE, X, level=1.0, times=[0.5, 0.0]), "take one with t_start"),
        (lambda: sdedit(NONE, X, level=1.0, times="leading"), "take one with t_start"),
        (lambda: sdedit(NONE, X, t=0.5, times=lambda s, n, t_start: torch.ones(1)), "need .steps"),
        (lambda: sdedit(NONE, X, level=1.0, times="karas"), "did you mean 'karras'"),
        (lambda: sdedit(NONE, X, level=1.0, solver="dimm"), "did you mean 'ddim'"),
        (lambda: sdedit(NONE, X, level=1.0, solver="scipy", steps=3), "leave out steps and last"),
        (lambda: sdedit(NONE, X, last=3, solver="per_sample_ode"), "leave out steps and last"),
        (lambda: sdedit(NONE, X.int(), level=1.0), "127.5 - 1"),
        (lambda: sdedit(NONE, X, level=1.0, solver="diffusers DDIM"), "its last k steps, or give"),
        (lambda: sdedit(NONE, X, t=0.0, solver="diffusers DDIM"), "its last k steps, or give"),
        (lambda: sdedit(NONE, X, t=0.5, etta=1.0), r"option of sdedit .*Known: .*\blevel"),
        (lambda: sdedit(NONE, X / 0, level=1.0), "must be finite"),
        (lambda: sdedit(NONE, X[:0], level=1.0), "empty"),
        (lambda: sdedit(NONE, X.numpy(), level=1.0), "must be a tensor"),
        (lambda: sdedit(lambda x, t: x, X, level=1.0), "which has no schedule; wrap it"),
        (lambda: sdedit(NONE, X, level=1.0, seed=[1, 2]), "2 seeds for a batch of 4"),
        (
            lambda: sdedit(NONE, X, solver=sd.solvers.ddim(VP, [0.5, 0.0]), level=1.0),
            "starts at its own first time, 0.5",
        ),
        (lambda: sdedit(NONE, X, solver=sd.solvers.ddim(EDM, [2.0, 1.0])), "was made for"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


PLAN = sd.solvers.ddim(VP, [0.5, 0.0])


def open_solver(schedule, times, **options):
    """A solver of one's own that would take any option."""
    return sd.solvers.ddim(schedule, times)


@pytest.mark.parametrize(
    "how", [{"level": 1.0}, {"level": 0.0}, {"last": 3}, {"last": 0}, {"solver": PLAN}], ids=repr
)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", DOUBLE),
        ("device", "cpu"),
        ("shape", (4, 2)),
        ("start", X),
        ("analytic_first_step", True),
    ],
)
def test_what_the_picture_says_is_no_option(how, option, value):
    for solver in (how.get("solver", "ddim"), open_solver):
        with pytest.raises(TypeError, match=f"{option} is an option of sample, not of sdedit"):
            sdedit(
                NONE, X, **(how if "solver" in how else how | {"solver": solver}), **{option: value}
            )


LABELLED = sd.NetworkDenoiser(lambda x, t, labels: x, VP).given(torch.zeros(2))


@pytest.mark.parametrize("how", [{"level": 0.0}, {"t": 0.0}, {"last": 0}], ids=repr)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"solver": "dimm"}, "did you mean 'ddim'"),
        ({"solver": "ddim", "etta": 1.0}, "did you mean 'eta'"),
        ({"seed": [1, 2]}, "2 seeds for a batch of 4"),
        ({"times": "karas"}, "did you mean 'karras'"),
        ({"steps": 0}, "steps = 0"),
        ({"denoiser": LABELLED}, "bound to 2 samples and x has 4"),
        ({"solver": "scipy", "steps": 3}, "leave out steps and last"),
    ],
)
def test_what_comes_straight_back_is_checked_all_the_same(how, bad, words):
    with pytest.raises((ValueError, TypeError), match=words):
        sdedit(**{"denoiser": NONE, "picture": X} | how | bad)


@pytest.mark.parametrize(
    "how",
    [
        {"solver": "scipy", "rtol": 1e-8, "atol": 1e-9},
        {"solver": "torchdiffeq", "method": "rk4", "steps": 100},
    ],
    ids=repr,
)
def test_adaptive_samplers_start_at_the_level(how):
    """The ODE's answer without steps; a method of fixed steps is told their number."""
    denoiser = sd.problems.Gaussian([0.4], 0.3).denoiser(VP)
    picture = torch.full((3, 1), -0.6, dtype=DOUBLE)
    mean, variance = law_of(sdedit(denoiser, picture, level=1.1, seed=UnitNoise(3), **how))
    kept = 1 / math.sqrt(1 + 1.1**2 / 0.3)
    assert float(mean) == pytest.approx(0.4 - kept, abs=1e-3)
    assert float(variance) == pytest.approx((1 - kept**2) * 0.3, abs=1e-3)


def test_the_sde_keeps_less_than_the_ode():
    """Of fine plans by their law: the factor 1/(1 + level^2/v), to its square root the ODE's."""
    mu, v, level, x_0 = 0.4, 0.3, 1.1, -0.6
    t = VP.time_of(-math.log(level))
    alpha_t, sigma_t = VP(t)
    for solver, power in (("ddpm", 1.0), ("ddim", 0.5)):
        plan = sd.SOLVERS[solver](VP, sd.times.uniform_lambda(VP, 1000, t, VP.t_clean))
        mean, variance = plan.law(VP, mu, v, start=(alpha_t * x_0, sigma_t**2))
        kept = (1 + level**2 / v) ** -power
        assert float(mean) == pytest.approx(mu + kept * (x_0 - mu), abs=5e-3)
        assert float(variance) == pytest.approx((1 - kept**2) * v, abs=5e-3)


DENOISER = RING.denoiser(VP)


def test_a_level_or_time_may_be_any_number():
    """Of Python, numpy or torch, as `rho` and grids return them."""
    t = sd.times.default(VP, 20)[8]
    right = sdedit(DENOISER, X, t=float(t), seed=0)
    for same in (t, np.float64(t), t.numpy()):
        assert torch.equal(sdedit(DENOISER, X, t=same, seed=0), right)
    for level in (VP.rho(t), float(VP.rho(t)), np.float32(VP.rho(t))):
        torch.testing.assert_close(sdedit(DENOISER, X, level=level, seed=0), right)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"t": torch.ones(2)}, r"t = a Tensor of shape \(2,\) must be a number"),
        ({"level": True}, "level = True must be a number"),
        ({"t": 0.5, "times": lambda s, t_start: 3}, r"\(schedule, steps, t_start\) -> times"),
        ({"t": 0.5, "times": lambda s, n, t_start: sd.times.uniform(s, n)}, "has 1 there"),
        ({"t": 0.5, "times": lambda s, n, t_start: ["a", "b"]}, "must be numbers"),
        ({"last": 2, "times": lambda s: 3}, r"\(schedule, steps\) -> times"),
        ({"t": 0.5, "times": 3}, "times = 3: this grid cannot start"),
    ],
)
def test_numbers_and_grids_that_are_none_are_refused_by_name(how, words):
    with pytest.raises((TypeError, ValueError), match=words):
        sdedit(DENOISER, X, **how)


def test_a_preset_chooses_by_the_steps_of_the_whole_grid():
    """Below 15 of them "DPM++ 3M" lowers its last orders, whatever the number of steps made."""
    preset, schedule = sd.preset("diffusers DPM++ 3M"), sd.ddpm_linear()
    denoiser = RING.denoiser(schedule)
    for steps, lower in ((20, False), (12, True)):
        tail = preset.times(schedule, steps)[-6:]
        options = {**preset.options, "lower_last": lower}
        plan = sd.SOLVERS[preset.solver](schedule, tail, **options)
        found = sdedit(denoiser, X, last=5, steps=steps, solver=preset, seed=0)
        assert torch.equal(found, sdedit(denoiser, X, solver=plan, seed=0))


def test_a_model_of_latents_is_told_to_give_its_denoiser():
    model = type("Model", (), {"denoiser": DENOISER})()
    with pytest.raises(TypeError, match=r"is Model: give its denoiser, model.denoiser"):
        sdedit(model, X, t=0.5)
