"""What guidance takes for a number and a grid, and what it says of what it does not take."""

import numpy as np
import pytest
import torch
from guided_problem import BOTH, WANTED, states
from models import VP

import sde_diffusion as sd
from sde_diffusion import guidance

GRID = sd.times.uniform(VP, 6)
C, U = WANTED.denoiser(VP), BOTH.denoiser(VP)


def test_a_number_is_one_in_every_guise():
    x = states(5)
    ways = {
        "scale": (3.0, lambda v: guidance.classifier_free(C, U, scale=v)),
        "of time": (3.0, lambda v: guidance.classifier_free(C, U, scale=lambda t: v)),
        "zero_above": (
            float(GRID[1]),
            lambda v: guidance.cfg_zero_star(C, U, scale=2, zero_above=v),
        ),
        "interval": (
            float(VP.rho(GRID[2])),
            lambda v: guidance.limited_interval(guidance.classifier_free(C, U, scale=4), 0.1, v),
        ),
        "eta": (0.5, lambda v: guidance.adaptive_projected(C, U, scale=3, eta=v)),
        "quantile": (0.5, lambda v: guidance.dynamic_thresholding(C, v)),
        "CFG++": (0.5, lambda v: guidance.cfg_plus_plus(C, U, scale=v, times=GRID, eta=v)),
    }
    for name, (number, make) in ways.items():
        expected = sd.run(sd.solvers.ddim(VP, GRID), make(number), x)
        assert "tensor" not in repr(make(torch.tensor(number))), name
        for guise in (
            torch.tensor(number, dtype=torch.float64),
            np.array(number),
            np.float64(number),
        ):
            found = sd.run(sd.solvers.ddim(VP, GRID), make(guise), x)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, msg=name)
    guidance.classifier_free(C, U, scale=torch.tensor(2))
    for wrong in (torch.tensor(True), torch.tensor(1j), np.bool_(True)):
        with pytest.raises(TypeError, match="must be a number"):
            guidance.classifier_free(C, U, scale=wrong)


def test_a_scale_for_each_sample_is_told_where_it_belongs():
    for wrong in (torch.ones(5), np.ones(5), [1.0, 2.0]):
        with pytest.raises(TypeError, match="a scale for each sample is a rule of your own"):
            guidance.classifier_free(C, U, scale=wrong)
    with pytest.raises(TypeError, match=r"a Tensor of shape \(5,\) must be a number"):
        guidance.classifier_free(C, U, scale=torch.ones(5))


def test_a_grid_and_scales_are_taken_as_sample_takes_them():
    plan, x = sd.solvers.ddim(VP, GRID), states(5)
    cfg_plus_plus = guidance.cfg_plus_plus
    found = sd.run(plan, cfg_plus_plus(C, U, scale=0.5, times=GRID.numpy()), x)
    assert found.equal(sd.run(plan, cfg_plus_plus(C, U, scale=0.5, times=GRID), x))
    with pytest.raises(TypeError, match=r"times = a Plan must be the grid .*, as plan\.times"):
        cfg_plus_plus(C, U, scale=0.5, times=plan)
    right = guidance.composed([C, C], U, scales=[1.0, 1.0])(x, 0.5)
    for scales in (np.ones(2), torch.ones(2)):
        assert guidance.composed([C, C], U, scales=scales)(x, 0.5).equal(right)
    with pytest.raises(ValueError, match="3 for 2 conditions"):
        guidance.composed([C, C], U, scales=np.ones(3))


def test_what_is_wrong_is_told_of_whose_it_is():
    free = guidance.classifier_free(C, U, scale=2.0)
    with pytest.raises(TypeError, match=r"x has dtype torch\.int64: states are float"):
        free(torch.ones(5, 2).long(), 0.5)
    layer = torch.nn.Linear(3, 2)
    base = sd.NetworkDenoiser(lambda x, t, y: x + layer(y), VP)
    with pytest.raises(ValueError, match=r"a condition is on cpu, and the states are on meta"):
        base.given(torch.zeros(5, 3))(states(5).to("meta"), 0.5)
    wrong = guidance.classifier(U, lambda x, t: (x * float("nan")).sum(1))
    with pytest.raises(FloatingPointError, match="the denoiser's output is not finite"):
        sd.run(sd.solvers.ddim(VP, GRID), wrong, states(5))


def test_an_error_in_a_joined_call_says_how_many_branches_were_asked():
    base = sd.NetworkDenoiser(lambda x, t, c: x[:, :1], VP)
    free = guidance.classifier_free(base.given(states(5)), base.given(-states(5)), scale=2.0)
    for ask in (
        lambda: free(states(5), 0.5),
        lambda: sd.run(sd.solvers.ddim(VP, GRID), free, states(5)),
    ):
        with pytest.raises(ValueError, match=r"shape \(10, 1\) for states") as found:
            ask()
        assert found.value.__notes__ == ["2 branches of a guidance, 5 states each, in one call"]


def test_the_scale_is_told():
    free = guidance.classifier_free(C, U, scale=2.0)
    assert "scale=2, " not in repr(free)
    assert "scale=2)" in repr(guidance.rescale(free, 0.5, "data"))
    assert "phi=0.5" in repr(guidance.rescale(free, 0.5, "data"))
    assert "scale=0.6/(1 - exp(-h))" in repr(guidance.cfg_plus_plus(C, U, scale=0.6, times=GRID))


def test_rescaling_asks_what_is_asked_inside_once():
    asked = []

    def network(x, t):
        asked.append(len(x))
        return x.sin()

    base, x = sd.NetworkDenoiser(network, VP, "data"), states(5)
    energy = guidance.universal(base, lambda d: -d.square().sum(1), scale=3.0)
    rescaled = guidance.rescale(energy, 0.5)
    d, first = energy(x, 0.5), base(x, 0.5)
    asked.clear()
    found = rescaled(x, 0.5)
    assert asked == [5]
    assert rescaled.cost([0.5, 0.3]) == guidance.Cost(2, 2)
    right = d * (0.5 * first.std(1) / d.std(1) + 0.5)[:, None]
    torch.testing.assert_close(found, right)
    twice = guidance.rescale(rescaled, 0.5)
    asked.clear()
    twice(x, 0.5)
    assert asked == [5]
