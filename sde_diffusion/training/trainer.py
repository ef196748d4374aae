r"""Training, stopped at any moment and resumed without a trace.

A run is a function of its arguments and of its step. Whatever is random in step n (the samples of
the batch, times, noise, dropout) is drawn from generators seeded by (seed, n), so that weights,
averages, the optimiser's moments, what the objective remembers and the losses so far are all there
is to keep. A checkpoint holds them, with a description of the run, in one safetensors file; a run
resumed from it ends with the same bits as one that was never stopped. (On a GPU where its kernels
are deterministic: `torch.use_deterministic_algorithms(True)` makes them so.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data, as_data
from .ema import Average
from .load import described
from .loop import Loop
from .objective import Objective
from .options import Options, averages_of
from .processes import accelerated
from .random import global_state_kept


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training run leaves.

    Attributes:
        network: a copy with averaged weights (of the first average), in evaluation mode.
        averages: one such copy for each average, by its name, as "sigma_rel 0.1".
        objective: the objective as trained, with the last weights.
        losses: mean loss of the batch at every step, float64, shape (step,).
        step: steps done.
    """

    network: nn.Module
    averages: Mapping[str, nn.Module]
    objective: Objective
    losses: Tensor
    step: int


class Trainer:
    """Minimises an objective over data by AdamW, on the devices and processes of `accelerate`.

    The learning rate rises linearly over the first `warm_up` steps and then stays: averages of the
    weights do the work of letting it fall. Loshchilov & Hutter, "Decoupled weight decay
    regularization", 2019, arXiv:1711.05101.

    In a folder the run leaves `step-*.safetensors` (checkpoints: all there is to go on from, and
    enough to sample from), `losses.jsonl`, `samples/*.png` and `tensorboard/`. It is saved every
    `checkpoint_every` steps, at its end and at Ctrl-C; the same call again goes on from there and
    ends with the same bits, and one with more `steps` trains further.

    A run on several processes (`accelerate launch`, `torchrun`) does the same steps: each process
    takes its share of the parts of the batch. Runs in threads of one process wait for each other.

    Args:
        objective: what is minimised, and all that is trained; left as it is, a copy is trained.
            Its attribute `network` is what is wanted in the end.
        data: `Data`, a tensor (n, *event), or a pair (tensor, conditions).
        steps: number of updates, at least 1.
        batch_size: samples in an update, of all processes together.
        learning_rate: largest step size of AdamW, positive.
        warm_up: steps over which the learning rate rises, at least 0.
        betas: decays of AdamW's two moments.
        epsilon: AdamW's guard against division by zero.
        weight_decay: decay of the weights, relative to the learning rate.
        clip: largest norm of the gradient, beyond which it is scaled down; None: any.
        accumulate: parts in which a batch is worked through, each with random numbers of its own;
            their gradients are added up. Processes share them: what is computed depends on this
            number, not on that of processes. Default: one for each process.
        mixed_precision: "no", "bf16" or "fp16" (with a scaled loss, on a GPU).
        ema: averages of the weights: sigma_rel of power-function averages, or
            `ConstantDecay(0.999)`, one or several; the first is what is sampled from.
        seed: of everything drawn here.
        folder: where everything is kept; None: nothing is.
        checkpoint_every: steps between two checkpoints.
        keep: how many of the latest checkpoints are kept.
        log_every: steps between two lines of the log, when losses are read from the device.
        sampler: network -> samples, with the averaged network, or on a learned schedule
            (network, schedule) -> samples, with what it is by then; of images (n, channels, height,
            width), channels 1 or 3, a grid is drawn, of vectors (n, 2) the points.
        sample_every: steps between two sets of samples; default: as checkpoints.
        held_out: data on which the averaged weights are evaluated, no condition withheld.
        evaluate_every: steps between two evaluations; default: as checkpoints.
        model: a description of the model, as JSON has it, kept in the checkpoints; default: what
            `load_denoiser` needs, where the network and the schedule are the library's.
        tensorboard: log to TensorBoard; default: where it is installed and there is a folder.
        progress: tell progress, with the time left and the loss by half-log-SNR, on stderr.
        device: "cpu" to stay there, or one GPU, as "cuda:1"; default: what `accelerate` finds.

    Raises:
        TypeError, ValueError: an argument is out of range or does not fit another.
        ImportError: without accelerate; with a folder, without safetensors.
    """

    def __init__(
        self,
        objective: Objective,
        data: Any,
        *,
        steps: int,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        warm_up: int = 100,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = 1.0,
        accumulate: int | None = None,
        mixed_precision: str = "no",
        ema: Average
        | float
        | Mapping[str, float]
        | Sequence[Average | float | Mapping[str, float]] = (0.1, 0.05),
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 1000,
        keep: int = 1,
        log_every: int = 50,
        sampler: Callable[..., Tensor] | None = None,
        sample_every: int | None = None,
        held_out: Any = None,
        evaluate_every: int | None = None,
        model: Mapping[str, Any] | None = None,
        tensorboard: bool | None = None,
        progress: bool = True,
        device: str | torch.device | None = None,
    ) -> None:
        samples = as_data(data)
        self.options = Options(
            objective=objective,
            data=samples,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            warm_up=warm_up,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            clip=clip,
            accumulate=accumulate,
            mixed_precision=mixed_precision,
            ema=averages_of(ema),
            seed=seed,
            folder=None if folder is None else Path(folder),
            checkpoint_every=checkpoint_every,
            keep=keep,
            log_every=log_every,
            sampler=sampler,
            sample_every=checkpoint_every if sample_every is None else sample_every,
            held_out=None if held_out is None else _held_out(held_out, samples),
            evaluate_every=checkpoint_every if evaluate_every is None else evaluate_every,
            model=described(objective, samples) if model is None else dict(model),
            tensorboard=tensorboard,
            progress=progress,
            device=device,
        )

    def train(self) -> TrainResult:
        """Train to the last step, from the latest checkpoint in the folder if there is one.

        Raises:
            ValueError: the checkpoint is damaged, of another kind or of another run; it is then
                left as it is.
            FloatingPointError: the loss or the weights are not finite; nothing made from them is
                saved.
            OSError: a checkpoint cannot be written; the last good one is left as it is.
            KeyboardInterrupt: at Ctrl-C, after the step at hand is done and saved.
        """
        options = self.options
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            accelerated(options.mixed_precision, options.device) as accelerator,
            global_state_kept(accelerator.device),
        ):
            state = Loop(options, accelerator).run()
            accelerator.unwrap_model(state.objective, keep_fp32_wrapper=False)
            names = [average.name for average in options.ema]
            averages = {name: state.averaged(i) for i, name in enumerate(names)}
        losses = torch.tensor(state.record.losses, dtype=torch.float64)
        state.objective.__dict__.pop("forward", None)  # accelerate's, bound to this copy
        objective = state.objective.eval()
        return TrainResult(averages[names[0]], averages, objective, losses, state.step)


def _held_out(given: Any, data: Data) -> Data:
    """The held-out data, plain tensors in the range of the others; errors name them."""
    plain = not hasattr(given, "batch")
    try:
        return as_data(given, getattr(data, "range", None) if plain else None)
    except (TypeError, ValueError) as error:
        raise type(error)(f"held_out: {error}") from error
