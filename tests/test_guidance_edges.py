"""Guidance at the edges of its formulas: ends of grids, equal numbers, nothing to divide by."""

import math
from itertools import pairwise

import pytest
import torch
from guided_problem import BOTH, WANTED, states
from models import DOUBLE, VP

import sde_diffusion as sd
from sde_diffusion.gradient import denoise_with_pull, gradient_of_log
from sde_diffusion.guidance import (
    Cost,
    adaptive_projected,
    cfg_plus_plus,
    cfg_zero_star,
    classifier_free,
    composed,
    rescale,
    universal,
)

GRID = sd.times.uniform(VP, 6)


def exact(schedule=VP):
    return WANTED.denoiser(schedule), BOTH.denoiser(schedule)


def constant(value):
    return sd.FunctionDenoiser(lambda x, t: torch.full_like(x, value), VP)


def test_momentum_goes_through_rescaling():
    """DDIM by hand, with APG's sum over the calls and the rescaling of d."""
    (c, u), x, phi, w, b = exact(), states(5), 0.6, 4.0, -0.5
    guided = adaptive_projected(c, u, scale=w, momentum=b, eta=1.0)
    plan = sd.SOLVERS["ddim"](VP, GRID)
    found = sd.run(plan, rescale(guided, phi, "data"), x)
    delta, times = torch.zeros_like(x), GRID.tolist()
    for t, s in pairwise(times):
        d_c = c(x, t)
        delta = d_c - u(x, t) + b * delta
        d = d_c + (w - 1) * delta
        d = (phi * d_c.std(1) / d.std(1) + 1 - phi)[:, None] * d
        (alpha_t, sigma_t), (alpha_s, sigma_s) = VP(t), VP(s)
        x = alpha_s * d + sigma_s * (x - alpha_t * d) / sigma_t
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_a_preconditioned_prediction_is_rescaled_as_its_network_has_it(sigma_data):
    """F of Karras et al., d = c_skip x + c_out F, with the sigma_data of that network."""
    schedule, sigma, phi = sd.EDM(), 0.8, 0.9
    raw = lambda x, label, c: torch.sin(3 * x + c)
    base = sd.NetworkDenoiser(raw, schedule, "edm", sigma_data=sigma_data)
    x = 2 * states(5)
    a, b = base.given(states(5, 1)), base.given(states(5, 2))
    guided = classifier_free(a, b, scale=4.0)
    total = sigma**2 + sigma_data**2
    skip, out = sigma_data**2 / total, sigma * sigma_data / math.sqrt(total)
    F, F_a, F_g = ((d(x, sigma) - skip * x) / out for d in (rescale(guided, phi), a, guided))
    factor = phi * F_a.std(1) / F_g.std(1) + 1 - phi
    torch.testing.assert_close(F, factor[:, None] * F_g)
    assert (factor - 1).abs().min() > 1e-3


def test_what_has_no_spread_is_left_as_it_is():
    """k = 1 where std(F_guided) = 0, whatever phi: the mean of an image is not scaled."""
    c, _ = exact()
    for phi in (0.4, 1.0):
        flat = rescale(classifier_free(c, constant(2.0), scale=0.0), phi, "data")
        assert torch.equal(flat(states(4), 0.5), torch.full((4, 2), 2.0, dtype=DOUBLE))


def test_one_denoiser_alone_is_not_rescaled_even_where_the_prediction_is_undefined():
    c, u = exact(sd.FlowMatching())
    late = classifier_free(c, u, scale=lambda t: 1.0 if t > 0.9 else 3.0)
    rescaled = rescale(late, 0.7, "noise")
    assert torch.equal(rescaled(states(4), 1.0), c(states(4), 1.0))
    with pytest.raises(ValueError, match="noise prediction says nothing"):
        rescale(classifier_free(c, u, scale=3.0), 0.7, "noise")(states(4), 1.0)


def test_cfg_plus_plus_takes_no_time_near_its_grid():
    c, u = exact()
    guided = cfg_plus_plus(c, u, scale=0.5, times=GRID)
    t = GRID[2].item()
    right = guided(states(3), t)
    torch.testing.assert_close(guided(states(3), t * (1 + 1e-9)), right)  # rounding of a grid
    for off in (0.95, 0.999, 1.00001, 1.05):
        with pytest.raises(ValueError, match="none begins"):
            guided(states(3), t * off)


def test_cfg_zero_star_stands_still_above_its_time_and_not_at_it():
    c, u = exact()
    guided, x = cfg_zero_star(c, u, scale=3.0, zero_above=0.6), states(3)
    times = [0.5999, 0.6, 0.6001]
    found = guided(x, torch.tensor(times, dtype=DOUBLE))
    for i, t in enumerate(times):
        torch.testing.assert_close(found[i : i + 1], guided(x[i : i + 1], t))
    still = x[2] / sum(VP(times[2]))
    torch.testing.assert_close(found[2], still)
    assert (found[1] - x[1] / sum(VP(0.6))).abs().max() > 1e-3


def test_weights_that_sum_to_one_but_for_rounding_do_not_ask_the_unconditional_model():
    parts = [BOTH.given([k]).denoiser(VP) for k in range(3)]
    x, w = states(4), [0.6, 0.3, 0.1]
    assert 1 - sum(w) != 0.0
    guided = composed(parts, BOTH.denoiser(VP), scales=w)
    assert guided.cost([0.5]) == Cost(3, 3)
    right = sum(w_i * d(x, 0.5) for w_i, d in zip(w, parts, strict=True))
    torch.testing.assert_close(guided(x, 0.5), right)
    off = composed(parts, BOTH.denoiser(VP), scales=[0.6, 0.3, 0.1 + 1e-9])
    assert off.cost([0.5]) == Cost(4, 4)


def test_an_energy_costs_what_it_is_laid_around():
    inner = classifier_free(*exact(), scale=2.0)
    energy = universal(inner, lambda d: -d.square().sum(1), scale=0.5)
    assert energy.cost([0.3, 0.5]) == Cost(4, 4)
    assert universal(exact()[1], lambda d: -d.square().sum(1)).cost([0.3]) == Cost(1, 1)


def test_a_state_made_in_inference_mode_has_gradients_outside_of_it():
    with torch.inference_mode():
        x = states(4)
    assert x.is_inference()
    quadratic = lambda y: -y.pow(4).sum(1)
    torch.testing.assert_close(gradient_of_log(quadratic, x), -4 * x.pow(3))
    square = sd.FunctionDenoiser(lambda y, t: y.square(), VP)
    d, pull = denoise_with_pull(square, x, 0.5)
    torch.testing.assert_close(d, x.square())
    torch.testing.assert_close(pull(torch.ones_like(d)), 2 * x)
    assert not x.requires_grad


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_log_density_of_other_samples_is_refused(count):
    with pytest.raises(ValueError, match=rf"log_p returned shape \({count},\) for 6 samples"):
        gradient_of_log(lambda x: x.sum().expand(count), states(6))
