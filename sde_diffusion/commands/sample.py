"""sde-diffusion sample: samples from a checkpoint of `train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adaptive import ADAPTIVE, FIXED_STEPS
from ..comparison.entries import options_of
from ..editing.picture import like_bytes
from ..latent.space import LATENTS
from ..presets import PRESETS
from ..progress import Progress
from ..sample import check_options, find_solver, load_plan, sample
from ..store import digest
from ..training.fits import VECTORS
from ..training.load import LoadedModel, load_model
from ..training.numpy_data import NumpyData
from ..training.pictures import usual_count
from ..weights import digest_of
from .arguments import check_device
from .guidance import add_guidance, check_guidance, guide
from .outputs import Folder, Output, Whole, check_out

DESCRIPTION = """Draw samples from a checkpoint of `train`, which holds all that is needed. A sample
depends on the seed and on its number, not on --batch. A folder of pictures that was stopped
(Ctrl-C) keeps those that are finished; the same command goes on from there."""
TO_DECODE = """latents, and the checkpoint has no decoder. For pictures, in Python:
    LatentDiffusion.from_checkpoint(CHECKPOINT, LatentSpace.load(FILE)).sample(N)
with the file of the latent space that the network was trained on."""
SEED_BITS = 32  # sample i of seed s has seed s 2^32 + i


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `sample`."""
    parser = commands.add_parser(
        "sample", help="samples from a trained model", description=DESCRIPTION
    )
    option = parser.add_argument
    option("checkpoint", type=Path, help="of `train`, or its folder: then the latest in it")
    option("--n", type=int, help="samples (default: about 64, as many of each class)")
    option(
        "--out",
        type=Path,
        default=Path("samples.npz"),
        metavar="PATH",
        help="a file .npz (numbers), a file .png (one picture of all), or a folder for a .png each "
        "(default: samples.npz)",
    )
    option("--steps", type=int, help="of the solver (default 20)")
    option(
        "--solver",
        default="default",
        metavar="SOLVER|PLAN.JSON",
        help="with options after it ('ddim eta=0.5'), or the file of a plan (see: sde-diffusion "
        "list)",
    )
    option("--times", default="default", help="the solver's grid (see: sde-diffusion list grids)")
    option(
        "--class",
        dest="classes",
        metavar="3|3,5|none",
        help="of the samples, taking turns; none: without condition (default: all of them)",
    )
    option(
        "--context",
        type=Path,
        metavar="FILE.NPY",
        help="conditions that are images or tokens, taking turns (default: none)",
    )
    add_guidance(parser)
    option("--average", metavar="WIDTH", help="of the average of the weights (default: the first)")
    option("--seed", type=int, default=0, help="of the noise (default 0)")
    option("--batch", type=int, default=256, help="samples at once (default 256)")
    option("--device", help="of the network (default: cuda if there is one, else cpu)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw, write, and say where."""
    for name in ("n", "steps", "batch"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name} {number} must be at least 1")
    if not 0 <= options.seed < 2**31:
        raise ValueError(f"--seed {options.seed} must lie in [0, 2^31)")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    solver, more = _solver(options)
    model = load_model(options.checkpoint, options.average, device)
    latents = model.data.startswith(LATENTS)
    if latents and options.out.suffix != ".npz":
        raise ValueError(f"--out {options.out}: {model.about} makes no pictures but {TO_DECODE}")
    check_out(options.out, model.event_shape)
    if options.context is not None and options.classes is not None:
        raise ValueError(
            f"--class {options.classes} beside --context {options.context}: a sample has one kind "
            "of condition or none; leave out one of them"
        )
    classes = _classes(options.classes, model)
    turns = None if classes is None else len(classes)
    given = _context(options.context, model)
    check_guidance(options, model, classes is not None or given is not None)
    usual = usual_count(turns) if given is None else len(given)
    options.n = usual if options.n is None else options.n
    labels = None if classes is None else torch.tensor(classes).repeat(options.n)[: options.n]
    context = labels if given is None else given[torch.arange(options.n) % len(given)]
    output = _output(options, model, turns, given)
    try:
        _draw(options, model, context, output, solver, more)
        output.finish(labels)
    except KeyboardInterrupt:
        if isinstance(output, Folder):
            raise
        print("Stopped; nothing is written. With a folder as --out, finished samples are kept.")
        return 130
    print(f"{options.n} samples of {model.about}: {options.out}")
    if latents:
        print(f"They are {TO_DECODE}")
    return 0


def _draw(
    options: argparse.Namespace,
    model: LoadedModel,
    context: Tensor | None,
    output: Output,
    solver: str,
    more: dict[str, Any],
) -> None:
    """All samples that are not there yet, by batches."""
    missing = output.missing(options.n)
    with Progress(len(missing)) as progress, torch.inference_mode():
        for first in range(0, len(missing), options.batch):
            numbers = missing[first : first + options.batch]
            given = () if context is None else (context[numbers].to(model.denoiser.device),)
            x = sample(
                guide(options, model.denoiser.given(*given)),
                (len(numbers), *model.event_shape),
                solver=solver,
                steps=options.steps,
                times=options.times,
                seed=[(options.seed << SEED_BITS) + number for number in numbers],
                **more,
            )
            output.add(numbers, x)
            progress.advance(len(numbers), f"{options.n} samples")


def _solver(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """A solver's name or a plan's file, and the options after it.

    Raises:
        TypeError, ValueError: unknown names, or a solver that needs what is not given, or does not
            take what is.
    """
    text: str = options.solver
    name, *words = text.split() or [""]
    if text in PRESETS or text.endswith(".json"):
        name, words = text, []
    method = find_solver(load_plan(name))
    more = options_of(name, method, words)
    check_options(method, more)
    if name.endswith(".json") and (options.steps is not None or options.times != "default"):
        raise ValueError(f"--solver {name} has its own times: leave out --steps and --times")
    own_steps = method in ADAPTIVE.values() and more.get("method") not in FIXED_STEPS
    if own_steps and options.steps is not None:
        raise ValueError(
            f"--solver {name} chooses its own steps, as many as its tolerances ask for: leave out "
            f"--steps; as --solver '{name} rtol=1e-4'"
        )
    return name, more


def _classes(text: str | None, model: LoadedModel) -> Sequence[int] | None:
    """The classes that take turns; None: without condition."""
    if model.classes is None:
        if text not in (None, "none"):
            raise ValueError(f"--class {text}: {model.about} was trained without classes")
        return None
    if text == "none":
        if model.drop == 0:
            raise ValueError(
                "--class none: the model was trained with drop = 0, and has not learned to go "
                "without a class; leave it out, or train with drop = 0.1 under [objective]"
            )
        return None
    try:
        chosen = range(model.classes) if text is None else [int(c) for c in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--class {text}: give numbers with commas between, or none") from error
    wrong = next((c for c in chosen if not 0 <= c < model.classes), None)
    if wrong is not None:
        raise ValueError(f"--class {wrong}: the classes are 0 to {model.classes - 1}")
    return chosen


def _context(path: Path | None, model: LoadedModel) -> Tensor | None:
    """The images or tokens that take turns as conditions; None: without."""
    network = model.denoiser.network
    known = getattr(network, "configuration", {})
    takes = [kind for name, (kind, *_) in VECTORS.items() if known.get(name)]
    if path is None:
        if takes and model.drop == 0:
            raise ValueError(
                f"{model.about} was trained with {takes[0]} as conditions and drop = 0, and has "
                "not learned to go without: give them, --context FILE.npy"
            )
        return None
    if not takes:
        raise ValueError(f"--context {path}: {model.about} was trained without such conditions")
    data = NumpyData(path, channels_last=False)
    context = data.batch(torch.arange(len(data))).x
    low, high = (float(v) for v in context.aminmax()) if context.numel() else (0.0, 0.0)
    if takes[0] == "images" and like_bytes(low, high):
        raise ValueError(
            f"--context {path} has values from {low:g} to {high:g}, as bytes have: save them as "
            "uint8, which is scaled to [-1, 1], or scaled as in training, as y / 127.5 - 1 (for a "
            "network trained on such values, in Python: sample(denoiser.given(y), ..))"
        )
    return context


def _output(
    options: argparse.Namespace, model: LoadedModel, turns: int | None, given: Tensor | None
) -> Output:
    if options.out.suffix:
        return Whole(options.out, model.range, turns)
    assert isinstance(model.denoiser.network, nn.Module)
    is_file = options.solver.endswith(".json")
    about = {
        "weights": digest_of(model.denoiser.network.state_dict()),
        "solver": digest(Path(options.solver).read_text()) if is_file else options.solver,
        "steps": options.steps,
        "times": options.times,
        "class": options.classes,
        "context": None if given is None else digest_of({"context": given}),
        "guidance": options.guidance,
        "interval": options.interval,
        "seed": options.seed,
    }
    return Folder(options.out, model.range or (-1.0, 1.0), about)
