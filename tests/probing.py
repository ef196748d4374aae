"""The exact law of a random affine map, without Monte Carlo: every draw fed one unit at a time.

A sampler on Gaussian data is affine in its draws. Run as a batch in which sample 0 gets no noise at
all and every other sample one unit in one entry of one draw, it answers with its mean and with a
column of the matrix that its draws are multiplied by.
"""

import torch

from sde_diffusion.noise import Noise


class UnitNoise(Noise):
    """Sample 1 + k D + i has a one in entry i of the k-th draw, in the order of asking."""

    def __init__(self, batch, made=None):
        self.batch, self.made = batch, [] if made is None else made

    def unit(self, out):
        """The next draw."""
        entries = out[0].numel()
        first = 1 + len(self.made) * entries
        assert first + entries <= self.batch, "too small a batch for so many draws"
        self.made.append(first)
        flat = torch.zeros(len(out), entries, dtype=out.dtype)
        flat[first : first + entries] = torch.eye(entries, dtype=out.dtype)
        return out.copy_(flat.reshape(out.shape))

    def start(self, out):
        if not hasattr(self, "first"):  # asked twice, it is one draw
            self.first = self.unit(torch.empty_like(out))
        return out.copy_(self.first)

    def stream(self, like, course):
        return lambda out, t, s: self.unit(out)

    def apart(self):
        return UnitNoise(self.batch, self.made)


def law_of(results):
    """Mean (D,) and covariance (D, D) from the results of a batch that was fed units."""
    flat = results.flatten(1)
    response = flat[1:] - flat[0]
    return flat[0], response.T @ response
