"""diffusers' schedulers under the probe.

The loop is that of its pipelines: `scale_model_input`, the network, `step`. Its network answers in
the prediction type that the scheduler can read, made from D at the noise level which the scheduler
itself works with at that call; what it is *told* of the time is kept apart, in `labels`.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from probe import Probe, Table, patched, wide_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

VERSION = "0.42.1"
CLEAN = {"clip_sample": False, "thresholding": False}  # clipping is not affine


def scheduler(name: str, **config: Any) -> Any:
    """A scheduler without clipping; linear betas, 1,000 timesteps."""
    kind = getattr(diffusers, f"{name}Scheduler")
    known = inspect.signature(kind.__init__).parameters
    clean = {key: value for key, value in CLEAN.items() if key in known}
    return kind(**clean, **config)


def module_of(name: str) -> str:
    return getattr(diffusers, f"{name}Scheduler").__module__


Answer = Callable[[Any, torch.Tensor, Any, torch.Tensor], torch.Tensor]


def as_sample(made: Any, x: torch.Tensor, label: Any, d: torch.Tensor) -> torch.Tensor:
    """The network predicts D itself."""
    return d


def as_epsilon(made: Any, x: torch.Tensor, label: Any, d: torch.Tensor) -> torch.Tensor:
    """The network predicts noise, states in the scale alpha = 1."""
    if made.step_index is None:
        made._init_step_index(label)
    sigma = made.sigmas[made.step_index]
    if hasattr(made, "sigmas_interpol") and not made.state_in_first_order:
        later = "Ancestral" in type(made).__name__  # its list of middles lags by one
        sigma = made.sigmas_interpol[made.step_index - later]
    return (x - d) / sigma


def as_vp_epsilon(made: Any, x: torch.Tensor, label: Any, d: torch.Tensor) -> torch.Tensor:
    """The network predicts noise, states variance-preserving, level of the timestep."""
    bar = made.alphas_cumprod[int(label)]
    return (x - bar.sqrt() * d) / (1 - bar).sqrt()


def as_flow(made: Any, x: torch.Tensor, label: Any, d: torch.Tensor) -> torch.Tensor:
    """The network predicts eps - D on the line of flow matching."""
    if made.step_index is None:
        made._init_step_index(label)
    return (x - d) / made.sigmas[made.step_index]


def as_angular(made: Any, x: torch.Tensor, label: Any, d: torch.Tensor) -> torch.Tensor:
    """The network predicts alpha eps - sigma D, states variance-preserving, sigma = betas."""
    if made.step_index is None:
        made._init_step_index(label)
    alpha, sigma = made.alphas[made.step_index], made.betas[made.step_index]
    return (alpha * x - d) / sigma


def as_edm(made: Any, x: torch.Tensor, label: Any, d: torch.Tensor) -> torch.Tensor:
    """The network is preconditioned as in EDM."""
    if made.step_index is None:
        made._init_step_index(label)
    sigma, data = made.sigmas[made.step_index], made.config.sigma_data
    total = sigma**2 + data**2
    return (d - data**2 / total * x) / (sigma * data / total.sqrt())


def table(
    name: str,
    steps: int,
    answer: Answer = as_sample,
    wide: bool = True,
    step: dict[str, Any] | None = None,
    timesteps: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[Table, Any]:
    """(what the scheduler does in a pipeline's loop, the scheduler).

    Args:
        steps: for set_timesteps.
        answer: the form in which the network answers.
        wide: run the scheduler's formulas in float64; False: as shipped, in float32.
        step, timesteps: further arguments of `step` and of `set_timesteps`.
    """
    probe, module = Probe(torch.float64 if wide else torch.float32), module_of(name)
    importlib.import_module(module)
    kinds = {as_sample: "sample", as_epsilon: "epsilon", as_vp_epsilon: "epsilon"}
    if answer in kinds:
        config = {"prediction_type": kinds[answer], **config}
    with ExitStack() as stack:
        if wide:
            stack.enter_context(patched(module, **wide_names(module)))
        stack.enter_context(patched(module, randn_tensor=lambda *_, **__: probe.draw()))
        made = scheduler(name, **config)
        if timesteps is None or "sigmas" not in timesteps:
            made.set_timesteps(steps, **(timesteps or {}))
        else:
            made.set_timesteps(**timesteps)
        x = probe.start
        for label in made.timesteps:
            if hasattr(made, "scale_model_input"):
                made.scale_model_input(x, label)
            d = probe.answer(x, label)
            out = answer(made, x, label, d)
            x = made.step(out, label, x, return_dict=False, **(step or {}))[0]
    return probe.table(x), made
