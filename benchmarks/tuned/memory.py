"""Peak memory of fitting a plan to a large network: one gradient step of a 5-call plan.

python -m benchmarks.tuned.memory [--batch 1 4] [--chunk 4] [--output DIR]

The network is a convolutional U-Net of 50 million parameters on 3 x 64 x 64 with random weights.
Each figure is the peak resident memory (getrusage) of a process of its own, on the CPU, so that
weights, libraries and allocator are in it:

    call            the network once, without gradient: what any use of it needs
    checkpointed    `tuning.gradient`, one iteration and its looks at the loss, as it is
    kept            the same step with all that autograd keeps by itself
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from sde_diffusion import SOLVERS, NetworkDenoiser, VPLinear, run
from sde_diffusion.files import write_atomic
from sde_diffusion.networks import TimeEmbedding
from sde_diffusion.times import default
from sde_diffusion.tuning.gradient import gradient
from sde_diffusion.tuning.knots import knots
from sde_diffusion.tuning.loss import endpoint
from sde_diffusion.tuning.pairs import Pairs

from ..about import where_and_when

STEPS, CHANNELS, WIDTHS = 5, 3, (96, 192, 320, 512)
CASES = ("call", "checkpointed", "kept")


class Block(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h))) + W e_t)))."""

    def __init__(self, enter: int, leave: int, embedding: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, enter), nn.GroupNorm(8, leave)])
        self.first = nn.Conv2d(enter, leave, 3, padding=1)
        self.second = nn.Conv2d(leave, leave, 3, padding=1)
        self.time = nn.Linear(embedding, leave)
        self.skip = nn.Conv2d(enter, leave, 1)

    def forward(self, h: Tensor, e_t: Tensor) -> Tensor:
        """(batch, enter, H, W) -> (batch, leave, H, W)."""
        g = self.first(silu(self.norms[0](h))) + self.time(e_t)[:, :, None, None]
        return self.skip(h) + self.second(silu(self.norms[1](g)))


class UNet(nn.Module):
    """Two blocks a resolution down, two in the middle, two a resolution up."""

    def __init__(self, widths: Sequence[int] = WIDTHS, embedding: int = 256) -> None:
        super().__init__()
        self.time = TimeEmbedding(embedding)
        self.enter = nn.Conv2d(CHANNELS, widths[0], 3, padding=1)
        down, up, sizes, now = [], [], [widths[0]], widths[0]
        for width in widths:
            for _ in range(2):
                down.append(Block(now, width, embedding))
                now = width
                sizes.append(now)
        self.middle = nn.ModuleList(Block(now, now, embedding) for _ in range(2))
        for width in reversed(widths):
            for _ in range(2):
                up.append(Block(now + sizes.pop(), width, embedding))
                now = width
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.leave = nn.Conv2d(now, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(batch, 3, H, W), (batch,) -> (batch, 3, H, W)."""
        e_t, h = self.time(t), self.enter(x)
        kept = []
        for i, block in enumerate(self.down):
            h = block(h, e_t)
            kept.append(h)
            if i % 2 and i < len(self.down) - 1:
                h = interpolate(h, scale_factor=0.5)
        for block in self.middle:
            h = block(h, e_t)
        for i, block in enumerate(self.up):
            h = block(torch.cat([h, kept.pop()], 1), e_t)
            if i % 2 and i < len(self.up) - 1:
                h = interpolate(h, scale_factor=2.0)
        return torch.as_tensor(self.leave(h))


def step(case: str, batch: int, chunk: int) -> dict[str, Any]:
    """Do it, here, and tell what it took."""
    torch.manual_seed(0)
    network = UNet()
    schedule = VPLinear()
    denoiser = NetworkDenoiser(network, schedule, prediction="noise")
    x = torch.randn(batch, CHANNELS, 64, 64)
    pairs = Pairs(x, torch.ones_like(x), 1.0, 0.0)
    times = default(schedule, STEPS)
    family = knots("dpm_solver_pp_2m", schedule, times)
    began = time.monotonic()
    if case == "call":
        with torch.no_grad():
            denoiser(x[:chunk], 0.5)
    elif case == "checkpointed":
        gradient(
            *(family, denoiser, endpoint(), pairs, pairs.part(0, 1)),
            max_iterations=1,
            batch=batch,
            chunk=chunk,
        )
    else:
        u = family.start.clone().requires_grad_()
        plan = family.build(u)
        end = run(plan, denoiser, x, grad=True)
        loss = endpoint().residual(end[None], torch.tensor(plan.times[-1:]), pairs).square().sum()
        torch.autograd.grad(loss, u)
    return {
        "case": case,
        "batch": batch,
        "chunk": min(batch, chunk) if case != "kept" else batch,
        "calls": SOLVERS["dpm_solver_pp_2m"](schedule, times).nfe if case != "call" else 1,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "seconds": round(time.monotonic() - began, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each case in a process of its own, print, write."""
    parser = argparse.ArgumentParser("python -m benchmarks.tuned.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--chunk", type=int, default=4, help="samples run at once")
    parser.add_argument("--output", metavar="DIR", help="default: benchmarks/output/tuned")
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        print(json.dumps(step(options.only, options.batch[0], options.chunk)))
        return 0
    about = where_and_when("benchmarks.tuned.memory")
    rows = []
    for batch in options.batch:
        for case in CASES:
            command = [sys.executable, "-m", "benchmarks.tuned.memory", "--only", case]
            command += ["--batch", str(batch), "--chunk", str(options.chunk)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    folder = Path(options.output or Path(__file__).parents[1] / "output" / "tuned")
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"about": about, "rows": rows}, indent=1)
    write_atomic(folder / "memory.json", content.encode())
    print(f"File: {folder / 'memory.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
