"""What all guidance has in common: how branches are asked, selected, counted and refused."""

import pytest
import torch
from models import DOUBLE, PROBLEM, VP, Net
from networks_listed import CONTEXTS, asked, conditional, every_kind, perturbed, small

import sde_diffusion as sd
from sde_diffusion.device import same_device
from sde_diffusion.guidance import Cost, Guided, Rule, alone, classifier_free
from sde_diffusion.guidance.branches import groups

GRID = sd.times.uniform(VP, 6)
PLAN = sd.SOLVERS["dpm_solver_pp_2m"](VP, GRID)


class Counted(torch.nn.Module):
    """Another package's network of (x, label, tokens), that keeps the sizes of its batches."""

    def __init__(self, event=(3,)):
        super().__init__()
        self.net, self.sizes = Net(event), []

    def forward(self, x, label, tokens=None, factor=1.0):
        self.sizes.append(len(x))
        shift = 0.0 if tokens is None else tokens.tanh().mean(1)
        return factor * self.net(x, label) + shift


class Apart(sd.Denoiser):
    """A denoiser that cannot be told to be one network with another."""

    def __init__(self, inner):
        self.inner, self.schedule = inner, inner.schedule

    def __call__(self, x, t):
        return self.inner(x, t)

    def select(self, who):
        return Apart(self.inner.select(who))


class Odd(Guided):
    """Not linear, and different at different times; alone below t = 0.4."""

    def rule(self, t):
        if isinstance(t, torch.Tensor) and t.ndim:
            late = (t < 0.4).reshape(-1, 1)
            return Rule(
                (0, 1, 2), lambda x, a, b, c: torch.where(late, a, torch.sin(a) * b + x * c)
            )
        if t < 0.4:
            return alone(0)
        return Rule((0, 1, 2), lambda x, a, b, c: torch.sin(a) * b + x * c)


def conditions(count=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 4, 3, generator=generator) for _ in range(3)]


def odd(network=None, separate=False):
    base = sd.NetworkDenoiser(network or Counted(), VP, "velocity")
    branches = [base.given(c) for c in conditions()]
    return Odd(*map(Apart, branches) if separate else branches)


TIMES = {
    "number": 0.7,
    "late": 0.3,
    "tensor": torch.tensor(0.7, dtype=DOUBLE),
    "each": torch.tensor([0.1, 0.2, 0.5, 0.7, 1.0], dtype=DOUBLE),
}


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
def test_branches_of_one_network_are_one_call_and_answer_as_one_by_one(t, x):
    network = Counted()
    torch.testing.assert_close(odd(network)(x, t), odd(separate=True)(x, t))
    assert network.sizes == ([5] if t is TIMES["late"] else [15])


def test_a_run_asks_once_where_all_are_needed_and_one_alone_where_one_is(x):
    network = Counted()
    guided = odd(network)
    right = sd.run(PLAN, odd(separate=True), x)
    torch.testing.assert_close(sd.run(PLAN, guided, x), right)
    assert network.sizes == [15 if t >= 0.4 else 5 for t in PLAN.asked_at]
    evaluations = sum(network.sizes) // 5
    assert guided.cost(PLAN.asked_at) == Cost(6, evaluations)
    assert odd(separate=True).cost(PLAN.asked_at) == Cost(evaluations, evaluations)


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
def test_a_bound_denoiser_answers_as_the_one_that_is_asked(t, x):
    guided = odd()
    if isinstance(t, float):
        (call,) = guided.bind([t], x)
        torch.testing.assert_close(call.scale * call.function(x, None), guided(x, t))
    some = torch.tensor([4, 1, 1])
    part = t[some] if isinstance(t, torch.Tensor) and t.ndim else t
    torch.testing.assert_close(guided.select(some)(x[some], part), guided(x, t)[some])


@every_kind
@conditional
@pytest.mark.parametrize("drop", [False, True])
def test_networks_of_this_library_are_joined_by_dropping(kind, condition, drop):
    x, t = asked(kind)
    network, seen = perturbed(small(kind, condition)), []
    network.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    base = sd.NetworkDenoiser(network, VP, "data")
    first = CONTEXTS[condition]
    second = first.flip(0)
    without = torch.tensor([True, False, False, True])
    branches = [
        base.given(first, without) if drop else base.given(first),
        base.given(),
        base.given(second),
        base.given(None),
    ]
    assert [group.members for group in groups(branches, 4)] == [[0, 1, 2, 3]]

    class Sum(Guided):
        def rule(self, t):
            return Rule((0, 1, 2, 3), lambda x, a, b, c, d: a + 2 * b - 3 * c + d)

    for time in (0.4, t):
        seen.clear()
        found = Sum(*branches)(x, time)
        assert seen == [16]
        torch.testing.assert_close(found, Sum(*map(Apart, branches))(x, time), rtol=1e-4, atol=1e-5)
    some = torch.tensor([3, 0])
    picked = Sum(*branches).select(some)(x[some], t[some])
    torch.testing.assert_close(picked, found[some], rtol=1e-4, atol=1e-5)


def groups_of(*branches, count=5):
    return [group.members for group in groups(branches, count)]


def test_what_is_not_one_question_is_asked_apart(x):
    network = Counted()
    base = sd.NetworkDenoiser(network, VP, "velocity")
    one, two, three = (base.given(c) for c in conditions())
    longer = base.given(torch.randn(5, 7, 3))
    assert groups_of(one, longer, two, base, three) == [[0, 2, 4], [1], [3]]
    assert groups_of(one, sd.NetworkDenoiser(Counted(), VP, "velocity").given(conditions()[0])) == [
        [0],
        [1],
    ]
    assert groups_of(one, sd.NetworkDenoiser(network, VP, "data").given(conditions()[0])) == [
        [0],
        [1],
    ]
    assert groups_of(one, base.given(conditions()[1].double())) == [[0], [1]]
    assert groups_of(base.given(conditions()[0], 2.0), base.given(conditions()[1], 3.0)) == [
        [0],
        [1],
    ]
    factor = 2.0
    same = [base.given(c, factor) for c in conditions()]
    assert groups_of(*same) == [[0, 1, 2]]
    mixed = Odd(one, longer, two)
    torch.testing.assert_close(mixed(x, 0.7), Odd(*map(Apart, mixed.branches))(x, 0.7))


def test_guidance_of_guidance_and_of_exact_denoisers():
    x = torch.randn(4, *PROBLEM.event_shape, dtype=DOUBLE)
    exact = PROBLEM.denoiser(VP)
    half = sd.FunctionDenoiser(lambda y, t: 0.5 * exact(y, t), VP)
    inner = classifier_free(exact, half, scale=3.0)
    outer = classifier_free(inner, half, scale=0.5)
    d = exact(x, 0.5)
    for t in (0.5, torch.full((4,), 0.5, dtype=DOUBLE)):
        torch.testing.assert_close(inner(x, t), 2.0 * d)
        torch.testing.assert_close(outer(x, t), 1.25 * d)
    assert outer.cost([0.5]) == Cost(3, 3)
    (call,) = outer.bind([0.5], x)
    torch.testing.assert_close(call.scale * call.function(x, None), 1.25 * d)


@pytest.mark.parametrize("method", ["secant", "anderson", "picard", "parareal"])
def test_conditions_go_with_the_sample_in_parallel(method, x):
    tokens = conditions()
    base = sd.NetworkDenoiser(Counted(), VP, "velocity")
    for denoiser in (base.given(tokens[0]), odd(separate=False)):
        found = sd.run_parallel(PLAN, denoiser, x, method=method, tolerance=1e-6, batch_limit=7)
        torch.testing.assert_close(found.x, sd.run(PLAN, denoiser, x), rtol=1e-3, atol=1e-3)


def test_samples_with_steps_of_their_own_have_their_own_conditions(x):
    guided = odd()
    solve = lambda denoiser, start: (
        sd.adaptive.per_sample_ode(denoiser, start, [0.95, 0.5], rtol=1e-4, atol=1e-4).x
    )
    whole = solve(guided, x)
    for i in (0, 3):
        one = solve(guided.select(torch.tensor([i])), x[i : i + 1])
        torch.testing.assert_close(one, whole[i : i + 1], rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_all_branches(x):
    x = x.requires_grad_()
    (joined,) = torch.autograd.grad(odd()(x, 0.7).sum(), x)
    (separate,) = torch.autograd.grad(odd(separate=True)(x, 0.7).sum(), x)
    torch.testing.assert_close(joined, separate)
    run = sd.run(PLAN, odd(), x, grad=True)
    (slope,) = torch.autograd.grad(run.sum(), x)
    assert slope.isfinite().all()


def test_what_is_refused(x):
    base = sd.NetworkDenoiser(Counted(), VP, "velocity")
    one = base.given(conditions()[0])
    with pytest.raises(ValueError, match="at least one"):
        Odd()
    with pytest.raises(TypeError, match="what is guided is function"):
        Odd(one, lambda y, t: y)
    with pytest.raises(ValueError, match=r"one denoiser is for VPLinear.*another for VPCosine"):
        Odd(one, sd.NetworkDenoiser(Counted(), sd.VPCosine()))
    Odd(one, sd.NetworkDenoiser(Counted(), sd.VPLinear()))
    elsewhere = sd.NetworkDenoiser(lambda y, t: y, VP, device="meta")
    with pytest.raises(ValueError, match="are on cpu and meta: move them to one"):
        Odd(one, elsewhere)
    short = Odd(one, base, sd.FunctionDenoiser(lambda y, t: y[:1], VP))
    with pytest.raises(ValueError, match="the network returned shape"):
        short(x, 0.7)
    with pytest.raises(ValueError, match="lies outside"):
        odd().bind([0.5, 2.0], x)


def test_conditions_are_one_a_sample(x):
    """A shared one is refused at every size of the batch, not where its first axis fits alone."""
    base = sd.NetworkDenoiser(lambda y, t, c: 0.5 * y + c.mean(), VP, "data")
    shared = base.given(torch.ones(4, 3))
    for ask in (
        lambda: shared(x, 0.7),
        lambda: shared(x, torch.tensor(0.7, dtype=DOUBLE)),
        lambda: sd.run(PLAN, shared, x),
        lambda: sd.run_parallel(PLAN, shared, x),
        lambda: sd.log_likelihood(shared, x, t_end=0.1),
        lambda: sd.log_likelihood(classifier_free(shared, shared.given(0 * x[:4]), scale=3.0), x),
        lambda: odd()(x[:2], 0.7),
        lambda: sd.log_likelihood(odd(), x[:2], t_end=0.1),
    ):
        with pytest.raises(ValueError, match=r"bound to . samples and x has .*expand\(batch"):
            ask()
    with pytest.raises(ValueError, match="conditions of 4 and 5 samples"):
        classifier_free(shared, base.given(torch.ones(5, 3)), scale=2.0)
    with pytest.raises(ValueError, match="conditions of 4 and 5 samples"):
        base.given(torch.ones(4), torch.ones(5))
    assert (odd().samples, odd().conditioned) == (5, True)
    assert (Odd(base).samples, Odd(base).conditioned) == (None, False)


class Wrong(Guided):
    def __init__(self, rule, *branches):
        super().__init__(*branches)
        self.wrong = rule

    def rule(self, t):
        return self.wrong


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (((0,), lambda x, d: d), TypeError, "is tuple; it must be a Rule"),
        (None, TypeError, "is NoneType"),
        (alone(1), ValueError, "numbered 0 to 0"),
        (alone(-1), ValueError, "numbered 0 to 0"),
        (Rule((0,), lambda x, d: d[:, :1]), ValueError, r"to shape \(5, 1\): what its combine"),
        (Rule((0,), lambda x, d: None), ValueError, "to NoneType: what its combine"),
    ],
)
def test_a_rule_of_ones_own_is_checked(rule, error, words, x):
    guided = Wrong(rule, sd.FunctionDenoiser(lambda y, t: y, VP))
    for ask in (lambda: guided(x, 0.7), lambda: sd.run(PLAN, guided, x)):
        with pytest.raises(error, match=words):
            ask()


def test_names_of_one_device():
    device = torch.device
    assert same_device(device("cuda"), device("cuda:0"))
    assert same_device(device("cuda:1"), device("cuda:1"))
    assert not same_device(device("cuda:1"), device("cuda:0"))
    assert not same_device(device("cuda"), device("cpu"))
    on = lambda name: sd.NetworkDenoiser(lambda y, t: y, VP, device=name)
    assert len(Odd(on("meta"), on("meta:0")).branches) == 2
    assert sd.run(PLAN, on("cpu:0"), torch.ones(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("value", ["3", None, True, (1.0, 2.0), [1.0]])
def test_a_number_is_a_number(value):
    a, b = (sd.FunctionDenoiser(lambda y, t: y, VP) for _ in range(2))
    guide, free = sd.guidance, classifier_free(a, b, scale=2.0)
    for attempt in (
        lambda: classifier_free(a, b, scale=value),
        lambda: classifier_free(a, b, scale=lambda t: value)(torch.ones(2, 3), 0.5),
        lambda: guide.rescale(free, value, "data"),
        lambda: guide.limited_interval(free, value, 2.0),
        lambda: guide.limited_interval(free, 0.1, value),
        lambda: guide.adaptive_projected(a, b, scale=2.0, eta=value),
        lambda: guide.adaptive_projected(a, b, scale=2.0, momentum=value),
        lambda: guide.adaptive_projected(a, b, scale=2.0, norm_threshold=value),
        lambda: guide.cfg_zero_star(a, b, scale=2.0, zero_above=value),
        lambda: guide.cfg_plus_plus(a, b, scale=0.5, times=[0.9, 0.5], eta=value),
        lambda: guide.dynamic_thresholding(a, value),
        lambda: guide.static_thresholding(a, value),
    ):
        with pytest.raises(TypeError, match="must be a number"):
            attempt()
    with pytest.raises(TypeError, match="times = 20 must be the grid"):
        guide.cfg_plus_plus(a, b, scale=0.5, times=20)


def test_a_guidance_tells_its_name_and_parameters():
    a, b = (sd.FunctionDenoiser(lambda y, t: y, VP) for _ in range(2))
    free = classifier_free(a, b, scale=3)
    assert repr(free) == "classifier_free(FunctionDenoiser, FunctionDenoiser, scale=3)"
    clipped = sd.guidance.static_thresholding(sd.guidance.autoguidance(a, b, scale=1.5))
    inner = "autoguidance(FunctionDenoiser, FunctionDenoiser, scale=1.5)"
    assert repr(clipped) == f"StaticThresholding({inner}, low=-1, high=1)"
    assert "zero_above=inf" in repr(sd.guidance.cfg_zero_star(a, b, scale=2.0))


class Broadcasts(sd.Denoiser):
    schedule = VP

    def __call__(self, x, t):
        return x[:1]


def test_an_answer_of_another_shape_is_not_broadcast(x):
    guided = classifier_free(Broadcasts(), sd.FunctionDenoiser(lambda y, t: y, VP), scale=2.0)
    with pytest.raises(ValueError, match=r"returned shape \(1, 3\)"):
        guided(x, 0.7)
    with pytest.raises(ValueError, match=r"returned shape \(1, 3\)"):
        sd.run(PLAN, guided, x)
