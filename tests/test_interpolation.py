"""Interpolation of latents: ends to the bit, laws and norms that are kept."""

import math

import pytest
import torch

from sde_diffusion.editing import interpolate, interpolation_grid

DOUBLE = torch.float64


def latents(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("rule", ["law", "sphere"])
def test_ends_are_exact(rule, dtype):
    a, b = latents(3, 2, 4, dtype=dtype), latents(3, 2, 4, seed=1, dtype=dtype)
    path = interpolate(a, b, 5, rule)
    assert path.shape == (5, 3, 2, 4)
    assert path.dtype is dtype
    assert torch.equal(path[0], a)
    assert torch.equal(path[-1], b)


def test_the_law_of_independent_ends_is_kept():
    """Weights on unit vectors: their squares have sum 1 at every point of a path and of a grid."""
    a, b, c, d = torch.eye(4, dtype=DOUBLE)
    path = interpolate(a[None], b[None], 9)
    torch.testing.assert_close(path.square().sum(-1), torch.ones(9, 1, dtype=DOUBLE))
    u = torch.linspace(0, math.pi / 2, 9, dtype=DOUBLE)
    torch.testing.assert_close(path[:, 0, :2], torch.stack([u.cos(), u.sin()], 1))
    corners = torch.stack([a, b, c, d]).reshape(2, 2, 4)
    grid = interpolation_grid(corners, 4, 7)
    torch.testing.assert_close(grid.square().sum(-1), torch.ones(4, 7, dtype=DOUBLE))
    assert torch.equal(grid[[0, 0, -1, -1], [0, -1, 0, -1]], torch.stack([a, b, c, d]))
    torch.testing.assert_close(grid[0], interpolate(a[None], b[None], 7)[:, 0])
    torch.testing.assert_close(grid[:, -1], interpolate(b[None], d[None], 4)[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_spheres_keep_the_norm_and_divide_the_angle_evenly(dtype):
    a, b = latents(6, 5, dtype=dtype), latents(6, 5, seed=1, dtype=dtype)
    b = b * (a.norm(dim=1) / b.norm(dim=1))[:, None]
    path = interpolate(a, b, 7, "sphere").double()
    size = a.double().norm(dim=1)
    torch.testing.assert_close(path.norm(dim=2), size.expand(7, 6), rtol=1e-6, atol=0)
    cosines = (path[1:] * path[:-1]).sum(2) / size**2
    torch.testing.assert_close(cosines, cosines[:1].expand(6, 6), rtol=1e-5, atol=1e-6)
    linear = (a + b) / 2
    assert (linear.norm(dim=1) < 0.95 * a.norm(dim=1)).all()


def test_both_rules_agree_for_orthogonal_ends():
    a, b = 2 * torch.eye(3, dtype=DOUBLE)[:1], 2 * torch.eye(3, dtype=DOUBLE)[1:2]
    torch.testing.assert_close(interpolate(a, b, 6), interpolate(a, b, 6, "sphere"))


def test_close_ends_and_equal_ones():
    """No 0/0: between a and (almost) a all is a; between a and 2 a it is linear."""
    a = latents(2, 8)
    for b in (a, a + 1e-12, a * (1 + 1e-9)):
        torch.testing.assert_close(interpolate(a, b, 4, "sphere"), a.expand(4, 2, 8))
    half = interpolate(a, 2 * a, 3, "sphere")[1]
    torch.testing.assert_close(half, 1.5 * a)


@pytest.mark.parametrize("theta", [1e-9, 1e-5, 5e-3, 1.0, math.pi - 1e-2, math.pi - 1e-4])
def test_spheres_at_every_angle(theta):
    """On the circle the point at u is that at the angle u theta; float32 ends lose no more."""
    angles = torch.linspace(0, theta, 7, dtype=DOUBLE)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    a, b = circle[:1], circle[-1:]
    path = interpolate(a, b, 7, "sphere")[:, 0]
    torch.testing.assert_close(path, circle, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.atan2(*path.T.flip(0)), angles, rtol=1e-7, atol=0)
    assert (path.norm(dim=1) - 1).abs().max() < 1e-11
    near = interpolate(a.float(), b.float(), 7, "sphere").double()
    right = interpolate(a.float().double(), b.float().double(), 7, "sphere")
    torch.testing.assert_close(near, right, rtol=0, atol=1e-6 / min(1.0, math.pi - theta))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: interpolate(a, -a, 3, "sphere"), "opposite directions"),
        (lambda a: interpolate(a, 0 * a, 3, "sphere"), "has no direction"),
        (lambda a: interpolate(a, a[:1], 3), "must agree"),
        (lambda a: interpolate(a, a.float(), 3), "must agree"),
        (lambda a: interpolate(a, a / 0, 3), "not finite"),
        (lambda a: interpolate(a, a, 1), "at least 2"),
        (lambda a: interpolate(a, a, 3, "slerp"), "Known: law, sphere"),
        (lambda a: interpolate([0.0], a, 3), "must be a tensor"),
        (lambda a: interpolation_grid(a, 3, 3), r"\(2, 2, \*event\)"),
        (lambda a: interpolation_grid(latents(2, 2, 3), 1, 3), "rows = 1"),
        (lambda a: interpolation_grid(latents(2, 2, 3), 3, 1), "columns = 1"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(latents(3, 4))
