"""`--guidance` of `sample`: classifier-free guidance of a trained model."""

from __future__ import annotations

import argparse
import math

from ..denoise import Denoiser, NetworkDenoiser
from ..guidance import classifier_free, limited_interval
from ..training.load import LoadedModel


def add_guidance(parser: argparse.ArgumentParser) -> None:
    """`--guidance` and `--interval`."""
    parser.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="classifier-free, d_u + W (d_c - d_u): 1 is the conditional model, and above it "
        "samples are more of their condition and less various (default: none)",
    )
    parser.add_argument(
        "--interval",
        metavar="LOW,HIGH",
        help="guide where LOW < sigma/alpha <= HIGH alone (default: everywhere)",
    )


def check_guidance(options: argparse.Namespace, model: LoadedModel, conditional: bool) -> None:
    """Refuse guidance that the model cannot have.

    Args:
        options: of the command line.
        model: of the checkpoint.
        conditional: whether the samples have a condition.

    Raises:
        ValueError: no condition; a model that knows nothing without one; numbers that are none.
    """
    w = options.guidance
    if w is None:
        if options.interval is not None:
            raise ValueError(f"--interval {options.interval} limits guidance: give --guidance too")
        return
    if not math.isfinite(w):
        raise ValueError(f"--guidance {w} must be a finite number, as 3")
    if not conditional:
        raise ValueError(
            f"--guidance {w:g} needs a condition, and these samples of {model.about} have none: "
            "give --class or --context, with a model that was trained with it"
        )
    if model.drop == 0 and w != 1:
        raise ValueError(
            f"--guidance {w:g}: the model was trained with drop = 0, and has not learned to go "
            "without a condition; train with drop = 0.1 under [objective]"
        )
    _interval(options.interval)


def guide(options: argparse.Namespace, conditional: NetworkDenoiser) -> Denoiser:
    """The denoiser under the guidance that was asked for."""
    if options.guidance is None:
        return conditional
    guided = classifier_free(conditional, scale=options.guidance)
    return limited_interval(guided, *_interval(options.interval)) if options.interval else guided


def _interval(text: str | None) -> tuple[float, float]:
    """LOW,HIGH.

    Raises:
        ValueError: not two numbers, or an empty interval.
    """
    if text is None:
        return 0.0, math.inf
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--interval {text}: give two noise levels, as 0.2,5") from error
    if not 0 <= low < high:
        raise ValueError(f"--interval {text}: 0 <= LOW < HIGH, as 0.2,5")
    return low, high
