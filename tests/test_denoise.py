"""Denoisers: one network, whatever it predicts and however it is told the time."""

import math

import pytest
import torch
from models import DOUBLE, GRID, PROBLEM, VP, Net

import sde_diffusion as sd
from sde_diffusion.denoise import NetworkDenoiser
from sde_diffusion.solvers import ddim

SCHEDULES = [VP, sd.SubVP(), sd.EDM(), sd.FlowMatching(), sd.VPCosine(), sd.ddpm_linear()]


def exact_output(prediction, schedule, sigma_data):
    """The perfect network of each kind for the ring: what it would be trained to return."""

    def network(x, label):
        t = float(label[0])
        alpha_t, sigma_t = schedule(t)
        if prediction == "edm":
            rho = sigma_t / alpha_t
            total = rho**2 + sigma_data**2
            y = x * math.sqrt(total)  # undo c_in: the network sees c_in x / alpha
            d = PROBLEM.denoised(y * alpha_t, alpha_t, sigma_t)
            return (d - sigma_data**2 / total * y) / (rho * sigma_data / math.sqrt(total))
        d, eps = PROBLEM.denoised(x, alpha_t, sigma_t), PROBLEM.noise(x, alpha_t, sigma_t)
        alpha_dot, sigma_dot = sd.Schedule.derivatives(schedule, t)
        return {
            "data": d,
            "noise": eps,
            "velocity": alpha_t * eps - sigma_t * d,
            "flow": alpha_dot * d + sigma_dot * eps,
            "score": PROBLEM.score(x, alpha_t, sigma_t),
        }[prediction]

    return network


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("prediction", ["data", "noise", "velocity", "flow", "score", "edm"])
def test_every_prediction_is_the_same_denoiser(prediction, schedule):
    """x_0, noise, score and velocity from any network equal the closed forms."""
    network = exact_output(prediction, schedule, 0.6)
    denoiser = NetworkDenoiser(network, schedule, prediction, label=lambda t: t, sigma_data=0.6)
    for lambda_ in (-2.0, 0.0, 2.0):
        t = schedule.time_of(lambda_)
        alpha_t, sigma_t = schedule(t)
        x = PROBLEM.sample_marginal(16, alpha_t, sigma_t, torch.Generator().manual_seed(1))
        d, eps = PROBLEM.denoised(x, alpha_t, sigma_t), PROBLEM.noise(x, alpha_t, sigma_t)
        close = {"rtol": 1e-8, "atol": 1e-8}
        torch.testing.assert_close(denoiser(x, t), d, **close)
        function, scale, _ = denoiser.bind([t], x)[0]
        torch.testing.assert_close(scale * function(x, torch.empty_like(x)), d, **close)
        torch.testing.assert_close(denoiser.noise(x, t), eps, **close)
        torch.testing.assert_close(
            denoiser.score(x, t), PROBLEM.score(x, alpha_t, sigma_t), **close
        )
        torch.testing.assert_close(denoiser.velocity(x, t), alpha_t * eps - sigma_t * d, **close)


@pytest.mark.parametrize("prediction", ["data", "noise", "velocity", "flow", "score", "edm"])
def test_one_time_a_sample_equals_one_by_one(prediction):
    denoiser = NetworkDenoiser(Net((2, 2)), VP, prediction)
    x = torch.randn(4, 2, 2)
    t = torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=DOUBLE)
    together = denoiser(x, t)
    apart = torch.cat([denoiser(x[i : i + 1], float(t[i])) for i in range(4)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def labels_of(label, schedule, times, **options):
    seen = []

    def network(x, label):
        seen.append(label)
        return torch.zeros_like(x)

    denoiser = NetworkDenoiser(network, schedule, "data", label=label, **options)
    for call in denoiser.bind(times, torch.zeros(2, 3)):
        call.function(torch.zeros(2, 3), None)
    assert all(value.shape == (2,) for value in seen)
    return torch.stack(seen)[:, 0]


def test_labels_say_the_time_in_every_language():
    times = [0.9, 0.5, 0.1]
    rho = [VP.rho(t) for t in times]
    assert labels_of("time", VP, times).tolist() == pytest.approx(times)
    assert labels_of("sigma", VP, times).tolist() == pytest.approx(rho, rel=1e-6)
    log_snr = [-2 * math.log(r) for r in rho]
    assert labels_of("log_snr", VP, times).tolist() == pytest.approx(log_snr, rel=1e-6)
    quarter = [math.log(r) / 4 for r in rho]
    assert labels_of("edm", VP, times).tolist() == pytest.approx(quarter, rel=1e-6)
    assert labels_of(lambda t: 999 * t, VP, times).tolist() == pytest.approx([899.1, 499.5, 99.9])
    table = sd.ddpm_linear()
    grid = sd.times.from_timesteps(table, [999, 500, 1]).tolist()[:-1]
    integers = labels_of("timestep", table, grid)
    assert integers.dtype == torch.int64
    assert integers.tolist() == [999, 500, 1]
    fractional = labels_of("fractional_timestep", VP, times, timesteps=1000)
    assert fractional.tolist() == pytest.approx([899.0, 499.0, 99.0], rel=1e-6)


def test_timestep_labels_stay_in_the_table():
    table = sd.ddpm_linear()
    assert labels_of("timestep", table, [1.0, 0.0004, 0.0]).tolist() == [999, 0, 0]
    assert labels_of(lambda t: (10 * t).long(), table, [0.9]).dtype == torch.int64


def test_half_precision_network_keeps_a_float32_state():
    denoiser = NetworkDenoiser(Net(dtype=torch.bfloat16), VP)
    x = torch.randn(4, 3)
    y = sd.run(ddim(VP, GRID), denoiser, x)
    assert y.dtype == torch.float32
    assert sd.run(ddim(VP, GRID), denoiser, x.bfloat16()).dtype == torch.float32
    assert sd.run(ddim(VP, GRID), denoiser, x.double()).dtype == DOUBLE


def test_wrapped_networks_may_be_cast_later_or_hidden_in_a_lambda(x):
    net = Net()
    denoiser = NetworkDenoiser(net, VP)
    net.to(torch.bfloat16)
    assert sd.run(ddim(VP, GRID), denoiser, x).dtype == torch.float32
    hidden = NetworkDenoiser(lambda x, t: net(x, t), VP, dtype=torch.bfloat16)
    assert torch.equal(sd.run(ddim(VP, GRID), hidden, x), sd.run(ddim(VP, GRID), denoiser, x))


@pytest.mark.parametrize("prediction", ["data", "noise", "velocity", "score", "edm"])
def test_predictions_hold_where_alpha_is_tiny(prediction):
    """alpha = 1e-44 at the start: the run is finite and equals the denoiser asked with a tensor."""
    schedule = sd.VPLinear(0.1, 400.0)
    denoiser = NetworkDenoiser(lambda x, t: 0.1 * x, schedule, prediction)
    x = torch.randn(3, 2, dtype=DOUBLE)
    for t in (1.0, 0.5, 0.1):
        by_tensor = denoiser(x, torch.tensor(t, dtype=DOUBLE))
        torch.testing.assert_close(denoiser(x, t), by_tensor, rtol=1e-9, atol=1e-9)
