"""Averages of the weights against closed forms: of known paths, for every width."""

import math

import numpy as np
import pytest
import torch
from runs import Quadratic, fit, gaussian_data
from torch.optim.optimizer import register_optimizer_step_post_hook

from sde_diffusion.training import ConstantDecay, PowerFunction
from sde_diffusion.training.ema import WIDEST, Averages, as_average
from sde_diffusion.weights import load_weights

WIDTHS = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, WIDEST]


@pytest.mark.parametrize("sigma_rel", WIDTHS)
def test_gamma_has_the_width_asked_for(sigma_rel):
    # The variance of s in [0, 1] with density (gamma + 1) s^gamma, from its moments.
    gamma = PowerFunction(sigma_rel).gamma
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert math.sqrt(square - mean**2) == pytest.approx(sigma_rel, rel=1e-9)
    assert gamma >= 0


def test_widths_of_the_paper():
    # Karras et al. 2024, arXiv:2312.02696, section 3: 0.05 and 0.10 are gamma 16.97 and 6.94.
    assert PowerFunction(0.05).gamma == pytest.approx(16.97, abs=0.005)
    assert PowerFunction(0.10).gamma == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma_rel", WIDTHS)
def test_average_of_a_known_path(sigma_rel):
    # theta_n = n^2: the mean is the sum of n^2 (n^(gamma+1) - (n-1)^(gamma+1)) / N^(gamma+1), and
    # tends to N^2 (gamma+1)/(gamma+3); the start, 1e6, counts for nothing.
    theta = torch.full((2,), 1e6, dtype=torch.float64)
    averages = Averages([theta], [PowerFunction(sigma_rel)])
    last, power = 400, PowerFunction(sigma_rel).gamma + 1
    for n in range(1, last + 1):
        theta.fill_(n**2)
        averages.update(n)
    n = np.arange(1, last + 1) / last
    weights = n**power - (n - 1 / last) ** power
    got = float(averages.of(theta, 0)[0]) / last**2
    assert got == pytest.approx(float((weights * n**2).sum()), rel=1e-10)
    assert got == pytest.approx(power / (power + 2), rel=5 * power / last)


def test_narrow_averages_follow_and_the_widest_is_the_mean():
    theta = torch.zeros(1, dtype=torch.float64)
    averages = Averages([theta], [PowerFunction(w) for w in WIDTHS])
    for n in range(1, 101):
        theta.fill_(n)
        averages.update(n)
    means = [float(averages.of(theta, which)[0]) for which in range(len(WIDTHS))]
    assert means == sorted(means, reverse=True)
    assert means[-1] == pytest.approx(50.5, rel=1e-9)
    assert means[0] > 98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_averages_of_16_bit_weights_do_not_stall(dtype):
    """theta = 1, then 2: the average of the constant end is 2 to 1e-3, in steps below 16 bits."""
    theta = torch.ones(1, dtype=dtype)
    averages = Averages([theta], [ConstantDecay(0.9995), PowerFunction(0.05)])
    for n in range(1, 20001):
        theta.fill_(1 if n <= 2000 else 2)
        averages.update(n)
    for which in (0, 1):
        assert float(averages.of(theta, which)) == pytest.approx(2, abs=1e-3)


def test_a_16_bit_network_is_averaged_kept_and_resumed(tmp_path):
    task = Quadratic(1).bfloat16()
    whole = fit(task, gaussian_data(64), ema=(0.1,), steps=12, folder=tmp_path / "a")
    for steps in (7, 12):
        parts = fit(task, gaussian_data(64), ema=(0.1,), steps=steps, folder=tmp_path / "b")
    assert whole.network.weight.dtype == torch.bfloat16
    assert torch.equal(whole.network.weight, parts.network.weight)
    for folder in ("a", "b"):
        read = torch.nn.Linear(1, 1, bias=False).bfloat16()
        load_weights(read, tmp_path / folder)
        assert torch.equal(read.weight, whole.network.weight)


def test_constant_decay_is_its_recursion():
    theta = torch.tensor([2.0], dtype=torch.float64)
    averages, value = Averages([theta], [ConstantDecay(0.6)]), 2.0
    for n in range(1, 30):
        theta.fill_(math.sin(n))
        averages.update(n)
        beta = min(0.6, n / (n + 9))
        value = beta * value + (1 - beta) * math.sin(n)
    assert float(averages.of(theta, 0)) == pytest.approx(value, rel=1e-12)
    assert ConstantDecay(0.0).decay(7) == 0


def test_training_averages_the_path_of_its_weights():
    path, task = [], Quadratic(1)

    def note(optimizer, args, kwargs):
        path.append(float(optimizer.param_groups[0]["params"][0].detach()))

    hook = register_optimizer_step_post_hook(note)
    try:
        result = fit(task, gaussian_data(64), ema=(0.1, 0.2, ConstantDecay(0.5)), warm_up=0)
    finally:
        hook.remove()
    assert len(path) == 24
    assert np.ptp(path) > 0.01
    n = np.arange(1, 25) / 24
    for sigma_rel in (0.1, 0.2):
        power = PowerFunction(sigma_rel).gamma + 1
        expected = float(((n**power - (n - 1 / 24) ** power) * path).sum())
        weight = result.averages[f"sigma_rel {sigma_rel}"].weight
        assert float(weight) == pytest.approx(expected, abs=1e-6)
    value = 0.5
    for i, w in enumerate(path):
        beta = min(0.5, (i + 1) / (i + 10))
        value = beta * value + (1 - beta) * w
    assert float(result.averages["decay 0.5"].weight) == pytest.approx(value, abs=1e-6)
    assert result.network is result.averages["sigma_rel 0.1"]
    assert float(result.objective.network.weight.detach()) == path[-1]


def test_profiles_are_written_in_three_ways():
    assert as_average(0.1) == as_average({"sigma_rel": 0.1}) == PowerFunction(0.1)
    assert as_average({"decay": 0.999}) == ConstantDecay(0.999)
    for bad in (0.0, 0.3, float("nan"), 0.999):
        with pytest.raises(ValueError, match=r"sigma_rel = .*ConstantDecay\("):
            as_average(bad)
    with pytest.raises(ValueError, match=r"decay = 1"):
        ConstantDecay(1.0)
    with pytest.raises(ValueError, match="did you mean 'decay'"):
        as_average({"decays": 0.9})
