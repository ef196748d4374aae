"""Arguments that several subcommands read alike."""

from __future__ import annotations

import argparse

import torch


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1: "3,32,32" or "3x32x32"."""
    try:
        values = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give whole numbers with commas between"
        ) from error
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: every number must be at least 1")
    return values


def share(text: str) -> float | int:
    """A share, "0.25", or a whole number of things, "512"."""
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model` and `--shape`: what is asked, and for samples of which shape."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODULE:DENOISER",
        help="a Denoiser, or a function that returns one, looked for in this folder first; or a "
        "checkpoint of `train`",
    )
    parser.add_argument(
        "--shape", required=True, type=numbers, metavar="3,32,32", help="of one sample"
    )


def check_device(device: str | None) -> None:
    """ValueError unless torch can use it."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, or none that torch can use
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device}: {reason}; as --device cpu or cuda") from error


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [part.strip() for part in text.split(",") if part.strip()]
