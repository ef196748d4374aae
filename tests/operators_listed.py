"""Every operator, small; a new one that is not here fails `test_every_operator_is_listed`."""

import torch

from sde_diffusion.inverse import LinearOperator, Mask, Matrix


def _rows(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


class Smoothing(LinearOperator):
    """A user's own: only `apply` is said; neighbours are averaged, one row is lost."""

    event_shape, measured_shape = (4, 3), (3, 3)

    def apply(self, x):
        return 0.5 * (x[:, 1:] + x[:, :-1])


class Repeated(Smoothing):
    """Everything measured twice, so that A A^T is singular."""

    measured_shape = (2, 3, 3)

    def apply(self, x):
        return torch.stack([super().apply(x)] * 2, 1)


LINEAR = {
    "a wide matrix": lambda: Matrix(_rows(3, 6)),
    "a tall matrix of images": lambda: Matrix(_rows(8, 6), (1, 2, 3)),
    "a matrix of rank 2": lambda: Matrix(_rows(4, 2) @ _rows(2, 5)),
    "a mask": lambda: Mask(torch.tensor([[True, False, True], [False, False, True]])),
    "a user's own": Smoothing,
    "a user's own, singular": Repeated,
}
NONLINEAR = {}
OPERATORS = {**LINEAR, **NONLINEAR}
