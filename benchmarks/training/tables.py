"""The results as text."""

from __future__ import annotations

from typing import Any

from .recipes import BASE

Pair = dict[str, float]


def pair(value: Pair, digits: int) -> str:
    """A mean and its standard error, if it has one."""
    error = value["standard error"]
    known = error == error
    return f"{value['mean']:.{digits}f}" + (f" ± {error:.{digits}f}" if known else "")


def table(head: list[str], rows: list[list[str]]) -> str:
    """In markdown, the first column to the left."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def report(result: dict[str, Any]) -> str:
    """Markdown: the end of training, the way there, what seeds change, the trainer's overhead."""
    cells, floor, overhead = result["cells"], result["floor"], result["overhead"]
    steps = sorted({int(n) for found in cells.values() for n in found})
    last = str(steps[-1])
    first = next(iter(cells.values()))[last]
    solver = max(found[last]["flow"]["solver"] for found in cells.values())
    ends = [
        _end(name, found[last], result["seconds of a step"][name]) for name, found in cells.items()
    ]
    real = ["*two real sets*", "", *(pair(floor[m], 4) for m in floor), "", "", ""]
    parts = [
        "# What training buys",
        _sentences(result, first),
        f"After {last} steps:",
        table(
            ["recipe", "seconds", "Fréchet", "sliced W2", "bound", "flow", "flow less bound"],
            [*ends, real],
        ),
        f"Flow and difference are of the first {first['flow']['images']} held-out digits, whose "
        "own spread is most of the error of the flow alone. The solver's estimate of its own "
        f"error, that of half the steps, is at most {solver:.3f} bits.",
        "Fréchet distance as training goes, and the bound in bits per dimension:",
        table(
            ["recipe", *(f"{n} steps" for n in steps), *(f"bound, {n}" for n in steps)],
            [_way(name, found, steps) for name, found in cells.items()],
        ),
        _seeds(result["seeds"], last),
        "A step of the trainer against a bare PyTorch loop, milliseconds of processor time at a "
        f"batch of {overhead[0]['batch']}:",
        table(
            ["network", "parameters", "trainer", "bare loop", "ratio"],
            [_overhead(row) for row in overhead],
        ),
        f"Sizes: {', '.join(f'{name} {v}' for name, v in result['sizes'].items() if v)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _sentences(result: dict[str, Any], first: dict[str, Any]) -> str:
    about, sizes = result["about"], result["sizes"]
    return (
        f"`{about['command']}`, {about['date']}, {about['processor']}, {about['torch threads']} "
        f"thread; {about['versions']}.\n\n"
        f"A U-Net of {first['parameters']:,} parameters on 1,198 digits of 8 x 8 pixels and 17 "
        f"grey levels, under recipes that differ from `{BASE}` in one thing each. Seconds are of "
        f"one processor, so many times those of a step. Distances are of {sizes['images']} samples "
        f"({sizes['sampling_steps']} steps of the default solver) to as many held-out digits, mean "
        f"± standard error over {sizes['seeds']} seeds of the sampler. Bound (continuous, over "
        "bins) and flow are bits per dimension of held-out digits, ± standard error over digits."
    )


def _end(name: str, found: dict[str, Any], step: float) -> list[str]:
    flow = found["flow"]
    return [
        name,
        f"{found['steps'] * step:.1f}",
        pair(found["frechet"], 2),
        pair(found["sliced"], 4),
        pair(found["bound"], 3),
        pair(flow, 3),
        pair(flow["less the bound"], 3),
    ]


def _way(name: str, found: dict[str, Any], steps: list[int]) -> list[str]:
    return [
        name,
        *(f"{found[str(n)]['frechet']['mean']:.2f}" for n in steps),
        *(f"{found[str(n)]['bound']['mean']:.3f}" for n in steps),
    ]


def _seeds(seeds: dict[str, Any], last: str) -> str:
    spread = seeds[last]
    return (
        f"Another seed of the training (first weights, order, noise) changes figures too: over "
        f"{spread['runs']} runs of `{BASE}` the standard deviation after {last} steps is "
        f"{spread['frechet']:.2f} in the Fréchet distance, {spread['sliced']:.4f} in the sliced "
        f"one and {spread['bound']:.3f} bits in the bound. A difference between two recipes that "
        "is less than two or three of these says nothing."
    )


def _overhead(row: dict[str, Any]) -> list[str]:
    times = row["milliseconds"]
    return [
        row["network"],
        f"{row['parameters']:,}",
        f"{times['trainer']:.2f}",
        f"{times['bare loop']:.2f}",
        f"{row['ratio']:.2f}",
    ]
