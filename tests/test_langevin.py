"""Predictor-corrector and annealed Langevin dynamics."""

import math

import pytest
import torch
from models import DOUBLE, PROBLEM, VP
from test_per_sample import Counting as PerSampleCounting

import sde_diffusion as sd
from sde_diffusion.langevin import PREDICTORS, langevin_size
from sde_diffusion.noise import Course

RANGES = {  # schedule, start, end
    "vp": (VP, 1.0, 1e-2),
    "edm": (sd.EDM(), 80.0, 0.05),
    "flow": (sd.FlowMatching(), 1.0, 0.02),  # alpha = 0 at the start
}


class Counting(PerSampleCounting):
    def __call__(self, x, t):
        self.calls += 1
        return self.inner(x, t)


def start_of(schedule, t, n=5, seed=0):
    return PROBLEM.sample_marginal(n, *schedule(t), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("predictor", "solver", "options"),
    [("ancestral", "ddpm", {"variance": "posterior"}), ("euler_maruyama", "euler_maruyama", {})],
)
@pytest.mark.parametrize("schedule", [VP, sd.EDM(0.01, 10.0), sd.SubVP()])
def test_a_predictor_alone_is_the_plan_of_its_name(predictor, solver, options, schedule):
    grid = [0.9, 0.6, 0.4, 0.2]
    denoiser, x = PROBLEM.denoiser(schedule), start_of(schedule, 0.9)
    plan = sd.run(sd.SOLVERS[solver](schedule, grid, **options), denoiser, x, noise=7)
    ours = sd.predictor_corrector(
        denoiser, x, grid, predictor, corrector_steps=0, denoise=False, noise=7
    )
    torch.testing.assert_close(ours.x, plan, rtol=1e-11, atol=1e-11)


def test_reverse_diffusion_is_the_published_step_of_ddpm_and_of_ve():
    """(2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z; x + dv score + sqrt(dv) z, any data."""
    schedule = sd.ddpm_linear()
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=DOUBLE)
    for k in (999, 500, 3):
        t, s = (k + 1) / 1000, k / 1000
        a, b, c = PREDICTORS["reverse_diffusion"](schedule, t, s)
        alpha_t, sigma_t = schedule(t)  # score = (alpha d - x)/sigma^2
        on_score = float(beta[k])
        assert float(b) == pytest.approx(on_score * alpha_t / sigma_t**2, rel=1e-8)
        assert float(a) == pytest.approx(2 - math.sqrt(1 - on_score) - on_score / sigma_t**2)
        assert float(c) == pytest.approx(math.sqrt(on_score), rel=1e-8)
    a, b, c = PREDICTORS["reverse_diffusion"](sd.EDM(), 3.0, 2.0)
    assert (a, b, c) == pytest.approx((1 - 5 / 9, 5 / 9, math.sqrt(5)))


def test_the_corrector_brings_a_gaussian_to_its_law():
    """Started twice too wide: v <- (1 - eps)^2 v + 2 eps settles at 1/(1 - eps/2).

    eps = 2 snr^2 ("level"), or 2 snr^2/v where |z|/|score| = 1/sqrt(v). 300 x 256 numbers, within
    5 standard deviations of the variance, false alarms below 2e-6; a step that depends on x and z
    adds some 6/256.
    """
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(300, 256, dtype=DOUBLE, generator=generator)
    snr = 0.4
    for norm, variance, bias in (
        ("level", 1 / (1 - snr**2), 0.0),
        ("sample", 1 + snr**2, 8 / 256),
        ("batch", 1 + snr**2, 2 / 256),
    ):
        x = 2 * draw()
        for _ in range(40):
            z = draw()
            eps = langevin_size(-x, z, 1.0, snr, norm)[:, None]
            x = x - eps * x + (2 * eps).sqrt() * z
        assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / x.numel()) + bias


@pytest.mark.parametrize("where", RANGES)
def test_a_sample_does_not_depend_on_its_batch_but_with_batch_norms(where):
    schedule, t, s = RANGES[where]
    denoiser, x, seeds = PROBLEM.denoiser(schedule), start_of(schedule, t), [3, 1, 4, 1, 5]
    grid = torch.linspace(t, s, 6, dtype=DOUBLE)
    for first in (False, True):
        draw = lambda chosen, **options: (
            sd.predictor_corrector(
                denoiser, x[chosen], grid, noise=[seeds[i] for i in chosen], **options
            ).x
        )
        options = {"corrector_first": first, "corrector_steps": 2}
        for norm in ("level", "sample"):
            together = draw([0, 1, 2, 3, 4], norm=norm, **options)
            assert torch.isfinite(together).all()
            assert torch.equal(draw([4, 2], norm=norm, **options), together[[4, 2]])
        assert torch.equal(draw([4], norm="batch", **options), together[[4]])
        assert not torch.equal(draw([4, 2], norm="batch", **options), together[[4, 2]])


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("where", ["vp", "edm"])
def test_samples_have_the_law_of_the_data(predictor, where):
    """Mean within 5 standard deviations (false alarms below 2e-6), radius and variances within
    what 100 steps and snr = 0.1 leave, a few per cent."""
    schedule, t, s = RANGES[where]
    n, (alpha_s, sigma_s) = 2000, schedule(s)
    grid = sd.times.uniform_lambda(schedule, 100, t, s)
    x = start_of(schedule, t, n)
    y = sd.predictor_corrector(
        PROBLEM.denoiser(schedule), x, grid, predictor, snr=0.1, denoise=False, noise=3
    ).x
    variance = alpha_s**2 * PROBLEM.data_covariance().diagonal() + sigma_s**2
    z = (y.mean(0) - alpha_s * PROBLEM.mean) / (variance / n).sqrt()
    assert float(z.abs().max()) < 5
    assert float((y.var(0) / variance - 1).abs().max()) < 0.05 + 5 * math.sqrt(2 / n)
    exact = start_of(schedule, s, 50_000, 1).norm(dim=1)
    assert abs(float(y.norm(dim=1).mean() / exact.mean()) - 1) < 0.03


def test_corrections_mend_what_the_predictor_leaves():
    """Eight steps of reverse diffusion leave the ring some 80 per cent too thick; 20 corrections
    at each level take away more than half of that."""
    grid = sd.times.uniform_lambda(VP, 8, t_end=0.05)
    x, exact = start_of(VP, 1.0, 1000), start_of(VP, 0.05, 50_000, 1).norm(dim=1)
    errors = []
    for steps in (0, 20):
        y = sd.predictor_corrector(
            PROBLEM.denoiser(VP), x, grid, corrector_steps=steps, denoise=False, noise=0
        ).x
        errors.append(abs(float(y.norm(dim=1).std() / exact.std() - 1)))
    assert errors[1] < errors[0] / 2


def test_annealed_langevin_has_the_law_of_its_recursion():
    """On Gaussian data y is affine in itself and the noise, so mean and variance are exact.

    30,000 numbers, mean and variance within 5 standard deviations: false alarms below 2e-6.
    """
    mean, variance, step, inner = 0.7, 0.3, 0.4, 5
    data = sd.problems.Gaussian([mean], [variance])
    for schedule in (VP, sd.EDM()):
        grid = sd.times.uniform_lambda(schedule, 4, schedule.t_max, float(schedule.time_of(1.0)))
        rho = [float(schedule.rho(float(t))) for t in grid]
        n, m, v = 30_000, 0.0, rho[0] ** 2
        for r in rho:
            gain = variance / (variance + r**2)
            for _ in range(inner):
                a = 1 - step / 2 * (1 - gain)
                m, v = a * m + step / 2 * (1 - gain) * mean, a * a * v + step * r**2
        x = torch.randn(n, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        x = x * float(schedule.sigma(schedule.t_max))
        y = sd.annealed_langevin(data.denoiser(schedule), x, grid, step, inner, noise=1).x
        y = y / float(schedule.alpha(float(grid[-1])))
        assert abs(float(y.mean()) - m) < 5 * math.sqrt(v / n)
        assert abs(float(y.var()) / v - 1) < 5 * math.sqrt(2 / n)


def test_calls_are_counted_and_sigma_zero_is_the_denoised_state():
    x = start_of(VP, 1.0)
    for solve, options, calls in (
        (sd.predictor_corrector, {"corrector_steps": 2}, 4 + 3 * 2),  # none at sigma = 0
        (sd.predictor_corrector, {"corrector_steps": 2, "corrector_first": True}, 4 + 4 * 2),
        (sd.predictor_corrector, {"corrector_steps": 0}, 4),
        (sd.annealed_langevin, {"inner_steps": 3}, 4 * 3 + 1),
    ):
        denoiser = Counting(VP)
        solution = solve(denoiser, x, [1.0, 0.6, 0.3, 0.1, 0.0], noise=0, **options)
        assert solution.nfe == denoiser.calls == calls
    to_level = sd.annealed_langevin(PROBLEM.denoiser(VP), x, [0.6, 0.1], inner_steps=3, noise=0)
    to_end = sd.annealed_langevin(PROBLEM.denoiser(VP), x, [0.6, 0.1, 0.0], inner_steps=3, noise=0)
    torch.testing.assert_close(to_end.x, PROBLEM.denoised(to_level.x, *VP(0.1)))


@pytest.mark.parametrize("first", [False, True])
def test_denoise_leaves_out_the_last_noise_and_nothing_else(first):
    """One step and two corrections: the two runs differ by the third draw's term alone."""
    denoiser, x = PROBLEM.denoiser(VP), start_of(VP, 0.9)
    runs = [
        sd.predictor_corrector(
            denoiser,
            x,
            [0.9, 0.5],
            corrector_steps=2,
            corrector_first=first,
            denoise=denoise,
            noise=4,
        ).x
        for denoise in (True, False)
    ]
    draw = sd.IndependentNoise(4).stream(x, Course())
    z = [draw(torch.empty_like(x), 0.0, 0.0) for _ in range(3)]
    scale = (
        PREDICTORS["reverse_diffusion"](VP, 0.9, 0.5)[2] if first else 2 * 0.16 * VP.sigma(0.5)
    )  # sqrt(2 eps) = 2 snr sigma
    torch.testing.assert_close(runs[1] - runs[0], scale * z[2])


@pytest.mark.parametrize(
    ("solve", "options", "error", "words"),
    [
        (sd.predictor_corrector, {"predictor": "ancestrall"}, ValueError, "did you mean"),
        (sd.predictor_corrector, {"norm": "mean"}, ValueError, "unknown norm"),
        (sd.predictor_corrector, {"snr": 0.0}, ValueError, "snr = 0.0"),
        (sd.predictor_corrector, {"snr": math.nan}, ValueError, "snr = nan"),
        (sd.predictor_corrector, {"corrector_steps": -1}, ValueError, "at least 0"),
        (sd.predictor_corrector, {"denoiser": lambda x, t: x}, TypeError, "no schedule"),
        (sd.predictor_corrector, {"noise": [1]}, ValueError, "one for each sample"),
        (
            sd.predictor_corrector,
            {"denoiser": sd.FunctionDenoiser(lambda x, t: x * math.nan, VP), "noise": 0},
            FloatingPointError,
            "not finite",
        ),
        (sd.annealed_langevin, {"step": 4.0}, ValueError, "step = 4.0"),
        (sd.annealed_langevin, {"inner_steps": 0}, ValueError, "at least 1"),
        (sd.annealed_langevin, {"times": [0.1, 0.9]}, ValueError, "must decrease"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_cure(solve, options, error, words):
    given = {"denoiser": PROBLEM.denoiser(VP), "x": torch.ones(2, 2), "times": [0.9, 0.1]}
    with pytest.raises(error, match=words):
        solve(**{**given, **options})


def test_alpha_zero_and_brownian_paths_are_refused_where_they_have_no_meaning():
    denoiser, x = PROBLEM.denoiser(sd.FlowMatching()), torch.ones(2, 2)
    with pytest.raises(ValueError, match="Euler-Maruyama has no step"):
        sd.predictor_corrector(denoiser, x, [1.0, 0.1], "euler_maruyama")
    with pytest.raises(ValueError, match="noise-to-signal ratio is infinite"):
        sd.annealed_langevin(denoiser, x, [1.0, 0.1])
    with pytest.raises(TypeError, match="plain draws only"):
        sd.predictor_corrector(denoiser, x, [0.9, 0.1], noise=sd.BrownianPath([0, 1]))
