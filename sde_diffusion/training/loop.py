"""The steps of a run, and what is done between them."""

from __future__ import annotations

import copy
import math
import sys
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ..weights import CURE
from .batch import Batch, Losses
from .checkpoint import Checkpoints
from .data import Data
from .interrupt import held_back
from .objective import Objective
from .options import Options
from .order import Order
from .random import generator_at, seed_at, seed_global
from .report import Report
from .state import State

DATA, OBJECTIVE, NETWORK, HELD_OUT = 1, 2, 3, 4  # purposes of random numbers; order.py has 0


class Loop:
    """One run, from its latest checkpoint or its start.

    Args:
        options: what is asked.
        accelerator: the devices and processes.
    """

    def __init__(self, options: Options, accelerator: Any) -> None:
        self.options, self.accelerator = options, accelerator
        self.parts = options.parts(accelerator.num_processes)
        self.own = self.parts // accelerator.num_processes  # parts of this process
        self.order = Order(len(options.data), options.batch_size, options.seed)
        adam = {
            "lr": float(options.learning_rate),
            "betas": tuple(float(beta) for beta in options.betas),
            "eps": float(options.epsilon),
            "weight_decay": float(options.weight_decay),
        }
        self.state = State(options.objective, accelerator.device, options.ema, adam)
        self.judge = None if options.held_out is None else copy.deepcopy(self.state.objective)
        self.prepared = accelerator.prepare(self.state.objective)
        # Without float16 there is nothing to scale: then these calls do nothing but the step.
        self.scaler = accelerator.scaler or torch.amp.GradScaler("cpu", enabled=False)
        self.dtype = next(iter(self.state.trained.values())).dtype
        self.saved = -1  # the step of the latest checkpoint
        self._open()

    def _open(self) -> None:
        """Go on from the latest checkpoint, if there is one."""
        options = self.options
        self.configuration = options.configuration(self.parts)
        self.checkpoints = None
        if options.folder is None:
            return
        self.checkpoints = Checkpoints(options.folder, options.keep)
        if self.accelerator.is_main_process:
            self.checkpoints.clear()
        tensors, header = self.checkpoints.load(self.configuration, options.model)
        if not header:
            return
        self.state.restore(tensors, header["step"])
        self.saved = self.state.step
        self.scaler.load_state_dict(header["scaler"])
        if self.state.step > options.steps:
            raise ValueError(
                f"{options.folder} is at step {self.state.step} > steps = {options.steps}; ask "
                f"for more steps, {CURE}"
            )

    def run(self) -> State:
        """All steps that are left."""
        state, options = self.state, self.options
        main = self.accelerator.is_main_process
        folder = options.folder if main and state.step < options.steps else None
        show = options.progress and main
        with (
            Report(folder, state.step, options.steps, options.tensorboard, show) as report,
            held_back() as asked,
        ):
            if state.step == 0 and main:
                self._sample(report)  # what is wrong with a sampler shows before the first step
            while state.step < options.steps:
                self._step()
                report.advance()
                self._between(report)
                if self._stop(asked):
                    self._save()
                    self._tell_how_to_go_on()
                    raise KeyboardInterrupt
        return state

    def _step(self) -> None:
        """One update: the gradients of the parts, added up, then the weights and averages."""
        options, state, n = self.options, self.state, self.state.step
        indices = self.order.indices(n).chunk(self.parts)
        first = self.own * self.accelerator.process_index
        scale = self.accelerator.num_processes / options.batch_size  # processes are averaged
        noted = []
        for part in range(first, first + self.own):
            generator = generator_at(options.seed, DATA, n, part)
            batch = self._batch(options.data, indices[part], generator)
            last = part == first + self.own - 1
            seed_global(seed_at(options.seed, NETWORK, n, part), self.accelerator.device)
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                losses = self.prepared(batch, generator_at(options.seed, OBJECTIVE, n, part))
                check_losses(losses, len(batch.x), options.objective)
                self.scaler.scale(losses.loss.sum() * scale).backward()
            noted.append(Losses(*losses))
        if options.clip is not None:
            self.scaler.unscale_(state.optimizer)
            clip_grad_norm_(state.trained.values(), options.clip)
        rise = min(1.0, (n + 1) / max(1, options.warm_up))
        for group, rate in zip(state.optimizer.param_groups, state.rates, strict=True):
            group["lr"] = rate * rise
        self.scaler.step(state.optimizer)
        self.scaler.update()
        state.optimizer.zero_grad()
        state.step = n + 1
        state.averages.update(state.step)
        with torch.no_grad():
            state.objective.after_step()
        state.record.note(noted)

    def _batch(self, data: Data, indices: Tensor, generator: torch.Generator | None) -> Batch:
        """Samples and conditions, on the device and in the dtype of the weights."""
        x, context = data.batch(indices, generator)
        device = self.accelerator.device
        x = x.to(device, self.dtype, non_blocking=True)
        if context is not None:
            dtype = self.dtype if context.is_floating_point() else context.dtype
            context = context.to(device, dtype, non_blocking=True)
        return Batch(x, context)

    def _between(self, report: Report) -> None:
        """What is due after the step at hand."""
        state, options = self.state, self.options
        step, end = state.step, state.step == options.steps
        if step % options.log_every == 0 or end:
            self._read()
            since = (step - 1) // options.log_every * options.log_every
            losses = state.record.losses[since:]
            rise = min(1.0, step / max(1, options.warm_up))
            mean, rate = math.fsum(losses) / len(losses), options.learning_rate * rise
            by_lambda = state.record.by_lambda(begin_anew=step % options.log_every == 0)
            report.losses(step, mean, by_lambda, rate)
        main = self.accelerator.is_main_process
        if main and self.judge is not None and (step % options.evaluate_every == 0 or end):
            report.held_out(step, self._evaluate())
        if options.sampler is not None and (step % options.sample_every == 0 or end):
            self._read()  # of weights that are not finite no samples are drawn
            if main:
                self._sample(report)
        if step % options.checkpoint_every == 0 or end:
            self._save()

    def _sample(self, report: Report) -> None:
        if self.options.sampler is not None:
            with torch.no_grad():
                schedule = self.state.schedule(0)
                learned = () if schedule is None else (schedule,)
                x = self.options.sampler(self.state.averaged(0), *learned)
            data = self.options.data
            report.samples(self.state.step, x, data.range, data.classes)

    def _read(self) -> None:
        """Wait for the losses, which must be finite."""
        start = len(self.state.record.losses)
        self.state.record.read(self._gather)
        losses = self.state.record.losses
        wrong = [n for n in range(start, len(losses)) if not math.isfinite(losses[n])]
        # With a scaled loss an overflow is left out of the weights, and the scale lowered.
        if wrong and (not self.scaler.is_enabled() or len(wrong) == len(losses) - start > 30):
            raise FloatingPointError(
                f"the loss is {losses[wrong[0]]} at step {wrong[0] + 1}: {self._cure(wrong[0])}"
            )

    def _gather(self, values: Tensor) -> Tensor:
        return self.accelerator.gather(values.to(self.accelerator.device))

    def _cure(self, n: int) -> str:
        options = self.options
        x = options.data.batch(self.order.indices(n), None).x
        kept = "" if self.saved < 0 else f"; the checkpoint of step {self.saved} is from before"
        return (
            f"lower learning_rate = {options.learning_rate:g}, or scale the data (largest value "
            f"of this batch {float(x.abs().max()):.4g}){kept}"
        )

    def _save(self) -> None:
        """A checkpoint, of weights that are finite and were made from finite losses."""
        self._read()
        try:
            self.state.check_finite()
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}: {self._cure(self.state.step - 1)}") from None
        if self.checkpoints is None or self.saved == self.state.step:
            return
        if self.accelerator.is_main_process:
            header = {
                "configuration": self.configuration,
                "parts": self.state.parts,
                "averages": [average.name for average in self.options.ema],
                "model": self.options.model,
                "scaler": self.scaler.state_dict(),
            }
            self.checkpoints.save(self.state.step, self.state.tensors(), header)
        self.saved = self.state.step

    def _evaluate(self) -> float:
        """The mean loss of the averaged weights on held-out data."""
        options, judge, state = self.options, self.judge, self.state
        assert judge is not None
        assert options.held_out is not None
        judge.load_state_dict(state.objective.state_dict())
        with torch.no_grad():
            for name, parameter in judge.named_parameters():
                if name in state.trained:
                    parameter.copy_(state.averages.of(state.trained[name], 0))
            total, judge = 0.0, judge.eval()
            every = torch.arange(len(options.held_out)).split(options.batch_size)
            for i, indices in enumerate(every):
                batch = self._batch(options.held_out, indices, None)
                generator = generator_at(options.seed, HELD_OUT, i)
                with self.accelerator.autocast():
                    total += float(judge(batch, generator).loss.sum())
        return total / len(options.held_out)

    def _stop(self, asked: list[int]) -> bool:
        """Whether Ctrl-C was pressed; processes agree on it when they read their losses."""
        if self.accelerator.num_processes == 1:
            return bool(asked)
        if self.state.step % self.options.log_every:
            return False
        own = torch.tensor([len(asked)], device=self.accelerator.device)
        return bool(self.accelerator.gather(own).sum())

    def _tell_how_to_go_on(self) -> None:
        step, folder = self.state.step, self.options.folder
        kept = (
            "nothing is kept: give folder= to be able to go on"
            if folder is None
            else f"saved in {folder}: the same call again goes on from there"
        )
        if self.accelerator.is_main_process:
            print(f"stopped at step {step} of {self.options.steps}; {kept}", file=sys.stderr)


def check_losses(losses: Any, count: int, objective: Objective) -> None:
    """Raise unless an objective answered with one loss a sample; values are not read."""
    kind, loss = type(objective).__name__, getattr(losses, "loss", None)
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"{kind} answered with a {type(losses).__name__}: return Losses(loss), with one loss a "
            f"sample, of shape (batch,), here ({count},)"
        )
    if loss.shape != (count,):
        raise ValueError(
            f"{kind} answered with a loss of shape {tuple(loss.shape)}: give one a sample, of "
            f"shape (batch,), here ({count},), not their mean: the trainer takes it"
        )
