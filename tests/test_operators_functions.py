"""Functions of one's own: networks and decoders in one precision, and what the door must see."""

import copy

import pytest
import torch
from latents import autoencoder, images
from torch import nn

import sde_diffusion as sd
from sde_diffusion.inverse import (
    FunctionOperator,
    LinearFunctionOperator,
    Mask,
    Matrix,
    Measurement,
    Projection,
    dps,
)
from sde_diffusion.latent import LatentSpace

F64 = torch.float64
BOTH = pytest.mark.parametrize("kind", [FunctionOperator, LinearFunctionOperator])


def _x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=F64)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_network_of_one_precision_serves_data_of_both(kind, dtype):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)).to(dtype)
    by_hand = lambda x: network(x.to(dtype)).to(x)
    matrix = (network[1].weight @ network[0].weight).detach().double()
    for operator in (kind(network, (4,)), kind(by_hand, (4,))):
        for x in (_x(2, 4), _x(2, 4).float()):
            y = operator(x)
            assert y.dtype is x.dtype
            torch.testing.assert_close(y.double(), x.double() @ matrix.T, rtol=1e-5, atol=1e-5)
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(operator(x).sum(), x)
            expected = matrix.sum(0).expand(2, 4)
            torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_linear_network_is_solved_like_its_matrix():
    torch.manual_seed(0)
    network = nn.Linear(4, 3, bias=False)
    operator, v = LinearFunctionOperator(network, (4,)), _x(2, 3)
    exact = Matrix(network.weight.detach())
    torch.testing.assert_close(
        operator.solve(v, 0.7, 0.2), exact.solve(v, 0.7, 0.2), rtol=1e-5, atol=1e-5
    )


def test_images_are_measured_through_the_decoder_of_a_latent_space():
    """A prior of latents: dps with the gradient through the decoder fits y better than it knew."""
    space = LatentSpace.measure(autoencoder(), images())
    mask = Mask(torch.arange(24).reshape(1, 4, 6) % 2 == 0)
    operator = FunctionOperator(lambda z: mask(space.decode(z)), space.event_shape)
    z = _x(3, *space.event_shape)
    for given in (z, z.float()):
        assert operator(given).dtype is given.dtype
        torch.testing.assert_close(operator(given), mask(space.decode(given)))
    assert operator.measured_shape == (12,)
    dim = z[0].numel()
    prior = sd.problems.GaussianMixture([1.0], torch.zeros(1, dim), torch.ones(1))
    denoiser = prior.shaped(*space.event_shape).denoiser(sd.VPCosine())
    measurement = Measurement.simulate(operator, z[0].float(), 0.01)
    misfit = {}
    for name, model in (("prior", denoiser), ("dps", dps(denoiser, measurement, variance=1.0))):
        x = sd.sample(model, (8, *space.event_shape), solver="ddim", eta=1.0, steps=30, seed=0)
        misfit[name] = float(measurement.residual(x).square().mean().sqrt())
    assert misfit["dps"] < 0.4 * misfit["prior"]


def test_errors_of_a_function_that_cannot_compute_are_told_with_a_cure():
    with pytest.raises(ValueError, match=r"fails on \(3, 5\) .* give the event_shape of one datum"):
        FunctionOperator(nn.Linear(4, 3), (5,))


def test_a_network_in_training_is_refused_before_it_learns():
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    before = copy.deepcopy(network.state_dict())
    for function in (network, network.forward):
        with pytest.raises(ValueError, match=r"in training mode.*network.eval\(\)"):
            FunctionOperator(function, (4,))
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())
    FunctionOperator(network.eval(), (4,))
    with pytest.raises(ValueError, match=r"mixes samples, or draws.*network.eval\(\)"):
        FunctionOperator(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), (4,))


@BOTH
@pytest.mark.parametrize("function", [lambda x: x.mul_(2), lambda x: x.clamp_(-1, 1).sum(1, True)])
def test_a_function_that_works_in_place_is_refused(kind, function):
    with pytest.raises(ValueError, match="changes x in place"):
        kind(function, (2,))


@BOTH
@pytest.mark.parametrize("share", [1.0, 0.02])
def test_samples_that_mix_a_little_are_told(kind, share):
    with pytest.raises(ValueError, match="mixes samples"):
        kind(lambda x: x + share * x.mean(0), (4,))


@pytest.mark.parametrize(
    "function",
    [lambda x: x + 1e-5 * x**2, lambda x: x + 1e-5, lambda x: x + 0.02 * x.abs()],
    ids=["square", "constant", "modulus"],
)
def test_what_is_linear_but_for_a_little_is_told(function):
    with pytest.raises(ValueError, match="the function is not linear"):
        LinearFunctionOperator(function, (4,))


def _part_detached(x):
    return torch.cat([x[:, :1], x[:, 1:].detach()], 1)


class OtherGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


@pytest.mark.parametrize(
    "function", [_part_detached, OtherGradient.apply], ids=["detached", "another"]
)
def test_the_adjoint_of_a_linear_function_is_tried(function):
    with pytest.raises(ValueError, match="adjoint of automatic differentiation"):
        LinearFunctionOperator(function, (3,))


@BOTH
def test_functions_of_nothing(kind):
    with pytest.raises(ValueError, match="no numbers, so nothing is measured"):
        kind(lambda x: x[:, :0], (4,))
    for shape in (None, (2.0,), (-1, -2), "ab"):
        with pytest.raises(ValueError, match="must be 0 or more positive whole numbers"):
            kind(lambda x: x, shape)


def test_operators_keep_matrices_of_their_own():
    a = _x(3, 4)
    operator, before = Matrix(a), a.clone()
    a.mul_(10)
    assert torch.equal(operator.matrix(), before)
    torch.testing.assert_close(operator(_x(1, 4)), _x(1, 4) @ before.T)


def test_an_operator_is_copied():
    for operator in (Projection([0.0, 30.0], (4, 4)), Matrix(_x(3, 4))):
        x = _x(2, *operator.event_shape)
        assert torch.equal(copy.deepcopy(operator)(x), operator(x))


@pytest.mark.parametrize("shape", [(-1, -4), (4.0,), (2, 3)])
def test_shapes_of_a_matrix_that_are_not(shape):
    with pytest.raises(ValueError, match=r"positive whole numbers|holds 6 numbers"):
        Matrix(_x(3, 4), shape)
    assert Matrix(_x(3, 4), 4).event_shape == (4,)
