"""Every operator, small; a new one that is not here fails `test_every_operator_is_listed`."""

import torch

from sde_diffusion.inverse import (
    Blur,
    Downsample,
    FunctionOperator,
    LinearFunctionOperator,
    LinearOperator,
    Mask,
    Matrix,
    PhaseRetrieval,
    Projection,
    gaussian_kernel,
    motion_kernel,
)


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


class Iterated(Smoothing):
    """Solved by conjugate gradients, as if it were large."""

    decomposed = 0


class IteratedRepeated(Repeated):
    decomposed = 0


LINEAR = {
    "a wide matrix": lambda: Matrix(_rows(3, 6)),
    "a tall matrix of images": lambda: Matrix(_rows(8, 6), (1, 2, 3)),
    "a matrix of rank 2": lambda: Matrix(_rows(4, 2) @ _rows(2, 5)),
    "a mask": lambda: Mask(torch.tensor([[True, False, True], [False, False, True]])),
    "a user's own": Smoothing,
    "a user's own, singular": Repeated,
    "a user's own, iterated": Iterated,
    "a user's own, singular, iterated": IteratedRepeated,
    "a blur": lambda: Blur(gaussian_kernel(0.6, size=3), (2, 4, 5)),
    "a blur by motion": lambda: Blur(motion_kernel(3.0, 30), (6, 6)),
    "a blur with zeros": lambda: Blur([0.5, 0.5], (3, 6)),
    "fewer pixels": lambda: Downsample(2, (2, 4, 6)),
    "line integrals": lambda: Projection([0, 25, 90, 130], (1, 4, 4)),
    "a linear function": lambda: LinearFunctionOperator(lambda x: x.cumsum(1), (4,)),
}
NONLINEAR = {
    "magnitudes": lambda: PhaseRetrieval((1, 3, 3)),
    "a function": lambda: FunctionOperator(lambda x: (3 * x).tanh().flatten(1)[:, :3], (2, 2)),
}
OPERATORS = {**LINEAR, **NONLINEAR}
