"""Small autoencoders and what they encode, for the tests of latents."""

import torch
from torch import nn

from sde_diffusion.networks import Autoencoder, Autoencoding, Posterior
from sde_diffusion.training.random import generator_at

FORM = {"latent": 3, "width": 8, "multipliers": (1, 2)}


def images(count=70, seed=0):
    return 0.5 + torch.randn(count, 1, 4, 6, generator=generator_at(seed))


def autoencoder(variational=True, seed=0):
    return Autoencoder(1, **FORM, variational=variational, seed=seed)


class Rotation(Autoencoding):
    """Points m = Q^T x of two numbers, all of x."""

    variational = False

    def __init__(self, matrix):
        super().__init__()
        self.configuration = {"kind": "rotation"}
        self.matrix = nn.Parameter(matrix)

    def encode(self, x):
        return Posterior(x @ self.matrix)

    def decode(self, z):
        return z @ self.matrix.T
