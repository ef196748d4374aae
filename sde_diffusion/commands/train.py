"""sde-diffusion train: a model, from a configuration in a file."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from ..names import look_up
from ..training.build import trainer_of
from ..training.config import read_configuration
from ..training.pictures import has_picture
from ..training.processes import is_first
from ..weights import latest

DESCRIPTION = """Train the model of a configuration. A run that is stopped (Ctrl-C, or killed) keeps
its last checkpoint; the same command goes on from there and ends with the same bits as one that was
not stopped, and with more --steps it trains further. For several devices: accelerate launch -m
sde_diffusion train CONFIG."""
EXAMPLES = {
    path.name.removesuffix(".toml"): path
    for path in files("sde_diffusion.examples").iterdir()
    if path.name.endswith(".toml")
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `train`."""
    parser = commands.add_parser(
        "train", help="a model, from a configuration", description=DESCRIPTION
    )
    option = parser.add_argument
    option("config", nargs="?", type=Path, metavar="CONFIG", help="a .toml or .json file")
    option(
        "--example",
        metavar="NAME",
        help=f"print a configuration to begin with: {', '.join(sorted(EXAMPLES))}",
    )
    option(
        "--folder",
        type=Path,
        help="where checkpoints, losses and pictures go (default: CONFIG without its suffix)",
    )
    option("--steps", type=int, help="of training (default: what the configuration says)")
    option(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="another value than the configuration has, as training.learning_rate=1e-4; may be "
        "repeated",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and say where the checkpoint is and how to sample from it."""
    if options.example is not None:
        print(look_up("example", options.example, EXAMPLES).read_text(), end="")
        return 0
    if options.config is None:
        raise ValueError("give a configuration, or print one: sde-diffusion train --example digits")
    configuration = read_configuration(options.config).changed(options.set)
    if options.steps is not None:
        configuration = configuration.changed([f"training.steps={options.steps}"])
    said = configuration.training.get("folder")
    if not isinstance(said, str | None):
        raise ValueError(f"{configuration.place('training')}: folder = {said!r}: give a text")
    folder = Path(options.folder or said or options.config.with_suffix(""))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give another one, --folder")
    trainer = trainer_of(configuration, folder, progress=True)
    result = trainer.train()
    if not is_first():
        return 0
    print(f"step {result.step}, loss {float(result.losses[-100:].mean()):.4g}: {latest(folder)}")
    out = "samples.png" if has_picture(trainer.options.data.event_shape) else "samples.npz"
    print(f"Samples from it:\n    sde-diffusion sample {folder} --out {out}")
    return 0
