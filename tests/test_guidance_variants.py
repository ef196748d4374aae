"""Limited interval, rescaling, CFG++, several conditions and autoguidance, by their formulas."""

import math
from itertools import pairwise

import pytest
import torch
from enumeration import SCHEDULES
from models import DOUBLE, VP
from networks_listed import CONTEXTS, asked, perturbed, small

import sde_diffusion as sd
from sde_diffusion.guidance import (
    Cost,
    autoguidance,
    cfg_plus_plus,
    classifier_free,
    composed,
    limited_interval,
    rescale,
    static_thresholding,
)
from sde_diffusion.problems import GaussianMixture

MIXTURE = GaussianMixture(
    [0.2, 0.5, 0.3], [[-1.0, 0.5], [0.8, -0.2], [0.0, 1.0]], [0.09, 0.25, 0.04]
)
SOME = MIXTURE.given([0, 2])
GRID = sd.times.uniform(VP, 12)


def states(n=6, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Spied(sd.Denoiser):
    """A denoiser that counts the states at which it is asked, and keeps the times."""

    def __init__(self, inner, seen=None):
        self.inner, self.schedule = inner, inner.schedule
        self.seen = [] if seen is None else seen

    def __call__(self, x, t):
        self.seen += torch.as_tensor(t, dtype=DOUBLE).expand(len(x)).tolist()
        return self.inner(x, t)

    def select(self, who):
        return Spied(self.inner.select(who), self.seen)


def pair(schedule=VP):
    return Spied(SOME.denoiser(schedule)), Spied(MIXTURE.denoiser(schedule))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_outside_the_interval_only_the_conditional_branch_is_asked(schedule):
    c, u = pair(schedule)
    times = [schedule.time_of(-math.log(rho)) for rho in (5.0, 2.0, 0.8, 0.3, 0.1)]
    full = classifier_free(c, u, scale=3.0)
    ends = limited_interval(full, schedule.rho(times[3]), schedule.rho(times[1]))
    inside = limited_interval(full, 0.29, 2.01)
    x = states(5)
    for guided, expected in ((ends, [c, full, full, c, c]), (inside, [c, full, full, full, c])):
        for t, denoiser in zip(times, expected, strict=True):
            right = denoiser(x, t)
            c.seen.clear(), u.seen.clear()
            assert torch.equal(guided(x, t), right)
            assert (len(c.seen), len(u.seen)) == (5, 5 if denoiser is full else 0)
            (call,) = guided.bind([t], x)
            torch.testing.assert_close(call.scale * call.function(x, None), right)
    right = torch.cat([d(x[i : i + 1], times[i]) for i, d in enumerate(expected)])
    c.seen.clear(), u.seen.clear()
    each = torch.tensor(times, dtype=DOUBLE)
    torch.testing.assert_close(inside(x, each), right)
    assert (sorted(c.seen), sorted(u.seen)) == (sorted(times), sorted(times[1:4]))
    torch.testing.assert_close(inside(x[1:3], each[1:3]), right[1:3])  # all of them inside
    u.seen.clear()
    torch.testing.assert_close(inside(x[4:], each[4:]), right[4:])  # all of them outside
    assert not u.seen


def test_thresholding_stands_last_around_an_interval_too():
    c, u = pair()
    free = classifier_free(c, u, scale=9.0)
    bounded = static_thresholding(free, -0.4, 0.4)
    with pytest.raises(ValueError, match="limit that: static_thresholding"):
        limited_interval(bounded, 0.3, 2.0)
    with pytest.raises(ValueError, match="lies around a guidance, which is rescaled first"):
        rescale(bounded, 0.5, "data")
    around, x = static_thresholding(limited_interval(free, 0.3, 2.0), -0.4, 0.4), states()
    for t in (0.95, VP.time_of(0.0)):
        assert around(x, t).abs().max() <= 0.4 < c(x, t).abs().max()


def test_the_ends_of_an_interval():
    """With sigma for the time: low is outside, high inside."""
    schedule = sd.EDM()
    guided = limited_interval(classifier_free(*pair(schedule), scale=3.0), 0.3, 2.0)
    times = [0.2, 0.3, 0.31, 2.0, 2.01]
    right = [False, False, True, True, False]
    assert [guided.inside(t) for t in times] == right
    assert guided.inside(torch.tensor(times, dtype=DOUBLE)).tolist() == right
    flow = sd.FlowMatching()  # at t = 1 sigma/alpha is inf, which is the end of (.3, inf]
    whole = limited_interval(classifier_free(*pair(flow), scale=3.0), 0.3, math.inf)
    assert whole.inside(1.0)
    assert whole.inside(torch.ones(1, dtype=DOUBLE))


def test_the_cost_of_an_interval_is_that_of_its_steps():
    c, u = pair()
    plan = sd.SOLVERS["dpm_solver_pp_2m"](VP, GRID)
    guided = limited_interval(classifier_free(c, u, scale=3.0), 0.2, 3.0)
    inside = [t for t in plan.asked_at if 0.2 < VP.rho(t) <= 3.0]
    sd.run(plan, guided, states(4))
    assert 0 < len(inside) < plan.nfe
    assert (len(c.seen), len(u.seen)) == (4 * plan.nfe, 4 * len(inside))
    assert guided.cost(plan.asked_at) == Cost(*[plan.nfe + len(inside)] * 2)
    network = sd.NetworkDenoiser(perturbed(small("mlp", "classes")), VP, "data")
    joined = classifier_free(network.given(CONTEXTS["classes"]), scale=3.0)
    limited = limited_interval(joined, 0.2, 3.0)
    assert limited.cost(plan.asked_at) == Cost(plan.nfe, plan.nfe + len(inside))
    assert joined.cost(plan.asked_at) == Cost(plan.nfe, 2 * plan.nfe)


def test_a_whole_interval_is_guidance_as_it_is_in_parallel_too():
    x, plan = states(), sd.SOLVERS["ddim"](VP, GRID)
    full = classifier_free(SOME.denoiser(VP), MIXTURE.denoiser(VP), scale=3.0)
    right = sd.run(plan, full, x)
    torch.testing.assert_close(sd.run(plan, limited_interval(full, 0.0, math.inf), x), right)
    limited = limited_interval(full, 0.2, 3.0)
    found = sd.run_parallel(plan, limited, x, tolerance=1e-10)
    torch.testing.assert_close(found.x, sd.run(plan, limited, x), rtol=1e-7, atol=1e-7)
    assert (found.x - right).abs().max() > 1e-3


def predictions(schedule, t, d, x):
    """Noise, data, velocity and flow of d, as written in their definitions."""
    alpha_t, sigma_t = schedule(t)
    noise = (x - alpha_t * d) / sigma_t
    alpha_dot, sigma_dot = schedule.derivatives(t)
    return {
        "data": d,
        "noise": noise,
        "score": -noise / sigma_t,
        "velocity": alpha_t * noise - sigma_t * d,
        "flow": alpha_dot * d + sigma_dot * noise,
    }


@pytest.mark.parametrize("prediction", ["data", "noise", "score", "velocity", "flow"])
@pytest.mark.parametrize("schedule", [VP, sd.FlowMatching(), sd.EDM()], ids=repr)
def test_rescaling_is_that_of_the_prediction(schedule, prediction):
    c, u = SOME.denoiser(schedule), MIXTURE.denoiser(schedule)
    guided, t, x = classifier_free(c, u, scale=5.0), 0.6, 2 * states()
    for phi in (0.3, 1.0):
        rescaled = rescale(guided, phi, prediction)
        F, F_c, F_g = (
            predictions(schedule, t, d(x, t), x)[prediction] for d in (rescaled, c, guided)
        )
        factor = phi * F_c.std(1) / F_g.std(1) + 1 - phi
        torch.testing.assert_close(F, factor[:, None] * F_g)
        each = torch.full((6,), t, dtype=DOUBLE)
        torch.testing.assert_close(rescaled(x, each), rescaled(x, t))
        some = torch.tensor([4, 0])
        torch.testing.assert_close(rescaled.select(some)(x[some], t), rescaled(x, t)[some])
    of_data, of_noise = (rescale(guided, 1.0, name)(x, t) for name in ("data", "noise"))
    assert (of_data - of_noise).abs().max() > 0.01


def test_rescaling_what_needs_no_rescaling():
    c, u = pair()
    x = states()
    one = rescale(classifier_free(c, u, scale=1.0), 0.7, "noise")
    assert torch.equal(one(x, 0.5), c(x, 0.5))
    assert one.cost([0.5]) == Cost(1, 1)
    zero = rescale(classifier_free(c, u, scale=0.0), 1.0, "data")  # the conditional is asked too
    d = zero(x, 0.5)
    torch.testing.assert_close(d.std(1), c(x, 0.5).std(1))
    assert zero.cost([0.5]) == Cost(2, 2)
    flat = sd.FunctionDenoiser(lambda y, t: torch.zeros_like(y), VP)
    none = rescale(classifier_free(c, flat, scale=0.0), 1.0, "data")
    assert torch.equal(none(x, 0.5), torch.zeros_like(x))
    guided = classifier_free(c, u, scale=3.0)
    assert rescale(guided, 0.0, "data") is guided


def test_a_network_is_rescaled_in_its_own_prediction():
    network, (x, _) = perturbed(small("mlp", "classes")), asked("mlp")
    for prediction in ("noise", "velocity"):
        base = sd.NetworkDenoiser(network, VP, prediction).given(CONTEXTS["classes"])
        guided = classifier_free(base, scale=5.0)
        found = rescale(guided, 0.7)
        torch.testing.assert_close(found(x, 0.5), rescale(guided, 0.7, prediction)(x, 0.5))
        some = torch.tensor([3, 1])
        torch.testing.assert_close(found.select(some)(x[some], 0.5), found(x, 0.5)[some])
        plan = sd.SOLVERS["ddim"](VP, GRID)
        torch.testing.assert_close(
            sd.run(plan, found, x), sd.run(plan, rescale(guided, 0.7, prediction), x)
        )


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_cfg_plus_plus_is_the_update_of_the_paper(schedule, eta):
    """x_s = alpha_s d_w + sigma_s eps_u on the steps of DDIM, and with noise drawn anew."""
    w, x = 0.7, states() * max(1.0, float(schedule.sigma(schedule.t_max)))
    times = sd.times.uniform_lambda(schedule, 8, *map(schedule.time_of, (-3.0, 2.0))).tolist()
    times.append(schedule.t_min)
    c, u = SOME.denoiser(schedule), MIXTURE.denoiser(schedule)
    guided = cfg_plus_plus(c, u, scale=w, times=times, eta=eta)
    draws = []
    plan = sd.SOLVERS["ddim"](schedule, times, eta=eta)

    class Kept(sd.IndependentNoise):
        def stream(self, like, course):
            draw = super().stream(like, course)

            def keep(out, t, s):
                draw(out, t, s)
                draws.append(out.clone())

            return keep

    found = sd.run(plan, guided, x, noise=Kept(5))
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        d_c, d_u = c(x, t), u(x, t)
        d_w, eps_u = d_u + w * (d_c - d_u), (x - alpha_t * d_u) / sigma_t
        tau = eta**2 * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)
        x = alpha_s * d_w + sigma_s * math.sqrt(1 - tau) * eps_u
        if eta and sigma_s > 0:
            x = x + sigma_s * math.sqrt(tau) * draws.pop(0)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)
    assert not draws


def test_cfg_plus_plus_guides_harder_with_more_steps():
    """Where h is small its scale is w/h: no limit is reached as the steps shrink."""
    c, u = SOME.denoiser(VP), MIXTURE.denoiser(VP)
    grids = [sd.times.uniform_lambda(VP, n, 0.95, 0.1) for n in (100, 200)]
    shifts = [
        cfg_plus_plus(c, u, scale=0.5, times=g)(states(), g[0].item()) - u(states(), g[0].item())
        for g in grids
    ]
    torch.testing.assert_close(shifts[1], 2 * shifts[0], rtol=0.03, atol=0)


@pytest.mark.parametrize("around", [rescale, limited_interval])
def test_an_interval_is_laid_around_and_needs_one_that_stands_alone(around):
    """Not rescale(limited_interval(..)); and of several conditions none stands alone."""
    c, u = pair()
    options = {"phi": 0.7, "prediction": "data"} if around is rescale else {"low": 0.3, "high": 2.0}
    with pytest.raises(ValueError, match="none stands alone"):
        around(composed([c, u], SOME.denoiser(VP), scales=[-1.0, 3.0]), **options)
    with pytest.raises(ValueError, match="none stands alone"):
        around(static_thresholding(composed([c, u], Spied(c), scales=[-1.0, 3.0])), **options)
    one = composed([c], u, scales=[3.0])
    same = around(classifier_free(c, u, scale=3.0), **options)
    for t in (0.99, VP.time_of(0.0)):
        torch.testing.assert_close(around(one, **options)(states(), t), same(states(), t))
    limited = limited_interval(one, 0.3, 2.0)
    if around is rescale:
        with pytest.raises(ValueError, match=r"limited_interval\(rescale"):
            rescale(limited, 0.7, "data")
    each = torch.tensor([0.99, VP.time_of(0.0), 0.01], dtype=DOUBLE)
    right = limited_interval(rescale(one, 0.7, "data"), 0.3, 2.0)
    one_by_one = [right(x[None], float(t)) for x, t in zip(states(3), each, strict=True)]
    torch.testing.assert_close(right(states(3), each), torch.cat(one_by_one))
    assert right.cost([VP.time_of(0.0)]) == Cost(2, 2)


def test_cfg_plus_plus_knows_the_times_of_its_grid_alone():
    c, u = SOME.denoiser(VP), MIXTURE.denoiser(VP)
    guided = cfg_plus_plus(c, u, scale=0.5, times=GRID)
    for solver in ("ddim", "dpm_solver_pp_2m"):
        assert sd.run(sd.SOLVERS[solver](VP, GRID), guided, states()).isfinite().all()
    found = sd.run_parallel(sd.SOLVERS["ddim"](VP, GRID), guided, states(), tolerance=1e-9)
    right = sd.run(sd.SOLVERS["ddim"](VP, GRID), guided, states())
    torch.testing.assert_close(found.x, right, rtol=1e-6, atol=1e-6)
    single = sd.SOLVERS["dpm_solver_pp_2s"](VP, GRID)
    with pytest.raises(ValueError, match=r"CFG\+\+ has a scale for each step.*none begins"):
        sd.run(single, guided, states())
    with pytest.raises(ValueError, match="scale = inf"):
        cfg_plus_plus(c, u, scale=math.inf, times=GRID)
    with pytest.raises(TypeError, match="one number"):
        cfg_plus_plus(c, u, scale=lambda t: 0.5, times=GRID)
    with pytest.raises(ValueError, match="eta = 2"):
        cfg_plus_plus(c, u, scale=0.5, times=GRID, eta=2)


def test_several_conditions_are_a_product_of_experts():
    """log p + sum w_i (log p_i - log p), by its gradient."""
    parts = [MIXTURE.given(k) for k in ([0, 1], [1, 2], [0])]
    w, x, t = [2.0, 1.5, -0.7], states(), 0.4
    scales = VP(t)
    y = x.clone().requires_grad_()
    log_p = MIXTURE.log_prob(y, *scales)
    total = log_p + sum(
        c * (part.log_prob(y, *scales) - log_p) for c, part in zip(w, parts, strict=True)
    )
    (right,) = torch.autograd.grad(total.sum(), y)
    conditionals = [part.denoiser(VP) for part in parts]
    guided = composed(conditionals, MIXTURE.denoiser(VP), scales=w)
    each = torch.full((6,), t, dtype=DOUBLE)
    torch.testing.assert_close(guided.score(x, t), right)
    torch.testing.assert_close(guided.score(x, each), right)
    late = composed(conditionals, MIXTURE.denoiser(VP), scales=[lambda t: 5 * t, *w[1:]])
    torch.testing.assert_close(late.score(x, each), right)
    one = composed(conditionals[:1], MIXTURE.denoiser(VP), scales=[3.0])
    two = classifier_free(conditionals[0], MIXTURE.denoiser(VP), scale=3.0)
    torch.testing.assert_close(one(x, t), two(x, t))


def test_of_several_conditions_only_those_that_count_are_asked():
    spies = [Spied(MIXTURE.given(k).denoiser(VP)) for k in ([0], [1], [2])]
    u, x = Spied(MIXTURE.denoiser(VP)), states()
    for scales, asked_ in (
        ([1.0, 0.0, 0.0], [1, 0, 0, 0]),
        ([0.0, 0.0, 0.0], [0, 0, 0, 1]),
        ([0.7, 0.0, 0.3], [1, 0, 1, 0]),
        ([0.1, 0.2, 0.7], [1, 1, 1, 0]),
        ([2.0, 0.0, 0.0], [1, 0, 0, 1]),
    ):
        guided = composed(spies, u, scales=scales)
        assert guided.cost([0.5]).evaluations == sum(asked_)
        for spy in (*spies, u):
            spy.seen.clear()
        guided(x, 0.5)
        assert [len(spy.seen) // 6 for spy in (*spies, u)] == asked_


def test_conditions_of_one_network_are_one_call():
    network, (x, t) = perturbed(small("mlp", "classes")), asked("mlp")
    base = sd.NetworkDenoiser(network, VP, "data")
    a, b = CONTEXTS["classes"], CONTEXTS["classes"].flip(0)
    guided = composed([base.given(a), base.given(b)], scales=[3.0, -1.0])
    assert guided.cost([0.5]) == Cost(1, 3)
    right = base(x, t) + 3 * (base.given(a)(x, t) - base(x, t)) - (base.given(b)(x, t) - base(x, t))
    torch.testing.assert_close(guided(x, t), right, rtol=1e-4, atol=1e-5)


def test_autoguidance_leads_away_from_the_bad_version():
    good, bad = SOME.denoiser(VP), MIXTURE.denoiser(VP)
    x = states()
    torch.testing.assert_close(
        autoguidance(good, bad, scale=2.5)(x, 0.4), 2.5 * good(x, 0.4) - 1.5 * bad(x, 0.4)
    )
    assert torch.equal(autoguidance(good, bad, scale=1)(x, 0.4), good(x, 0.4))


def test_what_is_refused():
    c, u = SOME.denoiser(VP), MIXTURE.denoiser(VP)
    guided = classifier_free(c, u, scale=2.0)
    one = sd.FunctionDenoiser(lambda x, t: x, VP)
    for attempt, error, text in [
        (lambda: limited_interval(c, 0.1, 1.0), TypeError, "has no guidance to limit"),
        (lambda: limited_interval(guided, 1.0, 1.0), ValueError, r"interval \(1.0, 1.0\]"),
        (lambda: limited_interval(guided, -1.0, 1.0), ValueError, "0 <= low < high"),
        (lambda: limited_interval(guided, 0.0, math.nan), ValueError, "nan"),
        (lambda: rescale(c), TypeError, "has no guidance to rescale"),
        (lambda: rescale(guided), ValueError, "does not say what it predicts"),
        (lambda: rescale(guided, 1.5, "data"), ValueError, "phi = 1.5"),
        (lambda: rescale(guided, 0.5, "nose"), ValueError, "did you mean 'noise'"),
        (lambda: composed([], u, scales=[]), ValueError, "a list of one"),
        (lambda: composed(c, u, scales=[1.0]), ValueError, "a list of one"),
        (lambda: composed([c], u, scales=[1.0, 2.0]), ValueError, "scales: 2 for 1"),
        (lambda: composed([c], u, scales=2.0), ValueError, "scales: 2.0 for 1"),
        (lambda: composed([c], u, scales=[math.nan]), ValueError, r"scales\[0\] = nan"),
        (lambda: composed([c, u], u, scales=[1.0, 2.0]), ValueError, "are the same"),
    ]:
        with pytest.raises(error, match=text):
            attempt()
    two = sd.FunctionDenoiser(lambda x, t: 2 * x, VP)
    narrow = rescale(classifier_free(one, two, scale=2.0), 0.5, "data")
    with pytest.raises(ValueError, match="one number a sample"):
        narrow(torch.ones(4, 1), 0.5)
    flow = classifier_free(*pair(sd.FlowMatching()), scale=2.0)
    with pytest.raises(ValueError, match="noise prediction says nothing"):
        rescale(flow, 0.5, "noise")(states(), 1.0)
    assert rescale(flow, 0.5, "velocity")(states(), 1.0).isfinite().all()
