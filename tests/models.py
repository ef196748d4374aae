"""The small network and the exact model that tests of the engine run on."""

import math

import torch

import sde_diffusion as sd
from sde_diffusion.problems import ring

DOUBLE = torch.float64
VP = sd.VPLinear()
GRID = sd.times.uniform(VP, 6)
PROBLEM = ring()


class Net(torch.nn.Module):
    """A small network of (x, label), different at every label."""

    def __init__(self, event=(3,), dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        size = math.prod(event)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(size + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, size)
        ).to(dtype)

    def forward(self, x, label):
        flat = torch.cat([x.flatten(1), label[:, None].to(x.dtype)], 1)
        return self.body(flat).reshape(x.shape)
