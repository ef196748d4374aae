"""Stopping and resuming against never having stopped; files that are damaged, foreign or late."""

import multiprocessing
import os
import random
import resource
import signal
import threading
import time

import pytest
import torch
from runs import MORE, Dropping, begin, bits, contents, die_within, dropping, fit, gaussian_data
from runs import objective as plain
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from sde_diffusion import NetworkDenoiser, VPLinear
from sde_diffusion.networks import DiT, ResidualMLP
from sde_diffusion.training import DiffusionObjective, checkpoints, latest
from sde_diffusion.weights import load_weights, save_weights

WAYS = {
    "plain": {},
    "parts": {"accumulate": 4},
    "bf16": {"mixed_precision": "bf16"},
    "no clip, three averages": {"clip": None, "ema": (0.2, 0.05, {"decay": 0.9})},
}


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C raises, also where the tests were started with it ignored (as background jobs are)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Strike:
    """Sends a real Ctrl-C from within chosen updates."""

    def __init__(self, *steps):
        self.steps, self.count = steps, 0

    def __call__(self, optimizer, args, kwargs):
        self.count += 1
        if self.count in self.steps:
            os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self):
        self.hook = register_optimizer_step_post_hook(self)
        return self

    def __exit__(self, *error):
        self.hook.remove()


@pytest.mark.parametrize("way", WAYS)
def test_interrupted_training_ends_with_the_same_bits(tmp_path, way, capsys):
    whole = fit(dropping(), folder=tmp_path / "whole", **WAYS[way])
    stops = (1, 9, 10, 24)
    handler = signal.getsignal(signal.SIGINT)
    with Strike(*stops) as strike:
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                fit(dropping(), folder=tmp_path / "parts", **WAYS[way])
            assert f"stopped at step {stop} of 24; saved in" in capsys.readouterr().err
            assert latest(tmp_path / "parts").name == f"step-{stop:09d}.safetensors"
        assert signal.getsignal(signal.SIGINT) is handler
        parts = fit(dropping(), folder=tmp_path / "parts", **WAYS[way])
    assert strike.count == int(parts.objective.steps) == 24, "no step is repeated"
    assert torch.equal(parts.losses, whole.losses)
    assert bits(parts.objective) == bits(whole.objective)
    assert [bits(a) for a in parts.averages.values()] == [bits(a) for a in whole.averages.values()]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    unseen = fit(dropping(), **WAYS[way])
    assert torch.equal(unseen.losses, whole.losses), "a folder changes nothing"


def reached(folder):
    """The step of the last checkpoint, 0 before the first."""
    return max((int(path.stem.removeprefix("step-")) for path in checkpoints(folder)), default=0)


def test_killed_training_ends_with_the_same_bits(tmp_path):
    """A process killed at random moments leaves files that another goes on from, to the bit."""
    options = {"steps": 90, "checkpoint_every": 3, "accumulate": 2, "tensorboard": False}
    fit(dropping(), folder=tmp_path / "whole", **options)
    context = multiprocessing.get_context("forkserver")
    slow = ["torch._dynamo", "accelerate", "sde_diffusion", "safetensors.torch"]
    context.set_forkserver_preload(slow)  # imported once, by the server
    moments, killed = random.Random(0), 0
    for _ in range(40):  # each is killed after one to six checkpoints, of 30 in all
        process = context.Process(target=begin, args=(tmp_path / "parts", options))
        enough = reached(tmp_path / "parts") + 3 * moments.randint(1, 6)
        process.start()
        while process.is_alive() and reached(tmp_path / "parts") < enough:
            time.sleep(0.001)
        if not die_within(process, moments.uniform(0, 0.02)):
            break
        killed += 1
    assert process.exitcode == 0
    assert killed >= 3
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not [name for name in os.listdir(tmp_path / "parts") if name.startswith(".")]


class Twice(Strike):
    """Ctrl-C pressed again at once."""

    def __call__(self, *arguments):
        super().__call__(*arguments)
        super().__call__(*arguments)


def test_pressed_twice_ctrl_c_breaks_off_at_once(tmp_path):
    whole = fit(dropping())
    with Twice(13, 14), pytest.raises(KeyboardInterrupt):  # both within step 7
        fit(dropping(), folder=tmp_path)
    assert latest(tmp_path).name == "step-000000005.safetensors", "nothing more was saved"
    assert bits(fit(dropping(), folder=tmp_path).objective) == bits(whole.objective)


@pytest.mark.parametrize("kind", MORE)
def test_what_an_objective_learns_or_remembers_is_kept(tmp_path, kind):
    fit(MORE[kind](), folder=tmp_path / "whole")
    fit(MORE[kind](), folder=tmp_path / "parts", steps=11)
    parts = fit(MORE[kind](), folder=tmp_path / "parts")
    assert latest(tmp_path / "parts").read_bytes() == latest(tmp_path / "whole").read_bytes()
    before, after = MORE[kind]().state_dict(), parts.objective.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("network" not in name for name in changed), "it does learn or remember"


def test_more_steps_train_further(tmp_path):
    whole = fit(dropping())
    short = fit(dropping(), steps=11, folder=tmp_path)
    assert torch.equal(short.losses, whole.losses[:11])
    further = fit(dropping(), folder=tmp_path)
    assert bits(further.network) == bits(whole.network)
    assert torch.equal(further.losses, whole.losses)
    again = fit(dropping(), folder=tmp_path)
    assert bits(again.network) == bits(whole.network), "a run that is done is read"
    with pytest.raises(ValueError, match="step 24 > steps = 11"):
        fit(dropping(), steps=11, folder=tmp_path)


def test_training_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=fit, args=(dropping(),), kwargs={"folder": tmp_path})
    thread.start()
    thread.join()
    with Strike() as strike:
        result = fit(dropping(), folder=tmp_path)
    assert strike.count == 0, "the thread trained to the end"
    assert torch.equal(result.losses, fit(dropping()).losses)


def test_the_latest_are_kept_and_half_written_ones_removed(tmp_path):
    tmp_path.joinpath(".step-000000005.safetensors.abc").write_bytes(b"half")
    fit(plain(), folder=tmp_path, keep=3, tensorboard=False)
    names = [f"step-{step:09d}.safetensors" for step in (15, 20, 24)]
    assert sorted(os.listdir(tmp_path)) == ["losses.jsonl", *names]


# Files


@pytest.fixture
def saved(tmp_path):
    """The folder of a run stopped by its number of steps."""
    fit(plain(), steps=6, folder=tmp_path, tensorboard=False)
    return tmp_path


def test_damaged_files_are_named_and_left_alone(saved):
    path = latest(saved)
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    flipped = lambda i: good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :]
    step = good.index(b"step") + len(b'step\\": ')
    damaged = [good[:n] for n in (0, 7, 8, 100, header + 8, len(good) - 1)]
    damaged += [flipped(i) for i in (0, 20, step, header + 20, len(good) - 1)]
    damaged += [b"\x80\x04pickled", b"text, and rather a lot of it"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"000006\.safetensors .*delete it"):
            fit(plain(), folder=saved)
        with pytest.raises(ValueError, match=r"000006\.safetensors .*delete it"):
            load_weights(ResidualMLP((1,), 8, 2), path)
        assert path.read_bytes() == content
    path.write_bytes(good)
    fit(plain(), folder=saved)


def test_foreign_files_are_refused(saved):
    network, path = ResidualMLP((1,), 8, 2), latest(saved)
    save_file(network.state_dict(), path)
    with pytest.raises(ValueError, match="not written by this library"):
        fit(plain(), folder=saved)
    save_weights(network, path)
    with pytest.raises(ValueError, match=r"is a sde_diffusion\.weights/1, not a sde_diffusion\.tr"):
        fit(plain(), folder=saved)


OTHER = NetworkDenoiser(ResidualMLP((1,), 8, 2), VPLinear(beta_max=19.0), label="time")
VELOCITY = NetworkDenoiser(ResidualMLP((1,), 8, 2), VPLinear(), "velocity", label="time")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objective": DiffusionObjective(OTHER)}, r"schedule: VPLinear\(beta_min=0.1, beta_max=2"),
        ({"objective": DiffusionObjective(VELOCITY)}, "prediction: noise in the file, velocity"),
        (
            {"objective": plain(ResidualMLP((1,), 9, 2))},
            r"run: network width: 8 in the file, 9 asked; match",
        ),
        ({"objective": plain(ResidualMLP((1,), 8, 1))}, r"run: network depth: 2 in the file, 1"),
        ({"objective": dropping()}, "objective: DiffusionObjective in the file, Remembering asked"),
        ({"data": gaussian_data(65)}, "data: torch.float32"),
        ({"data": -gaussian_data(64)}, "data: torch.float32"),
        ({"learning_rate": 2e-3}, "learning_rate: 0.001 in the file, 0.002 asked"),
        ({"batch_size": 9}, "batch_size: 8"),
        ({"warm_up": 0}, "warm_up: 100"),
        ({"betas": (0.9, 0.99)}, r"betas: \[0.9, 0.999\]"),
        ({"clip": None}, "clip: 1.0"),
        ({"accumulate": 2}, "accumulate: 1"),
        ({"mixed_precision": "bf16"}, "mixed_precision: no"),
        ({"ema": (0.1,)}, "ema: "),
        ({"seed": 1}, "seed: 0 in the file, 1 asked"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_checkpoint_of_another_run_is_refused(saved, change, named):
    before = contents(saved)
    with pytest.raises(ValueError, match=named):
        fit(**{"objective": plain()} | change, folder=saved)
    assert contents(saved) == before


def test_full_disk_leaves_the_last_good_checkpoint(saved):
    before = contents(saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # as on a disk that is full
    try:
        with pytest.raises(OSError, match=r"of step 10 cannot be written .*000006.* is as it was"):
            fit(plain(), folder=saved, tensorboard=False)
        with pytest.raises(OSError):
            save_weights(ResidualMLP((1,), 8, 2), saved / "w")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = contents(saved)
    assert {n: c for n, c in after.items() if n.endswith("tensors")} == {
        n: c for n, c in before.items() if n.endswith("tensors")
    }
    assert not [name for name in os.listdir(saved) if name.startswith(".")]
    fit(plain(), folder=saved, tensorboard=False)
    fit(plain(), folder=saved / "whole", tensorboard=False)
    assert latest(saved).read_bytes() == latest(saved / "whole").read_bytes()


def test_a_checkpoint_serves_for_sampling(saved, tmp_path):
    model = {"kind": "mlp", "width": 8}
    result = fit(plain(), folder=saved / "m", model=model, ema=(0.1, {"decay": 0.9}))
    for name in ("sigma_rel 0.1", "decay 0.9", None):
        fresh = ResidualMLP((1,), 8, 2, seed=5)
        header = load_weights(fresh, latest(saved / "m"), name)
        assert bits(fresh) == bits(result.averages[name] if name else result.network)
        assert (header["step"], header["model"]) == (24, model)
    with pytest.raises(ValueError, match=r"did you mean 'sigma_rel 0\.1'"):
        load_weights(fresh, latest(saved / "m"), "sigma_rel 0.2")
    save_weights(result.network, tmp_path / "w", {"held out": 0.25})
    fresh = ResidualMLP((1,), 8, 2, seed=5)
    assert load_weights(fresh, tmp_path / "w") == {"held out": 0.25}
    assert bits(fresh) == bits(result.network)
    other = ResidualMLP((1,), 9, 2)
    before = bits(other)
    for path in (tmp_path / "w", latest(saved / "m")):
        with pytest.raises(ValueError, match=r"network enter\.weight"):
            load_weights(other, path)
    assert bits(other) == before
    with pytest.raises(FileNotFoundError, match="train first"):
        latest(saved / "nothing here")


def test_weights_are_found_as_models_are(saved):
    """A folder stands for its latest checkpoint, a number for the average of that width."""
    result = fit(plain(), folder=saved, tensorboard=False)
    for average in (0.05, "0.05", "sigma_rel 0.05", None):
        fresh = ResidualMLP((1,), 8, 2, seed=5)
        assert load_weights(fresh, saved, average)["step"] == 24
        expected = result.network if average is None else result.averages["sigma_rel 0.05"]
        assert bits(fresh) == bits(expected)
    with pytest.raises(ValueError, match=r"run: network width: 8 in the file, 9 asked; match"):
        load_weights(ResidualMLP((1,), 9, 2), saved)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_weights(ResidualMLP((1,), 9, 2), saved / "nothing here")


def test_networks_without_a_configuration_are_told_apart_by_their_tensors(tmp_path):
    save_weights(torch.nn.Linear(2, 3), tmp_path / "w")
    with pytest.raises(ValueError, match=r"network bias: torch.float32 \(3,\) in the file, None"):
        load_weights(torch.nn.Linear(2, 3, bias=False), tmp_path / "w")


def test_a_network_with_the_same_tensors_may_still_be_another(tmp_path):
    """The number of heads shows in no tensor."""
    few, more = (DiT(4, 2, 16, 1, heads) for heads in (2, 4))
    data = torch.zeros(8, 4, 4, 4)
    how = {"folder": tmp_path, "steps": 2, "tensorboard": False}
    fit(plain(few), data, **how)
    with pytest.raises(ValueError, match=r"run: network heads: 2 in the file, 4 asked; match"):
        fit(plain(more), data, **how)
    fit(plain(DiT(4, 2, 16, 1, 2, seed=3)), data, **how | {"steps": 3})


def test_weights_of_a_loss_that_is_not_finite_are_never_saved(tmp_path):
    class Overflowing(Dropping):
        calls = 0

        def forward(self, x, t):
            Overflowing.calls += 1
            return super().forward(x, t) * (float("inf") if Overflowing.calls == 8 else 1.0)

    network = Overflowing((1,), width=8, depth=2)
    cure = r"at step 8: lower learning_rate = 0\.001, or scale .* batch \d.*step 5 is from before"
    for log_every in (1, 50):  # read at once, and not before it is to be saved
        Overflowing.calls, folder = 0, tmp_path / str(log_every)
        with pytest.raises(FloatingPointError, match=cure):
            fit(plain(network), folder=folder, log_every=log_every)
        assert load_weights(ResidualMLP((1,), 8, 2), latest(folder))["step"] == 5


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    # A gradient may overflow where the loss did not: sqrt has none at 0.
    class Rooted(DiffusionObjective):
        def forward(self, batch, generator):
            losses = super().forward(batch, generator)
            zero = next(self.network.parameters()).sum() * 0
            return losses._replace(loss=losses.loss + zero.abs().sqrt())

    with pytest.raises(FloatingPointError, match=r"weights .* not finite after step 1: lower"):
        fit(plain(kind=Rooted), folder=tmp_path, checkpoint_every=1, clip=None)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("step")]
