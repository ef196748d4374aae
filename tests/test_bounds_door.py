"""What a bound depends on, what it prints, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion import reverse
from sde_diffusion.problems import Gaussian

DOUBLE = torch.float64
VP = sd.VPLinear()
GRID = [0.9, 0.5, 0.2]


class Both(torch.nn.Module):
    """The exact noise of N(0, 1/2) data, and one number for the variance in every coordinate."""

    outputs = 2

    def __init__(self, v=0.0):
        super().__init__()
        self.v = torch.nn.Parameter(torch.tensor(v, dtype=DOUBLE))

    def forward(self, x, t, context=None):
        alpha_t, sigma_t = VP(t[:, None])
        noise = sigma_t * x / (alpha_t**2 / 2 + sigma_t**2)
        if context is not None:
            noise = noise + context[:, None] / 10
        return torch.cat([noise, self.v.expand_as(x)], 1)


X_0 = torch.randn(11, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) / math.sqrt(2)
BOTH = sd.NetworkDenoiser(Both(), VP)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 300),
    st.floats(-3, 3),
    st.floats(-16, 3),
    st.sampled_from(["float32", "float64"]),
)
def test_bins_are_a_probability(count, d, log_variance, dtype):
    bins = sd.Bins(2 / (count - 1))
    x_0 = torch.linspace(-1, 1, count, dtype=getattr(torch, dtype))
    bins.check(x_0)
    nll = bins.nll(x_0, torch.full_like(x_0, d), log_variance)
    tolerance = 1e-9 if dtype == "float64" else 2e-3
    assert bool(nll.isfinite().all())
    assert float((-nll.double()).exp().sum()) == pytest.approx(1, abs=tolerance)


def test_small_bins_are_the_density_and_gradients_are_finite():
    x_0 = torch.tensor([0.25], dtype=DOUBLE)
    d = torch.tensor([0.1], dtype=DOUBLE, requires_grad=True)
    log_v = torch.tensor([-2.0], dtype=DOUBLE, requires_grad=True)
    width = 1e-5
    of_bin = sd.Bins(width, -100.0, 100.0).nll(x_0, d, log_v) + math.log(width)
    density = -torch.distributions.Normal(d, torch.exp(log_v / 2)).log_prob(x_0)
    torch.testing.assert_close(of_bin, density, rtol=1e-6, atol=0)
    ends = torch.tensor([-1.0, 0.0, 1.0], dtype=DOUBLE)
    sd.Bins(1.0).nll(ends, d.expand(3), log_v.expand(3)).sum().backward()
    assert math.isfinite(float(d.grad))
    assert math.isfinite(float(log_v.grad))


@pytest.mark.parametrize(("v", "name"), [(-1.0, "posterior"), (1.0, "beta")])
def test_a_learned_variance_at_its_ends_is_one_of_the_two(v, name):
    learned = sd.NetworkDenoiser(Both(v), VP)
    bounds = [
        sd.discrete_bound(learned, X_0, [*GRID, 0.0], variance=variance).per_sample
        for variance in ("learned", name)
    ]
    torch.testing.assert_close(*bounds)


@pytest.mark.parametrize("variance", ["posterior", "learned"])
@pytest.mark.parametrize("bound", [sd.discrete_bound, sd.continuous_bound])
def test_the_size_of_the_calls_does_not_matter(variance, bound):
    options = {"times": GRID, "draws": 2, "variance": variance}
    options = options if bound is sd.discrete_bound else {"points": 5}
    one, other = (
        bound(BOTH, X_0, seed=3, batch=batch, **options).per_sample for batch in (1, 1000)
    )
    torch.testing.assert_close(one, other)
    third = bound(BOTH, X_0, seed=4, batch=7, **options).per_sample
    assert not torch.allclose(one, third)


ASKS = {
    "discrete": lambda x, **k: sd.discrete_bound(BOTH, x, GRID, draws=3, **k).per_sample,
    "continuous": lambda x, **k: sd.continuous_bound(BOTH, x, points=4, **k).per_sample,
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("batch", [4, 256])
def test_a_sample_has_its_own_noise(ask, batch):
    """Whatever other samples there are, and in whatever order; in float32 as in float64."""
    whole = ask(X_0, seed=5)
    torch.testing.assert_close(ask(X_0[:4], seed=5, batch=batch), whole[:4])
    seeds = [17, 3, 99, 2**62, 3]
    own = ask(X_0[:5], seed=seeds)
    torch.testing.assert_close(ask(X_0[[3, 1]], seed=[2**62, 3], batch=batch), own[[3, 1]])
    torch.testing.assert_close(ask(X_0[[4, 4]], seed=[3, 3]), own[[4, 4]])
    assert not torch.allclose(ask(X_0[[4, 4]], seed=[3, 4])[0], ask(X_0[[4, 4]], seed=[4, 3])[0])
    torch.testing.assert_close(ask(X_0.float(), seed=5), whole, rtol=2e-3, atol=2e-3)


def test_moments_of_samples_are_their_mean():
    """Each sample keeps its noise, so that those of parts of the data add up to the whole."""
    seeds = list(range(11))
    parts = [
        sd.measure_moments(BOTH, X_0[part], GRID, draws=2, seed=seeds[part]).error
        for part in (slice(0, 4), slice(4, 11))
    ]
    whole = sd.measure_moments(BOTH, X_0, GRID, draws=2, seed=seeds).error
    mean = [(4 * a + 7 * b) / 11 for a, b in zip(*parts, strict=True)]
    assert whole == pytest.approx(mean)


def test_each_sample_has_its_own_condition():
    context = torch.arange(11, dtype=DOUBLE)
    of_all = sd.discrete_bound(BOTH, X_0, GRID, context=context, batch=5).per_sample
    for i in (0, 7):
        alike = sd.discrete_bound(BOTH, X_0, GRID, context=context[i : i + 1].expand(11))
        torch.testing.assert_close(of_all[i], alike.per_sample[i])


def test_float32_and_other_shapes():
    """Pictures in float32 have the bound of the same numbers as vectors in float64."""
    problem = Gaussian([0.0] * 4, 0.5)
    exact = problem.denoiser(VP)
    pictures = sd.FunctionDenoiser(
        lambda x, t: exact(x.reshape(len(x), 4), t).reshape(x.shape), VP, per_sample=True
    )
    flat = problem.sample(6000, torch.Generator().manual_seed(0))
    square = sd.discrete_bound(pictures, flat.float().reshape(-1, 1, 2, 2), GRID)
    line = sd.discrete_bound(exact, flat, GRID)
    assert square.nats == pytest.approx(line.nats, rel=1e-4)  # the same noise, in other digits
    assert square.dimension == line.dimension == 4
    numbers = sd.FunctionDenoiser(lambda x, t: 0 * x, VP, per_sample=True)
    assert sd.discrete_bound(numbers, flat[:5, 0], GRID).dimension == 1


def test_a_function_of_one_time_is_asked_once_a_time():
    """Without per-sample times it is not asked row by row: as many calls as times."""
    calls = []

    def function(x, t):
        calls.append(len(x))
        return BOTH(x, t)

    alone = sd.FunctionDenoiser(function, VP)
    bound = sd.discrete_bound(alone, X_0, GRID)
    assert calls == [11] * 3
    torch.testing.assert_close(bound.per_sample, sd.discrete_bound(BOTH, X_0, GRID).per_sample)


def test_gradients_are_left_alone():
    """A bound in the middle of training makes no graph and no gradient."""
    bound = sd.discrete_bound(BOTH, X_0.requires_grad_(), GRID, variance="learned")
    X_0.requires_grad_(False)
    assert not bound.per_sample.requires_grad
    assert BOTH.network.v.grad is None


def test_print_shows_every_term():
    bound = sd.discrete_bound(BOTH, X_0, GRID)
    lines = str(bound).splitlines()
    assert [line.split()[:3] for line in lines[3:]] == [
        ["L_T", "0.9", "prior"],
        ["L_t", "0.9", "0.5"],
        ["L_t", "0.5", "0.2"],
        ["L_0", "0.2", "data"],
    ]
    assert f"{bound.nats:.6g}" in lines[1]
    assert "bits per dimension" in lines[1]
    many = sd.discrete_bound(BOTH, X_0, sd.times.uniform(VP, 100))
    rows = str(many).splitlines()[3:]
    assert len(rows) < 30
    shares = [float(row.split()[-2 if "L_t" in row else -3]) for row in rows]
    assert sum(shares) == pytest.approx(many.nats, rel=1e-3)


def test_a_decoder_by_its_variance_is_that_of_the_step():
    """The last step's variance named as a number; bins or none."""
    v = math.exp(reverse.logarithms(reverse.reverse_steps(VP, GRID))[0][-1])
    for x_0, bins in ((X_0, None), ((2 * X_0).round().clamp(-2, 2) / 2, sd.Bins(0.5))):
        bounds = [
            sd.discrete_bound(BOTH, x_0, GRID, bins=bins, decoder=decoder).per_sample
            for decoder in ("step", v, 2 * v)
        ]
        torch.testing.assert_close(*bounds[:2])
        assert not torch.allclose(bounds[0], bounds[2])


@pytest.mark.parametrize(("decoder", "calls"), [("direct", 4), (0.3, 5)])
def test_the_direct_decoder_needs_no_network(decoder, calls):
    asked = []

    def function(x, t):
        asked.append(t)
        return BOTH(x, t)

    bound = sd.continuous_bound(
        sd.FunctionDenoiser(function, VP), X_0, points=4, method="quadrature", decoder=decoder
    )
    assert len(asked) == calls
    assert bool(bound.per_sample.isfinite().all())


def test_one_sample_has_no_standard_error():
    assert math.isnan(sd.discrete_bound(BOTH, X_0[:1], GRID).standard_error)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"variance": "postrior"}, ValueError, "did you mean 'posterior'"),
        ({"variance": 0.1}, ValueError, "measured Moments"),
        ({"decoder": "dirct"}, ValueError, "did you mean 'direct'"),
        ({"decoder": -1.0}, ValueError, "decoder = -1.0: a variance must be positive"),
        ({"bins": 0.5}, TypeError, "give Bins"),
        ({"bins": sd.Bins(0.5)}, ValueError, "none of the 5 values"),
        ({"draws": 0}, ValueError, "draws = 0"),
        ({"batch": True}, ValueError, "batch = True"),
        ({"seed": -1}, ValueError, "seed -1"),
        ({"seed": [1, 2]}, ValueError, "2 seeds for 11 samples"),
        ({"times": [0.2, 0.5]}, ValueError, "decrease strictly"),
        ({"data": X_0.long()}, TypeError, "must be floating"),
        ({"data": X_0 * math.nan}, ValueError, "not finite"),
        ({"data": X_0[:0]}, ValueError, "no samples"),
        ({"context": torch.ones(3)}, ValueError, "3 contexts for 11 samples"),
        ({"denoiser": lambda x, t: x}, TypeError, "NetworkDenoiser"),
        ({"denoiser": BOTH.given(torch.ones(11))}, ValueError, "give the denoiser without them"),
        (
            {"denoiser": Gaussian([0.0] * 3, 1).denoiser(VP), "variance": "learned"},
            TypeError,
            "outputs=2",
        ),
        (
            {"denoiser": Gaussian([0.0] * 3, 1).denoiser(VP), "context": torch.ones(11)},
            TypeError,
            "takes none",
        ),
        (
            {"variance": sd.Moments((0.0, 1.0), (0.5, 0.4), (0.5, 0.3))},
            ValueError,
            "where the moments were measured",
        ),
        (
            {"denoiser": sd.FunctionDenoiser(lambda x, t: x * math.inf, VP, per_sample=True)},
            FloatingPointError,
            "sample 0 is not finite",
        ),
    ],
)
def test_discrete_bound_refuses(options, kind, message):
    given_ = {"denoiser": BOTH, "data": X_0, "times": GRID, **options}
    with pytest.raises(kind, match=message):
        sd.discrete_bound(**given_)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"points": 0}, ValueError, "points = 0"),
        ({"method": "quadratur"}, ValueError, "did you mean 'quadrature'"),
        ({"decoder": "step"}, ValueError, "unknown decoder 'step'"),
        ({"t_end": 0.0}, ValueError, "sigma = 0 at t_end = 0"),
        ({"t_end": 0.7, "t_start": 0.5}, ValueError, "t_end below t_start"),
        ({"importance": 3}, TypeError, "measure_moments"),
        (
            {"importance": sd.Moments((0.0,), (0.5,), (0.5,)), "method": "quadrature"},
            ValueError,
            "stratified",
        ),
        (
            {"importance": sd.measure_moments(BOTH, X_0, [0.4, 0.5])},
            ValueError,
            "% of the range of this bound: measure_moments at times from t_start to t_end",
        ),
        (
            {"importance": sd.measure_moments(BOTH, X_0, [0.9, 0.8]), "t_start": 0.5},
            ValueError,
            "0% of the range",
        ),
    ],
)
def test_continuous_bound_refuses(options, kind, message):
    with pytest.raises(kind, match=message):
        sd.continuous_bound(BOTH, X_0, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "positive width"),
        ((0.3,), "not a whole number"),
        ((0.5, 1.0, -1.0), "low < high"),
        ((math.nan,), "all finite"),
    ],
)
def test_bins_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        sd.Bins(*arguments)
