"""The front door, and what is refused at every door."""

import math

import pytest
import torch
from models import DOUBLE, GRID, PROBLEM, VP, Net

import sde_diffusion as sd
from sde_diffusion.denoise import NetworkDenoiser
from sde_diffusion.solvers import ddim, ddpm


@pytest.mark.parametrize("solver", [*sd.SOLVERS, *sd.adaptive.ADAPTIVE, *sd.LANGEVIN])
def test_sample_with_every_solver_by_name(solver, denoiser):
    grid = "default" if solver in sd.adaptive.ADAPTIVE else sd.times.uniform(VP, 5, t_end=1e-3)
    y = sd.sample(denoiser, (4, 3), solver=solver, times=grid, seed=0)
    assert y.shape == (4, 3)
    assert torch.isfinite(y).all()
    assert torch.equal(y, sd.sample(denoiser, (4, 3), solver=solver, times=grid, seed=0))


@pytest.mark.parametrize("grid", sorted(sd.times.GRIDS))
def test_sample_with_every_grid_by_name(grid):
    schedule = sd.ddpm_linear()
    denoiser = NetworkDenoiser(Net(), schedule)
    assert torch.isfinite(sd.sample(denoiser, (2, 3), times=grid, steps=5, seed=0)).all()


def test_sample_is_run_from_the_prior(denoiser):
    plan = ddpm(VP, GRID)
    noise = sd.IndependentNoise(7)
    start = noise.start(torch.empty(4, 3)) * VP.sigma(1.0)
    expected = sd.run(plan, denoiser, start, noise=noise)
    assert torch.equal(sd.sample(denoiser, (4, 3), solver="ddpm", times=GRID, seed=7), expected)
    assert torch.equal(sd.sample(denoiser, (4, 3), solver=plan, seed=7), expected)
    own = lambda schedule, times: ddpm(schedule, times)
    assert torch.equal(sd.sample(denoiser, (4, 3), solver=own, times=GRID, seed=7), expected)
    assert torch.equal(
        sd.sample(denoiser, (4, 3), solver="ddpm", times=GRID, seed=7, start=start), expected
    )


def test_samples_of_the_ring_have_its_law():
    """A perfect network and 40 steps: mean and covariance within 5 sigma of the exact data's."""
    n = 4000
    denoiser = PROBLEM.denoiser(VP)
    covariance = PROBLEM.data_covariance()
    for solver, options in (("dpm_solver_pp_2m", {}), ("ddpm", {"variance": "posterior"})):
        grid = sd.times.uniform_lambda(VP, 100)
        y = sd.sample(denoiser, (n, 2), solver=solver, times=grid, seed=0, dtype=DOUBLE, **options)
        error = (y.mean(0) - PROBLEM.mean) / (covariance.diagonal() / n).sqrt()
        assert float(error.abs().max()) < 5
        assert float((torch.cov(y.T) - covariance).abs().max()) < 0.02 + 5 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "dim"}, "did you mean 'ddim'"),
        ({"solver": 3}, "give a name"),
        ({"solver": "ddim", "etta": 1.0}, "did you mean 'eta'"),
        ({"step": 10}, "did you mean 'steps'"),
        ({"times": "karass"}, "did you mean 'karras'"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 2.5}, "integer"),
        ({"times": [0.5, 0.1]}, r"sample\(.., start=x_t\)"),
        ({"times": [1.0, 0.1], "steps": 3}, "leave out one"),
        ({"solver": ddim(VP, GRID), "steps": 3}, "its own times"),
        ({"solver": ddim(VP, GRID), "eta": 1.0}, "unknown option"),
        ({"dtype": torch.float16}, "float32 or float64"),
        ({"callback": 3}, "give a function of a Point"),
        ({"analytic_first_step": None}, "True, False or a variance"),
        ({"solver": "annealed_langevin", "analytic_first_step": True}, "is no plan"),
        ({"start": torch.zeros(2, 2)}, "start has shape"),
        ({"seed": [1, 2, 3]}, "one for each sample"),
        ({"solver": "scipy", "progress": True}, r"own steps: leave out progress \("),
        ({"solver": "annealed_langevin", "progress": True}, "no plan: leave out progress$"),
        ({"solver": "torchdiffeq", "steps": 3}, r"own steps: leave out steps \("),
        ({"solver": lambda schedule, times: None}, "not a Plan"),
        ({"start": [[0.0]]}, "must be a tensor"),
        ({"solver": "scipy", "method": "RK54"}, "did you mean 'RK45'"),
        ({"solver": "torchdiffeq", "method": "dopri6"}, "did you mean 'dopri"),
        ({"solver": "torchdiffeq", "rtol": 0.0}, "must be positive"),
    ],
)
def test_bad_requests_are_refused_with_a_cure(options, words, denoiser):
    with pytest.raises((ValueError, TypeError), match=words):
        sd.sample(denoiser, (2, 3), **options)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (2.0, 3)])
def test_bad_shapes(shape, denoiser):
    with pytest.raises(ValueError, match="at least 1"):
        sd.sample(denoiser, shape)


def test_bad_states_and_networks_are_refused_with_a_cure(x, denoiser):
    plan = ddim(VP, GRID)
    cases = [
        (lambda: sd.run(plan, denoiser, x.long()), TypeError, "x.float"),
        (lambda: sd.run(plan, denoiser, x[:0]), ValueError, "empty batch"),
        (lambda: sd.run(plan, denoiser, x[0, 0]), ValueError, r"shape \(\): give one"),
        (lambda: sd.run(plan, denoiser, x / 0), ValueError, "not finite"),
        (lambda: sd.run(plan, denoiser, [1.0]), TypeError, "must be a tensor"),
        (lambda: sd.run(plan, NetworkDenoiser(Net().to("meta"), VP), x), ValueError, "move one"),
        (
            lambda: sd.run(plan, NetworkDenoiser(Net(), sd.SubVP()), x),
            ValueError,
            "was made for VPLinear",
        ),
        (
            lambda: sd.run(plan, NetworkDenoiser(lambda x, t: x[:, :1], VP), x),
            ValueError,
            "outputs=2",
        ),
        (lambda: sd.run(plan, lambda x, t: x[0], x), ValueError, "one number for each"),
        (lambda: sd.run(plan, lambda x, t: x[0], x, grad=True), ValueError, "one number for each"),
        (
            lambda: sd.run(plan, NetworkDenoiser(lambda x, t: {"sample": x}, VP), x),
            ValueError,
            "wrap it",
        ),
        (lambda: sd.sample(Net(), (2, 3)), TypeError, "say how to read the network"),
        (lambda: NetworkDenoiser(Net(), VP, "epsilon"), ValueError, "unknown prediction"),
        (lambda: NetworkDenoiser(Net(), VP, "nose"), ValueError, "did you mean 'noise'"),
        (lambda: NetworkDenoiser(Net(), VP, label="tiem"), ValueError, "did you mean 'time'"),
        (lambda: NetworkDenoiser(Net(), VP, label="timestep"), ValueError, "timesteps=1000"),
        (lambda: NetworkDenoiser(Net(), VP)(x, 1.5), ValueError, "outside"),
        (lambda: NetworkDenoiser(Net(), VP)(x, torch.tensor([1, 2])), TypeError, "continuous"),
        (lambda: NetworkDenoiser(Net(), VP, timesteps=-5), ValueError, "positive integer"),
        (lambda: sd.run("ddim", denoiser, x), TypeError, "needs a Plan"),
        (lambda: sd.run(plan, sd.FunctionDenoiser(lambda x, t: None, VP), x), ValueError, "wrap"),
        (
            lambda: sd.adaptive.scipy(sd.FunctionDenoiser(lambda x, t: x[:1], VP), x, [1.0, 0.1]),
            ValueError,
            "one number for each",
        ),
        (
            lambda: sd.adaptive.torchdiffeq(
                sd.FunctionDenoiser(lambda x, t: x * math.nan, VP), x, [1.0, 0.1]
            ),
            FloatingPointError,
            "gave up|not finite",
        ),
        (lambda: NetworkDenoiser(Net(), None), TypeError, "must be a Schedule"),
        (lambda: NetworkDenoiser(3, VP), TypeError, "must be callable"),
        (lambda: NetworkDenoiser(Net(), VP, sigma_data=-1), ValueError, "positive"),
        (
            lambda: sd.sample(NetworkDenoiser(Net(), sd.FlowMatching()), (2, 3), solver="ddim"),
            ValueError,
            "noise prediction says nothing of the data where alpha = 0",
        ),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


def test_flow_velocity_and_data_networks_start_from_pure_noise():
    """alpha = 0 at the first time is no trouble for them."""
    for prediction in ("flow", "velocity", "data"):
        denoiser = NetworkDenoiser(Net(), sd.FlowMatching(), prediction)
        assert torch.isfinite(sd.sample(denoiser, (2, 3), solver="ddim", steps=4, seed=0)).all()
