"""What every operator promises: adjoint, solutions, pseudo-inverse, samples kept apart."""

import inspect
import math
from itertools import product

import pytest
import torch
from cases import each
from operators_listed import LINEAR, OPERATORS

from sde_diffusion import inverse
from sde_diffusion.inverse import Blur, LinearOperator, Mask, Matrix, Operator
from sde_diffusion.inverse.conjugate_gradients import conjugate_gradients

F64 = torch.float64


def _draw(shape, batch=3, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator, dtype=F64).to(dtype)


linear = pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR.keys())
every = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS.keys())


def test_every_operator_is_listed():
    public = {
        value
        for value in vars(inverse).values()
        if inspect.isclass(value) and issubclass(value, Operator) and not inspect.isabstract(value)
    }
    assert public <= {type(make()) for make in OPERATORS.values()}


@linear
def test_adjoint(make):
    operator = make()
    x, y = _draw(operator.event_shape), _draw(operator.measured_shape, seed=1)
    there = (operator(x) * y).flatten(1).sum(1)
    back = (x * operator.adjoint(y)).flatten(1).sum(1)
    torch.testing.assert_close(there, back)


@linear
def test_matrix_is_the_operator(make):
    operator = make()
    x = _draw(operator.event_shape)
    torch.testing.assert_close(operator(x).flatten(1), x.flatten(1) @ operator.matrix().T)


@linear
@each("dtype", [torch.float32, F64])
@each(("a", "b"), [(1.0, 1e-2), (0.3, 2.0), (0.0, 3.0), (2.0, 0.0)])
def test_solve(make, dtype, a, b):
    operator = make()
    v = _draw(operator.measured_shape, dtype=dtype)
    u = operator.solve(v, a, b)
    assert u.dtype is dtype
    matrix = operator.matrix()
    system = a * matrix @ matrix.T + b * torch.eye(len(matrix), dtype=F64)
    expected = v.double().flatten(1) @ torch.linalg.pinv(system, rtol=1e-10, hermitian=True)
    tolerance = 1e-8 if dtype is F64 else 2e-3
    size = float(expected.abs().max())
    torch.testing.assert_close(
        u.double().flatten(1), expected, rtol=tolerance, atol=tolerance * size
    )


@linear
@pytest.mark.parametrize("function", [lambda s2: s2 / (1 + s2), lambda s2: (-s2).exp()])
def test_functions_of_the_squared_singular_values(make, function):
    """One where f(0) = 0, and one where not: what no datum explains is scaled by f(0)."""
    operator = make()
    operator.decomposed = 100
    v = _draw(operator.measured_shape)
    matrix = operator.matrix()
    s2, u = torch.linalg.eigh(matrix @ matrix.T)
    expected = v.flatten(1) @ u @ torch.diag(function(s2)) @ u.T
    found = operator.spectral(v, function)
    assert found.shape == v.shape
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-8, atol=1e-8)
    by_sample = torch.tensor([1.0, 2.0, 0.0], dtype=F64)
    scaled = operator.spectral(
        v, lambda s2: by_sample.reshape(-1, *[1] * (s2.ndim - 1)) * function(s2)
    )
    torch.testing.assert_close(scaled.flatten(1), by_sample[:, None] * expected)


@linear
def test_solve_with_numbers_of_each_sample(make):
    operator = make()
    v = _draw(operator.measured_shape)
    a, b = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.1, 1.0, 0.0])
    together = operator.solve(v, a, b)
    for i in range(3):
        alone = operator.solve(v[i : i + 1], float(a[i]), float(b[i]))
        torch.testing.assert_close(
            together[i : i + 1], alone, rtol=1e-6, atol=1e-8 * float(alone.abs().max())
        )


@linear
@each("dtype", [torch.float32, F64])
@each("b", [0.3, 1e-7, 0.0])
def test_adjoint_solve_keeps_its_digits_where_b_is_small(make, dtype, b):
    """Also of measurements that no datum explains."""
    operator, a = make(), torch.tensor([1.0, 0.4, 3.0], dtype=F64)
    v = _draw(operator.measured_shape, dtype=dtype)
    u, s, vt = torch.linalg.svd(operator.matrix(), full_matrices=False)
    weights = torch.where(s > 1e-9, s / (a[:, None] * s**2 + b).clamp_min(1e-300), 0.0)
    expected = (v.double().flatten(1) @ u * weights) @ vt
    found = operator.adjoint_solve(v, a, b)
    assert found.dtype is dtype
    assert found.shape[1:] == operator.event_shape
    tolerance = float(expected.abs().max()) * (1e-7 if dtype is F64 else 5e-3)
    torch.testing.assert_close(found.double().flatten(1), expected, rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match="a = b = 0"):
        operator.adjoint_solve(v, 0.0, 0.0)


@linear
def test_pseudo_inverse_is_that_of_moore_and_penrose(make):
    operator = make()
    a = operator.matrix()
    eye = torch.eye(len(a), dtype=F64).reshape(-1, *operator.measured_shape)
    p = operator.pseudo_inverse(eye).flatten(1).T
    close = lambda x, y: torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-8)
    close(a @ p @ a, a)
    close(p @ a @ p, p)
    close((a @ p).T, a @ p)
    close((p @ a).T, p @ a)


@every
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_measurements_follow_the_dtype_and_shape(make, dtype):
    operator = make()
    x = _draw(operator.event_shape, dtype=dtype)
    y = operator(x)
    assert y.dtype is dtype
    assert y.shape == (3, *operator.measured_shape)
    torch.testing.assert_close(y.double(), operator(x.double()), rtol=1e-4, atol=1e-4)


@every
def test_a_sample_is_measured_alone(make):
    operator = make()
    x = _draw(operator.event_shape)
    torch.testing.assert_close(operator(x)[1:2], operator(x[1:2]), rtol=1e-12, atol=1e-12)


@linear
def test_a_system_is_solved_alone(make):
    operator = make()
    v = _draw(operator.measured_shape)
    v[0] *= 100
    v[2] = 0  # converged before it begins
    for solve in (operator.pseudo_inverse, lambda v: operator.solve(v, 1.0, 0.1)):
        together = solve(v)
        assert not together[2].any()
        alone = solve(v[1:2])
        torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-9)


@every
def test_gradient(make):
    operator = make()
    x = _draw(operator.event_shape).requires_grad_()
    assert torch.autograd.gradcheck(operator, (x,))


@linear
def test_adjoint_passes_gradients_and_keeps_no_graph_unasked(make):
    operator = make()
    y = _draw(operator.measured_shape)
    assert not operator.adjoint(y).requires_grad
    assert torch.autograd.gradcheck(operator.adjoint, (y.requires_grad_(),))


@linear
def test_adjoint_in_no_grad_and_in_inference_mode(make):
    operator = make()
    y = _draw(operator.measured_shape)
    expected = operator.adjoint(y)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(make().adjoint(y.clone()), expected)
    operator(_draw(operator.event_shape).requires_grad_()).sum().backward()


def test_constants_first_used_in_inference_mode_serve_gradients_later():
    for made_there, dtype in product((False, True), (torch.float32, F64)):
        operator = LINEAR["a wide matrix"]()
        with torch.inference_mode():
            operator = LINEAR["a wide matrix"]() if made_there else operator
            operator(_draw((6,), dtype=dtype))
        x = _draw((6,), dtype=dtype).requires_grad_()
        operator(x).sum().backward()
        torch.testing.assert_close(x.grad[0], operator.matrix().sum(0).to(dtype))


def test_a_mask_shows_the_kept_entries():
    mask = torch.tensor([[True, False], [False, True]])
    x = _draw((2, 2))
    assert torch.equal(Mask(mask)(x), x[:, mask])
    assert torch.equal(Mask(mask).pseudo_inverse(x[:, mask]), x * mask)


class Hilbert(LinearOperator):
    """Condition number 1e18 and more: rounding settles the last of its singular values."""

    event_shape = measured_shape = (60,)
    decomposed = 0

    def apply(self, x):
        i = torch.arange(60).to(x)
        return x @ (1 / (1 + i + i[:, None]))


def test_conjugate_gradients_say_when_they_fail():
    v = _draw((60,))
    with pytest.raises(RuntimeError, match=r"badly conditioned.*operator.decomposed = "):
        Hilbert().solve(v, 1.0, 0.0)
    assert torch.isfinite(Hilbert().solve(v, 1.0, 1e-2)).all()
    decomposed = Hilbert()
    decomposed.decomposed = 60  # the cure that the message names
    assert torch.isfinite(decomposed.solve(v, 1.0, 0.0)).all()
    with pytest.raises(RuntimeError, match="residual of nan"):
        conjugate_gradients(lambda u: u * math.nan, v, 3, 1e-6)


@pytest.mark.parametrize("b", [1e-3, 1e-5, 1e-7])
def test_badly_conditioned_systems_of_float32_are_solved_to_its_rounding(b):
    """Condition numbers up to 2e7; iterations in float32 missed the answer by a hundredth."""
    v, operator = _draw((60,), dtype=torch.float32), Hilbert()
    u, s, vt = torch.linalg.svd(operator.matrix())
    inside = v.double() @ u
    for found, expected in (
        (operator.solve(v, 1.0, b), (inside / (s**2 + b)) @ u.T),
        (operator.adjoint_solve(v, 1.0, b), (inside * s / (s**2 + b)) @ vt),
    ):
        assert found.dtype is torch.float32
        assert (found - expected).norm() < 2e-5 * expected.norm()


@pytest.mark.parametrize("kind", ["matrix", "blur", "eigenvectors"])
def test_one_rank_for_all_operators(kind):
    """Singular values 1, 3e-6 and 3e-7 of the largest: the last alone counts as 0."""
    s = torch.tensor([1.0, 3e-6, 3e-7], dtype=F64)
    rotation = torch.linalg.qr(_draw((3,), batch=3)).Q
    if kind == "blur":  # two waves of two points: 1 and their difference
        for size, rank in ((3e-6, 2), (3e-7, 1)):
            operator = Blur(torch.tensor([(1 + size) / 2, (1 - size) / 2], dtype=F64), (2,))
            found = torch.linalg.matrix_rank(_pseudo_inverse(operator), rtol=1e-12)
            assert int(found) == rank
        return
    matrix = rotation * s @ rotation.T

    class Of(LinearOperator):
        event_shape = measured_shape = (3,)

        def apply(self, x):
            return x @ matrix.to(x).T

    operator = Matrix(matrix) if kind == "matrix" else Of()
    kept = s.clone().reciprocal().index_fill(0, torch.tensor([2]), 0.0)
    expected = rotation * kept @ rotation.T
    torch.testing.assert_close(_pseudo_inverse(operator), expected, rtol=1e-3, atol=1.0)


def _pseudo_inverse(operator):
    count = math.prod(operator.measured_shape)
    return operator.pseudo_inverse(torch.eye(count, dtype=F64)).flatten(1).T


@every
def test_operators_and_measurements_are_told_in_a_line(make):
    operator = make()
    shapes = f"({operator.event_shape} -> {operator.measured_shape})"
    assert repr(operator) == f"{type(operator).__name__}{shapes}"
    y = operator(_draw(operator.event_shape))
    told = repr(inverse.Measurement(operator, y, 0.25))
    assert told == f"Measurement({operator!r}, y of 3 samples, noise=0.25)"
    assert "y of all samples" in repr(inverse.Measurement(operator, y[0], 0.0))


def test_systems_of_numbers_that_are_not_finite_are_not_solved():
    operator = LINEAR["a user's own, iterated"]()
    v = _draw(operator.measured_shape)
    v[1, 0, 0] = math.nan
    for call in (lambda: operator.solve(v, 1.0, 0.1), lambda: operator.pseudo_inverse(v)):
        with pytest.raises(RuntimeError, match="for 1 of 3 samples"):
            call()


@every
def test_data_that_are_not(make):
    operator = make()
    with pytest.raises(ValueError, match="this operator measures data of event shape"):
        operator(torch.zeros(2, 99))
    with pytest.raises(ValueError, match="this operator measures data of event shape"):
        operator(torch.zeros(()))
    for wrong in (torch.zeros(2, *operator.event_shape, dtype=torch.int64), [[0.0]]):
        with pytest.raises(TypeError, match="not a float32 or float64 tensor"):
            operator(wrong)


@linear
def test_systems_that_are_not(make):
    operator = make()
    v = _draw(operator.measured_shape)
    for call in (operator.adjoint, operator.pseudo_inverse, lambda y: operator.solve(y, 1.0, 1.0)):
        with pytest.raises(ValueError, match="this operator has measurements of shape"):
            call(torch.zeros(2, 99))
    for a, b, says in (
        (-1.0, 1.0, "a = -1.0 must be finite and at least 0"),
        (1.0, math.nan, "b = nan must be finite and at least 0"),
        (0.0, 0.0, "no system to solve"),
        (torch.tensor([1.0, 0.0, 1.0]), 0.0, "no system to solve"),
        (torch.ones(2), 1.0, r"a has shape \(2,\), but there are 3 systems"),
    ):
        with pytest.raises(ValueError, match=says):
            operator.solve(v, a, b)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Mask(torch.ones(3)), TypeError, r"mask\) > 0.5"),
        (lambda: Mask([True]), TypeError, "mask is list"),
        (lambda: Mask(torch.zeros(3, dtype=torch.bool)), ValueError, "measures nothing"),
        (lambda: Matrix(torch.ones(3)), ValueError, r"give A of shape \(M, D\)"),
        (lambda: Matrix(torch.ones(3, 4), (2, 3)), ValueError, "holds 6 numbers, but the matrix"),
        (lambda: Matrix(torch.ones(1, 2) / 0), ValueError, "not finite"),
    ],
)
def test_operators_that_cannot_be(make, error, says):
    with pytest.raises(error, match=says):
        make()
