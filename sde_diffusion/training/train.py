r"""Training a noise predictor, stopped and resumed without a trace.

A network that predicts one of three targets from x_t = alpha_t x_0 + sigma_t eps is fitted by
least squares,

    L = E ||target - network(x_t, t)||^2 / d,     x_0 ~ data, t ~ U[t_clean, t_max], eps ~ N(0, I),

with d the number of coordinates, and target = eps ("noise"; Ho, Jain & Abbeel, "Denoising
diffusion probabilistic models", 2020, arXiv:2006.11239, eq. 14), x_0 ("data"), or
v = alpha_t eps - sigma_t x_0 ("velocity"; Salimans & Ho, "Progressive distillation for fast
sampling of diffusion models", 2022, arXiv:2202.00512, section 4). The minimiser is the mean of
the target given x_t. Any one target gives the others, and their errors are proportional:

    |eps - eps_hat|^2 = (alpha_t/sigma_t)^2 |x_0 - x0_hat|^2,
    |v - v_hat|^2 = ((alpha_t^2 + sigma_t^2)/sigma_t)^2 |x_0 - x0_hat|^2.

Sampling uses the running average of the weights, w_bar <- d_n w_bar + (1 - d_n) w_n, whose decay
d_n = min(decay, (1 + n)/(10 + n)) grows so that the random start is soon forgotten.

A run is a function of its arguments and of its step: weights, averages, Adam's moments, the state
of its one random generator and the losses so far are all there is. A checkpoint holds them in one
safetensors file (numbers and text only, nothing in it is executed), together with a description of
the run; a run resumed from it ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

import copy
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..denoise import double
from ..extras import optional
from ..names import unknown
from ..noise import check_seed
from ..schedule import Schedule
from ..times import check_steps
from ..weights import CURE, TRAINING, check_same, describe, digest_of, read_file, under, write_file

TARGETS = ("noise", "data", "velocity")
WARMUP = 100  # steps over which the learning rate rises


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training run leaves."""

    network: nn.Module  # a copy that carries the averaged weights, in evaluation mode
    losses: Tensor  # of every step, float64, shape (step,)
    step: int  # steps done


def diffusion_loss(
    network: nn.Module,
    schedule: Schedule,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    target: str = "noise",
) -> Tensor:
    """The denoising loss, mean of (target - network(x_t, t))^2 over samples and coordinates.

    x_t = alpha_t x_0 + sigma_t eps. Ho et al. (2020), arXiv:2006.11239, eq. 14; "velocity" is
    v = alpha_t eps - sigma_t x_0, Salimans & Ho (2022), arXiv:2202.00512, section 4.

    Args:
        network: (x_t, t) -> the prediction, of the shape of x_t.
        schedule: t -> (alpha_t, sigma_t); called in float64, the scales are cast to x_0's dtype.
        x_0: clean data, floating point, shape (batch, *event).
        t: times, shape (batch,), in [schedule.t_min, schedule.t_max].
        eps: standard normal noise, of the shape of x_0.
        target: "noise" (eps), "data" (x_0) or "velocity".

    Returns:
        the loss, a scalar with a graph to the network's weights.

    Raises:
        TypeError, ValueError: if x_0 is not floating point; unknown target, or shapes do not fit.
    """
    _check_target(target)
    _check_floating(x_0, "x_0")
    if t.shape != x_0.shape[:1] or eps.shape != x_0.shape:
        raise ValueError(
            f"x_0 {tuple(x_0.shape)}, t {tuple(t.shape)}, eps {tuple(eps.shape)}: need one time "
            f"for each sample, t of shape {tuple(x_0.shape[:1])}, and eps of the shape of x_0"
        )
    times = double(t)
    column = (-1,) + (1,) * (x_0.ndim - 1)
    alpha_t, sigma_t = (torch.as_tensor(scale).to(x_0).reshape(column) for scale in schedule(times))
    x_t = alpha_t * x_0 + sigma_t * eps
    velocity = alpha_t * eps - sigma_t * x_0
    wanted = {"noise": eps, "data": x_0, "velocity": velocity}[target]
    prediction = network(x_t, times.to(torch.promote_types(x_0.dtype, torch.float32)))
    if prediction.shape != x_0.shape:
        raise ValueError(
            f"the network answered {tuple(x_0.shape)} with {tuple(prediction.shape)}: it must "
            "return one prediction of the shape of x_t (for a learned variance, drop that half)"
        )
    return (prediction - wanted).square().mean()


def train(
    network: nn.Module,
    data: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    target: str = "noise",
    ema_decay: float = 0.999,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    progress: bool = False,
) -> TrainResult:
    """Fit a network to data by Adam on `diffusion_loss`, and average its weights.

    Times are stratified, t_i = t_clean + (t_max - t_clean) frac(u + i/batch), u ~ U[0, 1): each
    is uniform, together they cover the range (Kingma et al., "Variational diffusion models",
    2021, arXiv:2107.00630, appendix I.1). The learning rate rises linearly over the first 100
    steps and then stays; averaging the weights does the work of letting it fall. Kingma & Ba,
    "Adam", 2015, arXiv:1412.6980.

    With a checkpoint, the run is saved every `checkpoint_every` steps, at its end and when it is
    interrupted (Ctrl-C); the same call again goes on from there and ends with the same bits, and
    one with more `steps` trains further. All randomness is this function's own: a network with
    its own (dropout) or with running statistics trains too, but is not resumed to the bit.

    Args:
        network: (x_t, t) -> prediction; gives the initial weights and is left as it was.
        data: clean samples, floating point, shape (n, *event); cast to the network's dtype.
        schedule: t -> (alpha_t, sigma_t).
        steps: number of updates, at least 1.
        batch_size: samples drawn (with replacement) at each step.
        learning_rate: Adam's largest step size, positive.
        target: "noise", "data" or "velocity".
        ema_decay: largest decay of the average of the weights, in [0, 1); 0 is no average.
        seed: of everything drawn here.
        checkpoint: path of the one file to save to and to go on from.
        checkpoint_every: steps between two savings.
        progress: show a progress bar.

    Raises:
        TypeError: if data is not floating point.
        ValueError: if an argument is out of range, or the checkpoint is damaged, of another kind
            or of another run; it is then left as it is.
        FloatingPointError: if the loss is not finite.
        ImportError: for `checkpoint` without safetensors, for `progress` without rich.
    """
    _check_target(target)
    _check_floating(data, "data")
    check_steps(steps)
    if data.ndim == 0 or len(data) == 0 or not bool(data.isfinite().all()):
        raise ValueError(f"data of shape {tuple(data.shape)} must be finite, one sample or more")
    if min(steps, batch_size, checkpoint_every) < 1 or learning_rate <= 0 or not 0 <= ema_decay < 1:
        raise ValueError(
            f"steps = {steps}, batch_size = {batch_size}, checkpoint_every = {checkpoint_every}, "
            f"learning_rate = {learning_rate}, ema_decay = {ema_decay}: need counts of at least "
            "1, a positive learning rate and a decay in [0, 1)"
        )
    configuration = {
        "target": target,
        "batch_size": int(batch_size),
        "learning_rate": float(learning_rate),
        "ema_decay": float(ema_decay),
        "seed": int(seed),
        "schedule": _describe_schedule(schedule),
        "data": f"{data.dtype} {tuple(data.shape)}, digest {digest_of({'data': data})}",
        "network": describe(network),
    }
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        optional("safetensors.torch", "checkpoints")
    if progress:
        optional("rich.progress", "progress bars")
    run = _Run(network, ema_decay, seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            tensors, header = read_file(path, TRAINING)
            check_same(header["configuration"], configuration, path)
            run.restore(tensors, header["step"])
            if run.step > steps:
                raise ValueError(f"{path} is at step {run.step} > steps = {steps}; {CURE}")

    def save() -> None:
        if path is not None:
            header = {"step": run.step, "configuration": configuration}
            write_file(path, TRAINING, run.tensors(), header)

    start = run.step
    data = data.detach().to(next(run.model.parameters()))
    with torch.enable_grad(), _bar(progress, steps, start) as advance:
        try:
            while run.step < steps:
                x_0, t, eps = _draw(data, schedule, batch_size, run.generator)
                loss = diffusion_loss(run.model, schedule, x_0, t, eps, target)
                value = loss.item()
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the loss is {value} at step {run.step}: lower learning_rate = "
                        f"{learning_rate}, or scale data (largest {float(data.abs().max()):.4g})"
                    )
                run.optimizer.zero_grad()
                loss.backward()
                with _uninterrupted():
                    run.update(value, learning_rate * min(1.0, (run.step + 1) / WARMUP))
                advance(value)
                if run.step % checkpoint_every == 0 and run.step < steps:
                    save()
        except KeyboardInterrupt:
            save()
            raise
    if run.step > start:
        save()
    return TrainResult(run.average.eval(), torch.tensor(run.losses, dtype=torch.float64), run.step)


class _Run:
    """The whole state of a training run; `update` alone moves it from one step to the next."""

    def __init__(self, network: nn.Module, ema_decay: float, seed: int) -> None:
        self.model = copy.deepcopy(network).train()
        self.average = copy.deepcopy(self.model)
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.Adam(self.trained.values(), fused=True)
        self.generator = torch.Generator().manual_seed(check_seed(seed))
        self.rng = self.generator.get_state()  # as it was when this step began
        self.ema_decay, self.losses, self.step = ema_decay, list[float](), 0

    @torch.no_grad()
    def update(self, loss: float, learning_rate: float) -> None:
        """One step of Adam on the gradients at hand, then of the average."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)
        for copied, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)
        self.losses.append(loss)
        self.step += 1
        self.rng = self.generator.get_state()

    def tensors(self) -> dict[str, Tensor]:
        """The state, named."""
        state = {"rng": self.rng, "losses": torch.tensor(self.losses, dtype=torch.float64)}
        for prefix, network in (("weights.", self.model), ("average.", self.average)):
            state |= {prefix + name: value for name, value in network.state_dict().items()}
        for name, parameter in self.trained.items():
            for moment, value in self.optimizer.state[parameter].items():
                state[f"adam.{moment}.{name}"] = value
        return state

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        """Take the state of `tensors`."""
        self.model.load_state_dict(under("weights.", state))
        self.average.load_state_dict(under("average.", state))
        for name, value in under("adam.", state).items():
            moment, name = name.split(".", 1)
            parameter = self.trained[name]
            self.optimizer.state[parameter][moment] = value.to(parameter.device)
        self.rng, self.losses, self.step = state["rng"], state["losses"].tolist(), step
        self.generator.set_state(self.rng)


def _draw(
    data: Tensor, schedule: Schedule, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(x_0, t, eps); drawn on the CPU, so that every device trains on the same numbers."""
    chosen = torch.randint(len(data), (batch_size,), generator=generator)
    u = torch.rand((), generator=generator, dtype=torch.float64)
    strata = (u + torch.arange(batch_size, dtype=torch.float64) / batch_size) % 1
    t = schedule.t_clean + (schedule.t_max - schedule.t_clean) * strata
    eps = torch.randn((batch_size, *data.shape[1:]), generator=generator).to(data)
    return data[chosen.to(data.device)], t.to(data.device), eps


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(unknown("target", target, TARGETS))


def _check_floating(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"{name} has dtype {x.dtype}: noise is continuous; scale it to floating point, as in "
            f"{name}.float() / 127.5 - 1 for bytes"
        )


def _describe_schedule(schedule: Schedule) -> str:
    """Its repr without memory addresses, and (alpha, sigma) at three times, whatever its repr."""
    name = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(schedule))
    span = schedule.t_max - schedule.t_clean
    scales = [schedule(schedule.t_clean + span * part) for part in (0.0, 0.3, 0.7)]
    return f"{name}: " + ", ".join(f"({float(a):.6g}, {float(b):.6g})" for a, b in scales)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, where half a step would be left behind."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield  # Ctrl-C reaches the main thread only
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _bar(show: bool, steps: int, start: int) -> Iterator[Callable[[float], None]]:
    """A function to call with the loss of each step; it moves a progress bar if there is one."""
    if show:
        with optional("rich.progress", "progress bars").Progress() as bar:
            task = bar.add_task("training", total=steps, completed=start)
            yield lambda loss: bar.update(task, advance=1, description=f"loss {loss:.4f}")
    else:
        yield lambda loss: None
