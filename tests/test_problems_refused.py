"""What test problems refuse: bad laws, bad states, and a score where there is no density."""

import math

import pytest
import torch
from laws import PROBLEMS, close, eye

from sde_diffusion.problems import DataSet, Gaussian, GaussianMixture, ring, spectrum_mixture
from sde_diffusion.schedules import FlowMatching

EYE = eye(2)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: Gaussian([[0.0]], 1.0), ValueError, "do not agree"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 1.0, 1.0]), ValueError, "do not agree"),
        (lambda: Gaussian([0.0, math.nan], 1.0), ValueError, "not finite"),
        (lambda: Gaussian([0.0], -1.0), ValueError, "positive semidefinite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), ValueError, "symmetric"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), ValueError, "semidefinite"),
        (lambda: Gaussian(torch.tensor([0, 1]), 1.0), TypeError, "double"),
        (lambda: GaussianMixture([1.0], [0.0], [1.0]), ValueError, "do not agree"),
        (lambda: GaussianMixture([1.0], EYE, [1.0, 1.0]), ValueError, "do not agree"),
        (lambda: GaussianMixture([0.5, 0.5], EYE, [1.0]), ValueError, "do not agree"),
        (lambda: GaussianMixture([0.5, 0.4], EYE, [1.0, 1.0]), ValueError, "sum to 1"),
        (lambda: GaussianMixture([1.5, -0.5], EYE, [1.0, 1.0]), ValueError, "non-negative"),
        (lambda: GaussianMixture([0.5, 0.5], EYE, [1.0, -1.0]), ValueError, "semidefinite"),
        (lambda: GaussianMixture([0.5, 0.5], EYE, [1.0, math.inf]), ValueError, "not finite"),
        (lambda: GaussianMixture([0.5, 0.5], EYE.int(), [1.0, 1.0]), TypeError, "double"),
        (lambda: DataSet(torch.zeros(0, 3)), ValueError, "no data"),
        (lambda: DataSet(torch.tensor([[math.inf]])), ValueError, "not finite"),
        (lambda: DataSet(EYE.int()), TypeError, "double"),
        (lambda: DataSet(EYE, -0.1), ValueError, "smoothing"),
        (lambda: DataSet(EYE, math.nan), ValueError, "smoothing"),
        (lambda: ring(0), ValueError, "modes"),
        (lambda: ring(8, 1), ValueError, "dimension"),
        (lambda: spectrum_mixture(0), ValueError, "components"),
    ],
)
def test_bad_problem_is_refused(build, error, words):
    with pytest.raises(error, match=words):
        build()


@pytest.mark.parametrize(
    ("x", "alpha", "sigma", "error", "words"),
    [
        (EYE.int(), 1.0, 1.0, TypeError, "float32 or float64"),
        (EYE.half(), 1.0, 1.0, TypeError, "float32 or float64"),
        ([[0.0, 0.0]], 1.0, 1.0, TypeError, "list"),
        (EYE[0], 1.0, 1.0, ValueError, "event shape"),
        (EYE[:, :1], 1.0, 1.0, ValueError, "event shape"),
        (EYE, -1.0, 1.0, ValueError, "non-negative"),
        (EYE, 1.0, math.nan, ValueError, "finite"),
        (EYE, 1.0, math.inf, ValueError, "finite"),
        (EYE, 0.0, 0.0, ValueError, "nothing of x"),
        (EYE, 1.0, torch.ones(3), ValueError, "batch 2"),
        (EYE, 1.0, torch.ones(2, 1), ValueError, "batch 2"),
        (EYE, "1", 1.0, TypeError, "alpha"),
        (EYE, 1.0, torch.tensor([1.0, -1.0]), ValueError, "non-negative"),
    ],
)
@pytest.mark.parametrize("method", ["denoised", "score", "noise", "log_prob", "covariance"])
def test_bad_state_or_scale_is_refused(method, x, alpha, sigma, error, words):
    for problem in (PROBLEMS["gaussian-number"], ring(), DataSet(EYE, 0.1)):
        with pytest.raises(error, match=words):
            getattr(problem, method)(x, alpha, sigma)


@pytest.mark.parametrize("method", ["denoised", "score", "noise", "log_prob", "covariance"])
def test_no_score_where_there_is_no_density(method):
    flat = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    mixed = GaussianMixture([0.5, 0.5], EYE, [1.0, 0.0])
    for problem in (DataSet(EYE), Gaussian([0.0, 0.0], flat), mixed):
        with pytest.raises(ValueError, match="no density"):
            getattr(problem, method)(EYE, 1.0, 0.0)
        with pytest.raises(ValueError, match="no density"):
            getattr(problem, method)(EYE, 1.0, torch.tensor([0.5, 0.0]))
        assert torch.isfinite(getattr(problem, method)(EYE, 1.0, 0.1)).all()
    with pytest.raises(ValueError, match="no density"):
        DataSet(EYE).endpoint(EYE, FlowMatching(), 1.0, 0.0)
    with pytest.raises(ValueError, match="no density"):
        Gaussian([0.0, 0.0], flat).endpoint(EYE, FlowMatching(), 0.0, 1.0)


def test_a_component_of_weight_zero_is_no_part_of_the_law():
    with_none = GaussianMixture([1.0, 0.0], EYE, [0.5, 0.0])
    close(with_none.score(EYE, 1.0, 0.0), Gaussian(EYE[0], 0.5).score(EYE, 1.0, 0.0), 1e-14)


@pytest.mark.parametrize(
    ("x", "times", "options", "words"),
    [
        (EYE, [], {}, "empty"),
        (EYE, [1.0, -0.1], {}, "outside"),
        (EYE, [1.5, 0.0], {}, "outside"),
        (EYE, [1.0, math.nan], {}, "outside"),
        (EYE, [1.0, 0.5], {"rtol": 0.0}, "positive"),
        (EYE, [1.0, 0.5], {"atol": math.inf}, "positive"),
        (EYE * math.nan, [1.0, 0.5], {}, "not finite"),
        (EYE[:, :1], [1.0, 0.5], {}, "event shape"),
    ],
)
def test_bad_trajectory_is_refused(x, times, options, words):
    with pytest.raises(ValueError, match=words):
        ring().trajectory(x, FlowMatching(), times, **options)


def test_at_least_one_sample_is_drawn():
    with pytest.raises(ValueError, match="at least one"):
        ring().sample(0)
