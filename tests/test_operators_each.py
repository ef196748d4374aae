"""What each operator measures, and what it refuses."""

import math

import pytest
import torch

from sde_diffusion.inverse import (
    Blur,
    Downsample,
    FunctionOperator,
    LinearFunctionOperator,
    Matrix,
    Operator,
    PhaseRetrieval,
    Projection,
    gaussian_kernel,
    motion_kernel,
)

F64 = torch.float64


def _x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=F64)


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (1, 4), (5, 5)])
def test_blur_is_the_circular_sum(size):
    kernel, x = _x(*size), _x(2, 3, 5, 6)
    expected = torch.zeros_like(x)
    for i in range(size[0]):
        for j in range(size[1]):
            shift = (i - size[0] // 2, j - size[1] // 2)
            expected += kernel[i, j] * x.roll(shift, (-2, -1))
    torch.testing.assert_close(Blur(kernel, (3, 5, 6), cutoff=0)(x), expected)


def test_blur_takes_out_what_is_nearly_lost():
    # The kernel (1, 1)/2 has a zero at the highest wave, which rounding may hide.
    operator, wave = Blur([0.5, 0.5], (6,)), torch.tensor([[1.0, -1.0] * 3], dtype=F64)
    assert operator.pseudo_inverse(wave).abs().max() < 1e-14
    weak = Blur(torch.tensor([0.5, 0.49], dtype=F64), (6,), cutoff=0.02)
    assert weak(wave).abs().max() < 1e-14
    assert Blur(torch.tensor([0.5, 0.49], dtype=F64), (6,))(wave).abs().max() > 0.009


def test_kernels_have_their_moments():
    kernel = gaussian_kernel(1.5)
    i = torch.arange(len(kernel), dtype=F64) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel.sum(1) * i**2).sum() == pytest.approx(1.5**2, rel=0.05)  # cut at 3 std
    for angle in (0.0, 40.0, 90.0):
        kernel = motion_kernel(6.0, angle)
        i = torch.arange(len(kernel), dtype=F64) - len(kernel) // 2
        assert kernel.sum() == pytest.approx(1)
        down, across = (kernel.sum(1) * i**2).sum(), (kernel.sum(0) * i**2).sum()
        # A line of length L: L^2/12 along it, and at most 1/4 more from either of its pixels.
        c, s = math.cos(math.radians(angle)) ** 2, math.sin(math.radians(angle)) ** 2
        assert 0 <= across - 3 * c + 0.01 <= 0.27
        assert 0 <= down - 3 * s + 0.01 <= 0.27
    slanted = motion_kernel(6.0, 40.0)
    assert slanted[:3, 4:].sum() > 0.3  # anticlockwise: up on the right
    assert slanted[4:, 4:].sum() < 0.01


def test_fewer_pixels_are_means_of_blocks():
    x = _x(2, 1, 4, 6)
    operator = Downsample(2, (1, 4, 6))
    torch.testing.assert_close(operator(x), torch.nn.functional.avg_pool2d(x, 2))
    a = operator.matrix()
    torch.testing.assert_close(a @ a.T, torch.eye(6, dtype=F64) / 4)


def test_line_integrals_at_right_angles_are_sums():
    x = _x(2, 1, 6, 6)
    y = Projection([0.0, 90.0, 180.0], (1, 6, 6))(x)
    assert y.shape == (2, 1, 3, 10)
    torch.testing.assert_close(y[:, :, 0, 2:8], x.sum(-2))
    torch.testing.assert_close(y[:, :, 1, 2:8], x.sum(-1))
    torch.testing.assert_close(y[:, :, 2], y[:, :, 0].flip(-1))
    assert not y[..., :2].any()


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0, 90.0, 133.0])
@pytest.mark.parametrize("shape", [(5, 5), (4, 8), (3, 7)])
def test_line_integrals_of_a_constant_are_lengths_of_chords(angle, shape):
    height, width = shape
    y = Projection([angle], shape)(torch.ones(1, *shape, dtype=F64))[0, 0]
    theta = math.radians(angle)
    cos, sin = math.cos(theta), math.sin(theta)
    for s, found in zip(torch.arange(len(y), dtype=F64) - (len(y) - 1) / 2, y, strict=True):
        # The part of u where the point s (cos, sin) + u (-sin, cos) is inside the rectangle.
        first, last = -math.inf, math.inf
        for half, at, along in ((width / 2, s * cos, -sin), (height / 2, s * sin, cos)):
            if abs(along) < 1e-12:
                inside = abs(at) < half
                first, last = (first, last) if inside else (math.inf, -math.inf)
            else:
                ends = sorted(((-half - at) / along, (half - at) / along))
                first, last = max(first, ends[0]), min(last, ends[1])
        assert float(found) == pytest.approx(max(0.0, float(last - first)), abs=1e-9)


def test_line_integrals_see_an_image_turned_with_its_angles():
    x = _x(1, 6, 6)
    operator = Projection([20.0, 110.0], (6, 6))
    y, turned = operator(x)[0], operator(torch.rot90(x, -1, (1, 2)))[0]
    torch.testing.assert_close(turned[1], y[0], rtol=1e-9, atol=1e-9)


def test_magnitudes_keep_the_energy_and_lose_place_and_sign():
    operator, x = PhaseRetrieval((1, 4, 5)), _x(2, 1, 4, 5)
    y = operator(x)
    assert y.shape == (2, 1, 8, 10)
    torch.testing.assert_close(y.square().sum((1, 2, 3)), x.square().sum((1, 2, 3)))
    for same in (-x, x.flip((-2, -1))):
        torch.testing.assert_close(operator(same), y)
    correlation = torch.fft.ifft2(y.square()).real * math.sqrt(80)
    direct = [(x[0, 0, : 4 - i] * x[0, 0, i:]).sum() for i in range(4)]
    torch.testing.assert_close(correlation[0, 0, :4, 0] / math.sqrt(80) * 80, torch.stack(direct))


def test_a_function_becomes_the_operator_it_is():
    a = _x(3, 4)
    operator = LinearFunctionOperator(lambda x: x @ a.T.to(x), (4,))
    torch.testing.assert_close(operator.matrix(), a)
    v = _x(2, 3)
    for solve in (lambda o: o.solve(v, 0.7, 0.2), lambda o: o.pseudo_inverse(v)):
        torch.testing.assert_close(solve(operator), solve(Matrix(a)), rtol=1e-9, atol=1e-9)


def _one_for_two(x):
    return x[: max(1, len(x) // 2)]


def _by_batch(x):
    return x.new_zeros(len(x), len(x)) + x.mean()


@pytest.mark.parametrize("kind", [FunctionOperator, LinearFunctionOperator])
@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (3, TypeError, "must be callable"),
        (lambda x: None, TypeError, "returned NoneType, not a tensor"),
        (lambda x: x.double(), TypeError, r"returned torch.float64 for data in torch.float32"),
        (lambda x: x.float(), TypeError, r"returned torch.float32 for data in torch.float64"),
        (lambda x: x.sum(), ValueError, r"returned shape \(\) for 3 samples"),
        (lambda x: x.sum(1), ValueError, r"return y\[:, None\]"),
        (_one_for_two, ValueError, r"returned shape \(1, 4\) for 3 samples"),
        (_by_batch, ValueError, "its shape may not depend on the batch"),
        (lambda x: x - x.mean(0), ValueError, "mixes samples, or draws random numbers"),
        (lambda x: x + torch.randn_like(x), ValueError, "mixes samples, or draws random numbers"),
        (lambda x: x / 0, ValueError, "not finite"),
    ],
)
def test_functions_that_measure_nothing(kind, function, error, says):
    with pytest.raises(error, match=says):
        kind(function, (4,))


def test_linear_functions_that_are_not():
    for function in (lambda x: x**2, lambda x: x + 1, lambda x: x.abs()):
        FunctionOperator(function, (4,))
        with pytest.raises(ValueError, match="the function is not linear"):
            LinearFunctionOperator(function, (4,))
    with pytest.raises(ValueError, match="has no gradient in x"):
        LinearFunctionOperator(lambda x: 2 * x.detach(), (4,))


def test_a_function_is_watched_after_the_door():
    sizes = iter([4] * 6 + [3])
    operator: Operator = FunctionOperator(lambda x: x[:, : next(sizes)], (4,))
    with pytest.raises(ValueError, match=r"a measurement had shape \(4,\) before"):
        operator(torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Blur(torch.ones(5, 5), (1, 4, 4)), "is larger than the last dimensions"),
        (lambda: Blur(torch.zeros(3), (4,)), "0 everywhere"),
        (lambda: Blur(torch.ones(3, 3), (4,)), "has more dimensions than data"),
        (lambda: Blur(torch.ones(1, 1, 3, 3), (1, 4, 4)), r"give \(rows, columns\)"),
        (lambda: Blur(torch.ones(3), (4,), cutoff=1.0), "cutoff = 1.0 must be a number, relative"),
        (lambda: Blur(torch.ones(3), (4,), cutoff="a"), "cutoff = 'a' must be a number"),
        (lambda: gaussian_kernel("a"), "std = 'a' must be a positive number"),
        (lambda: gaussian_kernel(1.0, 2.5), "size = 2.5 must be an odd whole number"),
        (lambda: motion_kernel(3.0, "a"), "angle = 'a' must be a finite number"),
        (lambda: gaussian_kernel(-1.0), "must be a positive number"),
        (lambda: gaussian_kernel(1.0, 4), "odd"),
        (lambda: motion_kernel(0.0), "must be a positive number"),
        (lambda: Downsample(3, (1, 8, 8)), "divides the height and width"),
        (lambda: Downsample(2.0, (1, 8, 8)), "must be a whole number"),
        (lambda: Downsample(2, (8,)), "2 or more positive whole numbers"),
        (lambda: Projection([], (8, 8)), "give \\(angles,\\)"),
        (lambda: Projection([math.nan], (8, 8)), "not finite"),
        (lambda: PhaseRetrieval((8, 8), 0), "oversampling = 0"),
        (lambda: PhaseRetrieval((8, -8)), "positive whole numbers"),
    ],
)
def test_operators_that_cannot_be(make, says):
    with pytest.raises(ValueError, match=says):
        make()
