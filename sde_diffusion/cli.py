"""The command line: `sde-diffusion` or `python -m sde_diffusion`.

A subcommand is a module of `commands` with a function `add`, listed below.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .commands import certify, compare, listing, sample, train, tune

COMMANDS = (train, sample, compare, tune, certify, listing)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns 0, 1 on an error, 130 if stopped, 141 if nobody reads on."""
    parser = argparse.ArgumentParser(
        "sde-diffusion", description="Diffusion models: one network, every solver."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read has read enough: list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        print("Stopped. What is finished is kept; the same command goes on from there.")
        for note in getattr(stop, "__notes__", []):
            print(note)
        return 130
    except (ImportError, OSError, TypeError, ValueError, FloatingPointError) as error:
        notes = getattr(error, "__notes__", [])
        print(*(f"error: {error}", *notes), sep="\n", file=sys.stderr)
        return 1
