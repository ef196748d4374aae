"""Training against closed forms; stopping and resuming against never having stopped.

On Gaussian data x_0 ~ N(m, v) the best predictors are linear in x_t, with V = alpha^2 v + sigma^2:

    E[eps | x_t] = sigma (x_t - alpha m)/V,      E[x_0 | x_t] = m + alpha v (x_t - alpha m)/V,

and their mean squared errors are alpha^2 v/V and sigma^2 v/V.
"""

import copy
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sde_diffusion.networks import ResidualMLP
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.training import diffusion_loss, train
from sde_diffusion.weights import load_weights, save_weights

MEAN, VARIANCE = 0.7, 0.3
TARGETS = ["noise", "data", "velocity"]
SCHEDULES = [VPLinear(), SubVP(), VPCosine(), VE(), EDM(), FlowMatching()]


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C raises, also where the tests were started with it ignored (as background jobs are)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class BestPredictor(nn.Module):
    """The conditional mean of a target given x_t, on data N(MEAN, VARIANCE)."""

    def __init__(self, schedule, target):
        super().__init__()
        self.schedule, self.target = schedule, target

    def forward(self, x, t):
        alpha_t, sigma_t = (torch.as_tensor(c).reshape(-1, 1) for c in self.schedule(t))
        centred = (x - alpha_t * MEAN) / (alpha_t**2 * VARIANCE + sigma_t**2)
        noise, clean = sigma_t * centred, MEAN + alpha_t * VARIANCE * centred
        return {"noise": noise, "data": clean, "velocity": alpha_t * noise - sigma_t * clean}[
            self.target
        ]


class Converted(nn.Module):
    """A noise predictor read as a predictor of another target."""

    def __init__(self, network, schedule, target):
        super().__init__()
        self.network, self.schedule, self.target = network, schedule, target

    def forward(self, x, t):
        alpha_t, sigma_t = (c.reshape(-1, 1, 1) for c in self.schedule(t))
        eps = self.network(x, t)
        clean = (x - sigma_t * eps) / alpha_t
        return {"noise": eps, "data": clean, "velocity": alpha_t * eps - sigma_t * clean}[
            self.target
        ]


def perturbed(network, seed=0):
    """Random weights everywhere: a new network answers zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return network


def gaussian_data(n=1024):
    """The n quantiles of N(MEAN, VARIANCE) at (i + 1/2)/n, shape (n, 1)."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (MEAN + VARIANCE**0.5 * torch.special.ndtri(p)).float()[:, None]


def bits(network):
    return [value.numpy().tobytes() for value in network.state_dict().values()]


# The loss


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_loss_of_the_best_predictor_on_gaussian_data(schedule, target):
    # The four sign pairs have the moments of independent normals up to the second, and the
    # squared error of a linear predictor is quadratic: the mean over them is the expectation.
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=torch.float64)
    x_0, eps = MEAN + VARIANCE**0.5 * signs[:, :1], signs[:, 1:]
    for part in (0.05, 0.4, 0.95):
        time = schedule.t_clean + part * (schedule.t_max - schedule.t_clean)
        t = torch.full((4,), time, dtype=torch.float64)
        loss = diffusion_loss(BestPredictor(schedule, target), schedule, x_0, t, eps, target)
        alpha_t, sigma_t = (float(c) for c in schedule(time))
        total = alpha_t**2 * VARIANCE + sigma_t**2
        expected = {
            "noise": alpha_t**2 * VARIANCE / total,
            "data": sigma_t**2 * VARIANCE / total,
            "velocity": (alpha_t**2 + sigma_t**2) ** 2 * VARIANCE / total,
        }[target]
        assert float(loss) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_errors_in_the_three_targets_are_proportional(schedule):
    generator = torch.Generator().manual_seed(1)
    network = perturbed(ResidualMLP((2, 3), width=8, depth=2)).double()
    x_0, eps = torch.randn((2, 5, 2, 3), generator=generator, dtype=torch.float64)
    for part in (0.1, 0.5, 0.9):
        t = torch.full((5,), schedule.t_clean + part * (schedule.t_max - schedule.t_clean)).double()
        noise, data, velocity = (
            diffusion_loss(Converted(network, schedule, k), schedule, x_0, t, eps, k).item()
            for k in TARGETS
        )
        alpha_t, sigma_t = (float(c) for c in schedule(float(t[0])))
        assert noise == pytest.approx((alpha_t / sigma_t) ** 2 * data, rel=1e-9)
        assert velocity == pytest.approx(
            ((alpha_t**2 + sigma_t**2) / sigma_t) ** 2 * data, rel=1e-9
        )


def test_scales_are_taken_in_float64():
    # Half precision has 11 bits: 1 - 1e-4 rounds to 1, and sigma would be 0 if computed there.
    seen = []

    class Recorder(nn.Module):
        def forward(self, x, t):
            seen.append((x, t))
            return torch.zeros_like(x)

    t = torch.tensor([1e-4, 1 / 3], dtype=torch.float64)
    x_0, eps = torch.zeros(2, 1, dtype=torch.float16), torch.ones(2, 1, dtype=torch.float16)
    diffusion_loss(Recorder(), VPLinear(), x_0, t, eps)
    ((x_t, label),) = seen
    assert torch.equal(x_t[:, 0], VPLinear().sigma(t).half())
    assert x_t.dtype == torch.float16
    assert label.dtype == torch.float32
    assert torch.equal(label, t.float())


# Training


@pytest.mark.parametrize("target", TARGETS)
def test_training_approaches_the_best_predictor(target):
    schedule, data = VPLinear(), gaussian_data()
    network = ResidualMLP((1,), width=32, depth=1)
    before = bits(network)
    call = {"steps": 400, "batch_size": 128, "learning_rate": 5e-3, "ema_decay": 0.98}
    result = train(network, data, schedule, **call, target=target)
    assert bits(network) == before, "the network given is left as it was"
    assert result.step == len(result.losses) == 400

    # Mean squared distance to the best predictor, over t and x_t (Gauss-Hermite).
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    best = BestPredictor(schedule, target)

    def distance(model):
        total = 0.0
        for time in torch.linspace(0.05, 1.0, 20, dtype=torch.float64):
            alpha_t, sigma_t = schedule(time)
            x = alpha_t * MEAN + (alpha_t**2 * VARIANCE + sigma_t**2).sqrt() * nodes[:, None]
            t = time.expand(len(x))
            with torch.no_grad():
                gap = model(x.float(), t.float()).double() - best(x, t)
            total += float((weights * gap[:, 0] ** 2).sum()) / 20
        return total

    assert distance(network) > 0.25
    assert distance(result.network) < 0.01

    # The loss itself ends at its least value, E_t of the best predictor's error.
    t = torch.linspace(1e-3, 1, 2001, dtype=torch.float64)
    alpha_t, sigma_t = schedule(t)
    total = alpha_t**2 * VARIANCE + sigma_t**2
    error = {"noise": alpha_t**2, "data": sigma_t**2, "velocity": torch.ones_like(t)}[target]
    least = float((error * VARIANCE / total).mean())
    late = result.losses[-200:]
    assert abs(float(late.mean()) - least) < 4 * float(late.std()) / 200**0.5 + 0.01


def test_average_of_the_weights_is_its_recursion():
    network = perturbed(ResidualMLP((1,), width=6, depth=1))
    run = lambda steps, decay: (
        train(
            network,
            gaussian_data(64),
            VPLinear(),
            steps=steps,
            batch_size=16,
            learning_rate=0.1,
            ema_decay=decay,
        ).network
    )
    flat = lambda module: torch.cat([p.detach().flatten() for p in module.parameters()]).double()
    # Without averaging the result is the last iterate: w_1, w_2, ... one by one.
    iterates = [flat(network)] + [flat(run(n, 0.0)) for n in range(1, 9)]
    average, weight = iterates[0], 1.0
    for n, iterate in enumerate(iterates[1:]):
        decay = min(0.35, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * iterate
        weight *= decay
    torch.testing.assert_close(flat(run(8, 0.35)), average, rtol=0, atol=1e-6)
    assert weight < 1e-4, "the random start is forgotten"
    assert (average - iterates[-1]).abs().max() > 1e-3, "averaging must show"


def test_times_are_stratified_between_clean_and_noisy():
    seen = []

    class Recorder(ResidualMLP):
        def forward(self, x, t):
            seen.append(t.double())
            return super().forward(x, t)

    schedule = FlowMatching()
    train(Recorder((1,), 4, 1), gaussian_data(16), schedule, steps=50, batch_size=8)
    t = torch.stack(seen)
    assert t.min() >= schedule.t_clean * (1 - 1e-6)
    assert t.max() <= schedule.t_max
    part = (t - schedule.t_clean) / (schedule.t_max - schedule.t_clean)
    assert torch.equal((part.sort(dim=1)[0] * 8).floor(), torch.arange(8.0).double().expand(50, 8))
    assert 0.4 < float((part * 8 % 1)[:, 0].mean()) < 0.6, "the offset is uniform in its stratum"


def test_global_random_state_is_neither_read_nor_moved():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        network = ResidualMLP((1,), 4, 1)
        results.append(train(network, gaussian_data(16), VPLinear(), steps=5, batch_size=4))
        assert torch.equal(state, torch.get_rng_state())
    assert bits(results[0].network) == bits(results[1].network)
    other = train(network, gaussian_data(16), VPLinear(), steps=5, batch_size=4, seed=1)
    assert not torch.equal(other.losses, results[0].losses)


# Stopping and resuming


CALL = {"steps": 24, "batch_size": 8, "checkpoint_every": 5}


class Stopping(ResidualMLP):
    """Raises, or sends a real Ctrl-C, inside chosen forward passes."""

    stops: list = []  # noqa: RUF012
    calls = 0

    def forward(self, x, t):
        Stopping.calls += 1
        if Stopping.calls in Stopping.stops:
            signal.raise_signal(signal.SIGINT)
        return super().forward(x, t)


@pytest.mark.parametrize("stops", [[1], [24], [3, 4], [7, 14, 15]], ids=str)
def test_interrupted_training_ends_with_the_same_bits(tmp_path, stops):
    network, data = Stopping((1,), width=8, depth=2), gaussian_data(64)
    Stopping.calls, Stopping.stops = 0, []
    whole = train(network, data, VPLinear(), **CALL, checkpoint=tmp_path / "whole")

    Stopping.calls, Stopping.stops = 0, stops
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            train(network, data, VPLinear(), **CALL, checkpoint=tmp_path / "parts")
        assert sorted(os.listdir(tmp_path)) == ["parts", "whole"]
    parts = train(network, data, VPLinear(), **CALL, checkpoint=tmp_path / "parts")
    assert Stopping.calls == 24 + len(stops), "no step is repeated but those broken off"
    assert torch.equal(parts.losses, whole.losses)
    assert bits(parts.network) == bits(whole.network)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_interrupt_in_the_middle_of_an_update_waits_for_its_end(tmp_path):
    network, data = ResidualMLP((1,), width=8, depth=2), gaussian_data(64)
    whole = train(network, data, VPLinear(), **CALL)
    updates = []

    def strike(optimizer, args, kwargs):
        updates.append(1)
        if len(updates) in (1, 9, 24):
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    hook = register_optimizer_step_post_hook(strike)
    try:
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                train(network, data, VPLinear(), **CALL, checkpoint=tmp_path / "c")
    finally:
        hook.remove()
    assert signal.getsignal(signal.SIGINT) is handler
    parts = train(network, data, VPLinear(), **CALL, checkpoint=tmp_path / "c")
    assert len(updates) == 24
    assert torch.equal(parts.losses, whole.losses)
    assert bits(parts.network) == bits(whole.network)


def test_more_steps_train_further(tmp_path):
    network, data = ResidualMLP((1,), width=8, depth=2), gaussian_data(64)
    whole = train(network, data, VPLinear(), **CALL)
    train(network, data, VPLinear(), **{**CALL, "steps": 11}, checkpoint=tmp_path / "c")
    further = train(network, data, VPLinear(), **CALL, checkpoint=tmp_path / "c")
    assert bits(further.network) == bits(whole.network)
    with pytest.raises(ValueError, match="step 24 > steps = 11"):
        train(network, data, VPLinear(), **{**CALL, "steps": 11}, checkpoint=tmp_path / "c")


def test_training_outside_the_main_thread():
    results = []
    job = lambda: results.append(
        train(ResidualMLP((1,), 4, 1), gaussian_data(16), VPLinear(), steps=3, batch_size=4)
    )
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    job()
    assert torch.equal(results[0].losses, results[1].losses)


# Files


@pytest.fixture
def saved(tmp_path):
    """(network, data, path) of a run stopped by its number of steps."""
    network, data, path = ResidualMLP((1,), 8, 1), gaussian_data(64), tmp_path / "run.safetensors"
    train(network, data, VPLinear(), **{**CALL, "steps": 6}, checkpoint=path)
    return network, data, path


def resume(network, data, path, schedule=None, **changes):
    return train(network, data, schedule or VPLinear(), **{**CALL, **changes}, checkpoint=path)


def test_damaged_files_are_named_and_left_alone(saved):
    network, data, path = saved
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    flipped = lambda i: good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :]
    step = good.index(b"step") + len(b'step\\": ')
    damaged = [good[:n] for n in (0, 7, 8, 100, header + 8, len(good) - 1)]
    damaged += [flipped(i) for i in (0, 20, step, header + 20, len(good) - 1)]
    damaged += [b"\x80\x04pickled", b"text, and rather a lot of it"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.safetensors .*delete it"):
            resume(network, data, path)
        with pytest.raises(ValueError, match=r"run\.safetensors .*delete it"):
            load_weights(network, path)
        assert path.read_bytes() == content
    path.write_bytes(good)
    resume(network, data, path)


def test_foreign_files_are_refused(saved):
    network, data, path = saved
    save_file(network.state_dict(), path)
    with pytest.raises(ValueError, match="not written by this library"):
        resume(network, data, path)
    save_weights(network, path)
    with pytest.raises(
        ValueError, match=r"is a sde_diffusion\.weights/1, not a sde_diffusion\.training/1"
    ):
        resume(network, data, path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schedule": VPLinear(beta_max=19.0)}, r"schedule: VPLinear\(beta_min=0.1, beta_max=20.0"),
        ({"network": ResidualMLP((1,), 9, 1)}, r"enter.weight: torch.float32 \(8, 1\) in the file"),
        ({"network": ResidualMLP((1,), 8, 2)}, "blocks.1.expand.bias: None in the file"),
        ({"data": gaussian_data(65)}, "data: torch.float32"),
        ({"data": -gaussian_data(64)}, "data: torch.float32"),
        ({"target": "data"}, "target: noise in the file, data asked"),
        ({"learning_rate": 2e-3}, "learning_rate: 0.001 in the file, 0.002 asked"),
        ({"batch_size": 9}, "batch_size: 8"),
        ({"ema_decay": 0.5}, "ema_decay: 0.999"),
        ({"seed": 1}, "seed: 0 in the file, 1 asked"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_checkpoint_of_another_run_is_refused(saved, change, named):
    network, data, path = saved
    before = path.read_bytes()
    arguments = {"network": network, "data": data, "path": path} | change
    with pytest.raises(ValueError, match=named):
        resume(**arguments)
    assert path.read_bytes() == before


def test_failed_write_leaves_the_old_file(saved):
    network, data, path = saved
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as on a disk that is full
    try:
        with pytest.raises(OSError):
            resume(network, data, path)
        with pytest.raises(OSError):
            save_weights(network, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    resume(network, data, path)


def test_weights_make_a_round_trip(saved, tmp_path):
    network, data, path = saved
    result = resume(network, data, path)
    save_weights(result.network, tmp_path / "w", {"dataset": "quantiles", "held out": 0.25})
    fresh = ResidualMLP((1,), 8, 1, seed=5)
    assert load_weights(fresh, tmp_path / "w") == {"dataset": "quantiles", "held out": 0.25}
    assert bits(fresh) == bits(result.network)
    fresh = ResidualMLP((1,), 8, 1, seed=5)
    assert load_weights(fresh, path)["step"] == 24, "a checkpoint serves, with its averages"
    assert bits(fresh) == bits(result.network)
    other = ResidualMLP((1,), 9, 1)
    before = bits(copy.deepcopy(other))
    with pytest.raises(ValueError, match=r"network enter\.weight"):
        load_weights(other, path)
    assert bits(other) == before


def test_optional_packages_are_imported_late_and_missed_politely():
    program = """
import sys
import sde_diffusion.training as training, sde_diffusion.networks as networks, torch
assert not {"safetensors", "rich"} & set(sys.modules)
sys.modules["safetensors"] = sys.modules["rich"] = None
from sde_diffusion.schedules import VPLinear
for extra in ({"checkpoint": "never-written"}, {"progress": True}):
    try:
        training.train(networks.ResidualMLP((1,), 4, 1), torch.zeros(2, 1), VPLinear(), steps=1,
                       **extra)
    except ImportError as error:
        assert "pip install 'sde_diffusion[bench]'" in str(error)
    else:
        raise AssertionError(extra)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Bad input


def test_bad_arguments_say_what_to_write():
    network, data = ResidualMLP((1,), 4, 1), gaussian_data(8)
    call = lambda data=data, **kw: train(network, data, VPLinear(), **{"steps": 2, **kw})
    with pytest.raises(ValueError, match="did you mean 'velocity'"):
        call(target="velocty")
    with pytest.raises(ValueError, match="did you mean 'noise'"):
        diffusion_loss(network, VPLinear(), data, torch.ones(8), data, "Noise")
    with pytest.raises(TypeError, match=r"torch.uint8.*\.float\(\)"):
        call(torch.zeros(4, 1, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"x_0 has dtype torch\.int64"):
        diffusion_loss(network, VPLinear(), torch.zeros(4, 1).long(), torch.ones(4), data[:4])
    with pytest.raises(ValueError, match="finite"):
        call(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match="one sample or more"):
        call(torch.zeros(0, 1))
    for bad in ({"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"ema_decay": 1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            call(**bad)
    with pytest.raises(ValueError, match="one time for each sample"):
        diffusion_loss(network, VPLinear(), data, torch.ones(7), data)
    with pytest.raises(ValueError, match="answered"):
        diffusion_loss(lambda x, t: torch.cat([x, x], 1), VPLinear(), data, torch.ones(8), data)


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path):
    class Overflowing(ResidualMLP):
        calls = 0

        def forward(self, x, t):
            Overflowing.calls += 1
            return super().forward(x, t) * (float("inf") if Overflowing.calls == 8 else 1.0)

    path = tmp_path / "c"
    with pytest.raises(FloatingPointError, match=r"at step 7: lower learning_rate = 0\.001"):
        train(Overflowing((1,), 4, 1), gaussian_data(8), VPLinear(), **CALL, checkpoint=path)
    assert load_weights(ResidualMLP((1,), 4, 1), path)["step"] == 5, "the last good checkpoint"


# The network


@pytest.mark.parametrize("event_shape", [(), (3,), (2, 5), (1, 8, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_keeps_shape_and_treats_samples_alone(event_shape, dtype):
    generator = torch.Generator().manual_seed(2)
    network = perturbed(ResidualMLP(event_shape, width=16, depth=2)).to(dtype)
    x = torch.randn((4, *event_shape), generator=generator, dtype=dtype)
    t = torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=dtype)
    with torch.no_grad():
        out = network(x, t)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(4)])
        assert network(x[:0], t[:0]).shape == (0, *event_shape)
    assert out.shape == x.shape
    assert out.dtype == dtype
    torch.testing.assert_close(alone, out)


def test_time_is_told_apart_and_continuous():
    # Times a thousandth apart differ, and the answer has a slope there: |jump| <= L |dt|.
    network = perturbed(ResidualMLP((1,), width=16, depth=2)).double()
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    with torch.no_grad():
        coarse = network(torch.ones(1001, 1).double(), t)[:, 0].diff().abs()
        fine = network(torch.ones(1001, 1).double(), t[500] + (t - 0.5) * 1e-6)[:, 0].diff().abs()
    assert (coarse > 0).all()
    assert fine.max() < 1e-5 * coarse.max()


def test_sixteen_bit_networks_do_not_round_the_time():
    network = ResidualMLP((1,), width=8, depth=1)
    t = torch.tensor([0.5, 0.5001])  # the same number in bfloat16
    exact, rounded = network.time(t), network.bfloat16().time(t)
    assert not torch.equal(rounded[0], rounded[1])
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.02)


def test_network_errors():
    network = ResidualMLP((1, 8, 8), width=8, depth=1)
    with pytest.raises(ValueError, match=r"reshape x, or build ResidualMLP\(\(64,\)"):
        network(torch.zeros(2, 64), torch.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        network(torch.zeros(2, 1, 8, 8), torch.tensor(0.5))
    with pytest.raises(TypeError, match=r"i / N"):
        network(torch.zeros(2, 1, 8, 8), torch.tensor([10, 20]))
    with pytest.raises(ValueError, match="at least 1"):
        ResidualMLP((1, 0), width=8)
