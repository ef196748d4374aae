"""The engine, denoisers, noise and the front door, on real networks."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from enumeration import every_solver, smooth_grid
from hypothesis import given
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion.denoise import NetworkDenoiser
from sde_diffusion.problems import ring
from sde_diffusion.solvers import ddim, ddpm, dpm_solver_pp_2m

DOUBLE = torch.float64
VP = sd.VPLinear()
GRID = sd.times.uniform(VP, 6)


class Net(torch.nn.Module):
    """A small network of (x, label), different at every label."""

    def __init__(self, event=(3,), dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        size = math.prod(event)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(size + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, size)
        ).to(dtype)

    def forward(self, x, label):
        flat = torch.cat([x.flatten(1), label[:, None].to(x.dtype)], 1)
        return self.body(flat).reshape(x.shape)


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def denoiser():
    return NetworkDenoiser(Net(), VP)


# --- denoisers -------------------------------------------------------------------------------

PROBLEM = ring()
SCHEDULES = [VP, sd.SubVP(), sd.EDM(), sd.FlowMatching(), sd.VPCosine(), sd.ddpm_linear()]


def exact_output(prediction, schedule, sigma_data):
    """The perfect network of each kind for the ring: what it would be trained to return."""

    def network(x, label):
        t = float(label[0])
        alpha_t, sigma_t = schedule(t)
        if prediction == "edm":
            rho = sigma_t / alpha_t
            total = rho**2 + sigma_data**2
            y = x * math.sqrt(total)  # undo c_in: the network sees c_in x / alpha
            d = PROBLEM.denoised(y * alpha_t, alpha_t, sigma_t)
            return (d - sigma_data**2 / total * y) / (rho * sigma_data / math.sqrt(total))
        d, eps = PROBLEM.denoised(x, alpha_t, sigma_t), PROBLEM.noise(x, alpha_t, sigma_t)
        alpha_dot, sigma_dot = sd.Schedule.derivatives(schedule, t)
        return {
            "data": d,
            "noise": eps,
            "velocity": alpha_t * eps - sigma_t * d,
            "flow": alpha_dot * d + sigma_dot * eps,
            "score": PROBLEM.score(x, alpha_t, sigma_t),
        }[prediction]

    return network


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("prediction", ["data", "noise", "velocity", "flow", "score", "edm"])
def test_every_prediction_is_the_same_denoiser(prediction, schedule):
    """x_0, noise, score and velocity from any network equal the closed forms."""
    network = exact_output(prediction, schedule, 0.6)
    denoiser = NetworkDenoiser(network, schedule, prediction, label=lambda t: t, sigma_data=0.6)
    for lambda_ in (-2.0, 0.0, 2.0):
        t = schedule.time_of(lambda_)
        alpha_t, sigma_t = schedule(t)
        x = PROBLEM.sample_marginal(16, alpha_t, sigma_t, torch.Generator().manual_seed(1))
        d, eps = PROBLEM.denoised(x, alpha_t, sigma_t), PROBLEM.noise(x, alpha_t, sigma_t)
        close = {"rtol": 1e-8, "atol": 1e-8}
        torch.testing.assert_close(denoiser(x, t), d, **close)
        function, scale, _ = denoiser.bind([t], x)[0]
        torch.testing.assert_close(scale * function(x, torch.empty_like(x)), d, **close)
        torch.testing.assert_close(denoiser.noise(x, t), eps, **close)
        torch.testing.assert_close(
            denoiser.score(x, t), PROBLEM.score(x, alpha_t, sigma_t), **close
        )
        torch.testing.assert_close(denoiser.velocity(x, t), alpha_t * eps - sigma_t * d, **close)


@pytest.mark.parametrize("prediction", ["data", "noise", "velocity", "flow", "score", "edm"])
def test_one_time_a_sample_equals_one_by_one(prediction):
    denoiser = NetworkDenoiser(Net((2, 2)), VP, prediction)
    x = torch.randn(4, 2, 2)
    t = torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=DOUBLE)
    together = denoiser(x, t)
    apart = torch.cat([denoiser(x[i : i + 1], float(t[i])) for i in range(4)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def labels_of(label, schedule, times, **options):
    seen = []

    def network(x, label):
        seen.append(label)
        return torch.zeros_like(x)

    denoiser = NetworkDenoiser(network, schedule, "data", label=label, **options)
    for call in denoiser.bind(times, torch.zeros(2, 3)):
        call.function(torch.zeros(2, 3), None)
    assert all(value.shape == (2,) for value in seen)
    return torch.stack(seen)[:, 0]


def test_labels_say_the_time_in_every_language():
    times = [0.9, 0.5, 0.1]
    rho = [VP.rho(t) for t in times]
    assert labels_of("time", VP, times).tolist() == pytest.approx(times)
    assert labels_of("sigma", VP, times).tolist() == pytest.approx(rho, rel=1e-6)
    log_snr = [-2 * math.log(r) for r in rho]
    assert labels_of("log_snr", VP, times).tolist() == pytest.approx(log_snr, rel=1e-6)
    quarter = [math.log(r) / 4 for r in rho]
    assert labels_of("edm", VP, times).tolist() == pytest.approx(quarter, rel=1e-6)
    assert labels_of(lambda t: 999 * t, VP, times).tolist() == pytest.approx([899.1, 499.5, 99.9])
    table = sd.ddpm_linear()
    grid = sd.times.from_timesteps(table, [999, 500, 1]).tolist()[:-1]
    integers = labels_of("timestep", table, grid)
    assert integers.dtype == torch.int64
    assert integers.tolist() == [999, 500, 1]
    fractional = labels_of("fractional_timestep", VP, times, timesteps=1000)
    assert fractional.tolist() == pytest.approx([899.0, 499.0, 99.0], rel=1e-6)


def test_half_precision_network_keeps_a_float32_state():
    denoiser = NetworkDenoiser(Net(dtype=torch.bfloat16), VP)
    x = torch.randn(4, 3)
    y = sd.run(ddim(VP, GRID), denoiser, x)
    assert y.dtype == torch.float32
    assert sd.run(ddim(VP, GRID), denoiser, x.bfloat16()).dtype == torch.float32
    assert sd.run(ddim(VP, GRID), denoiser, x.double()).dtype == DOUBLE


# --- the engine ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), every_solver())
def test_running_changes_nothing_but_its_own(name, options, x, denoiser):
    """Inputs, network and plan are as before; a second run and eight threads agree."""
    plan = sd.SOLVERS[name](VP, GRID, **options)
    before, weights, table = x.clone(), copy.deepcopy(denoiser.network.state_dict()), str(plan)
    first = sd.run(plan, denoiser, x, noise=3)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: sd.run(plan, denoiser, x, noise=3), range(8)))
    assert all(torch.equal(first, again) for again in runs)
    assert torch.equal(x, before)
    assert str(plan) == table
    for key, value in denoiser.network.state_dict().items():
        assert torch.equal(value, weights[key])
    assert not first.requires_grad


@pytest.mark.parametrize(("name", "options"), every_solver())
def test_autograd_form_is_the_same_run(name, options, x, denoiser):
    plan = sd.SOLVERS[name](VP, GRID, **options)
    y = sd.run(plan, denoiser, x.clone().requires_grad_(), noise=3, grad=True)
    assert y.requires_grad
    torch.testing.assert_close(y.detach(), sd.run(plan, denoiser, x, noise=3), rtol=1e-4, atol=1e-4)


@given(
    event=st.lists(st.integers(1, 3), max_size=4),
    batch=st.integers(1, 4),
    name=st.sampled_from(sorted(sd.SOLVERS)),
)
def test_any_event_shape(event, batch, name):
    """A sample is its numbers: any shape gives the same as flat."""
    grid = smooth_grid(VP, 3)
    plan = sd.SOLVERS[name](VP, grid)
    if plan.stochastic:
        plan = ddim(VP, grid)
    flat = torch.linspace(-1, 1, batch * math.prod(event), dtype=DOUBLE)
    y = sd.run(plan, lambda x, t: torch.tanh(x), flat.reshape(batch, *event))
    assert y.shape == (batch, *event)
    torch.testing.assert_close(y.flatten(), sd.run(plan, lambda x, t: torch.tanh(x), flat))


def test_network_that_hands_its_input_back(x):
    plan = dpm_solver_pp_2m(VP, GRID)
    y = sd.run(plan, lambda x, t: x, x)
    torch.testing.assert_close(y, sd.run(plan, lambda x, t: x.clone(), x))


@pytest.mark.parametrize(("name", "options"), every_solver())
def test_callbacks_see_every_grid_point(name, options, x, denoiser):
    plan = sd.SOLVERS[name](VP, GRID, **options)
    seen = []
    sd.run(plan, denoiser, x, noise=1, callback=lambda p: seen.append((p.index, p.steps, p.t)))
    assert [s[0] for s in seen] == list(range(7))
    assert {s[1] for s in seen} == {6}
    assert [s[2] for s in seen] == GRID.tolist()


def test_callbacks_may_change_the_state(x, denoiser):
    """Replacing the state at grid point k continues from there: the tail of a longer plan."""
    whole = ddim(VP, GRID)
    other = torch.full_like(x, 0.3)
    y = sd.run(whole, denoiser, x, callback=lambda p: other if p.index == 3 else None)
    torch.testing.assert_close(y, sd.run(ddim(VP, GRID[3:]), denoiser, other))
    pinned = sd.run(whole, denoiser, x, callback=lambda p: other if p.index == 6 else None)
    assert torch.equal(pinned, other)


@pytest.mark.parametrize("replacement", [torch.zeros(2, 3), torch.zeros(5, 3, dtype=torch.int64)])
def test_callbacks_must_return_a_state(replacement, x, denoiser):
    with pytest.raises(ValueError, match="return None to leave it"):
        sd.run(ddim(VP, GRID), denoiser, x, callback=lambda p: replacement)


def test_trajectory_is_the_run_at_every_grid_point(x, denoiser):
    plan = dpm_solver_pp_2m(VP, GRID)
    path = sd.record(plan, denoiser, x)
    assert path.times.tolist() == GRID.tolist()
    assert torch.equal(path.states[0], x)
    assert torch.equal(path.states[-1], sd.run(plan, denoiser, x))
    for k in range(6):
        torch.testing.assert_close(
            path.denoised[k], denoiser(path.states[k], float(GRID[k])).detach()
        )
    prefix = sd.run(dpm_solver_pp_2m(VP, GRID[:4]), denoiser, x)
    torch.testing.assert_close(path.states[3], prefix)


def test_not_finite_is_found_and_placed(x):
    """The step and time of the first bad output, though nothing is checked on the way."""

    def network(x, label):
        return x * (math.nan if float(label[0]) < 0.4 else 0.1)

    denoiser = NetworkDenoiser(network, VP)
    first_bad = next(float(t) for t in GRID if t < 0.4)
    with pytest.raises(FloatingPointError, match=rf"output is not finite at t = {first_bad:.6g}"):
        sd.run(ddim(VP, GRID), denoiser, x)
    with pytest.raises(FloatingPointError, match="step 4 of 6"):
        sd.run(ddim(VP, GRID), denoiser, x)


def test_a_callback_that_leaves_no_number_is_named(x, denoiser):
    with pytest.raises(FloatingPointError, match=r"the callback left is not finite.*step 2 of 6"):
        sd.run(
            ddim(VP, GRID),
            denoiser,
            x,
            callback=lambda p: p.x * math.nan if p.index == 2 else None,
        )


def test_progress_bar_counts_network_calls(x, denoiser, capsys):
    y = sd.run(ddim(VP, GRID), denoiser, x, progress=True)
    assert torch.equal(y, sd.run(ddim(VP, GRID), denoiser, x))


def test_a_network_that_hands_back_a_view_of_its_input(x):
    plan = dpm_solver_pp_2m(VP, GRID)
    y = sd.run(plan, lambda x, t: x[:, -1:].expand_as(x), x)
    torch.testing.assert_close(y, sd.run(plan, lambda x, t: x[:, -1:].expand_as(x).clone(), x))


@pytest.mark.parametrize("prediction", ["data", "noise", "velocity", "score", "edm"])
def test_predictions_hold_where_alpha_is_tiny(prediction):
    """alpha = 1e-44 at the start: the run is finite and equals the denoiser asked with a tensor."""
    schedule = sd.VPLinear(0.1, 400.0)
    denoiser = NetworkDenoiser(lambda x, t: 0.1 * x, schedule, prediction)
    x = torch.randn(3, 2, dtype=DOUBLE)
    for t in (1.0, 0.5, 0.1):
        by_tensor = denoiser(x, torch.tensor(t, dtype=DOUBLE))
        torch.testing.assert_close(denoiser(x, t), by_tensor, rtol=1e-9, atol=1e-9)


def test_gradients_reach_the_times_through_the_network_too():
    """d(result)/d(times) of a run and of the law equal central differences."""
    problem = ring()
    grid = smooth_grid(VP, 3, -1.5, 1.5)
    x = problem.sample_marginal(4, *VP(float(grid[0])), torch.Generator().manual_seed(0))

    def value(times):
        plan = ddim(VP, times, eta=0.0)
        y = sd.run(plan, problem.denoiser(VP), x, grad=True)
        return y.square().sum() + plan.law(VP, 0.3, 0.7, start=(0.0, 1.0))[1]

    times = grid.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(times), times)
    for i in range(len(grid)):
        bump = torch.zeros_like(grid)
        bump[i] = 1e-6
        difference = float(value(grid + bump) - value(grid - bump)) / 2e-6
        assert float(gradient[i]) == pytest.approx(difference, rel=1e-5, abs=1e-6)


def test_callbacks_and_networks_cannot_reach_the_callers_state(x, denoiser):
    before = x.clone()

    def spoil(point):
        point.x.mul_(0.5)

    for grad in (False, True):
        sd.run(ddim(VP, GRID), denoiser, x, callback=spoil, grad=grad)
        assert torch.equal(x, before)


def test_wrapped_networks_may_be_cast_later_or_hidden_in_a_lambda(x):
    net = Net()
    denoiser = NetworkDenoiser(net, VP)
    net.to(torch.bfloat16)
    assert sd.run(ddim(VP, GRID), denoiser, x).dtype == torch.float32
    hidden = NetworkDenoiser(lambda x, t: net(x, t), VP, dtype=torch.bfloat16)
    assert torch.equal(sd.run(ddim(VP, GRID), hidden, x), sd.run(ddim(VP, GRID), denoiser, x))


def test_timestep_labels_stay_in_the_table():
    table = sd.ddpm_linear()
    assert labels_of("timestep", table, [1.0, 0.0004, 0.0]).tolist() == [999, 0, 0]
    assert labels_of(lambda t: (10 * t).long(), table, [0.9]).dtype == torch.int64


def test_plans_know_their_schedule_by_its_values(x):
    """Equal schedules written otherwise are accepted, others of the same name are not."""

    class Own(sd.Schedule):
        def __init__(self, power):
            self.power = power

        def alpha(self, t):
            return 1 - t**self.power

        def sigma(self, t):
            return t * 1.0

    plan = ddim(Own(1), [0.9, 0.5, 0.1])
    assert sd.run(plan, NetworkDenoiser(Net(), sd.FlowMatching()), x).shape == x.shape
    with pytest.raises(ValueError, match="was made for"):
        sd.run(plan, NetworkDenoiser(Net(), Own(2)), x)
    with pytest.raises(ValueError, match="was made for"):
        plan.law(Own(2), 0.0, 1.0)


# --- noise -----------------------------------------------------------------------------------


@given(seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=5, unique=True), data=st.data())
def test_a_samples_noise_does_not_depend_on_its_batch(seeds, data):
    """Alone, in another batch, in another place: the same sample to the bit."""
    noise = lambda chosen: sd.PerSampleNoise(chosen)
    plan = ddpm(VP, GRID)

    def draw(chosen):
        shape = (len(chosen), 3, 7)
        start = noise(chosen).start(torch.empty(shape, dtype=DOUBLE))
        return sd.run(plan, lambda x, t: 0.3 * x, start, noise=noise(chosen))

    together = draw(seeds)
    order = data.draw(st.permutations(range(len(seeds))))
    permuted = draw([seeds[i] for i in order])
    for place, i in enumerate(order):
        assert torch.equal(permuted[place], together[i])
        assert torch.equal(draw([seeds[i]])[0], together[i])


def test_noise_is_standard_normal_and_streams_are_unrelated():
    """Mean, variance, correlations of 200,000 draws; each test 5 sigma: false alarms < 1e-5."""
    n = 200_000
    for source in (sd.IndependentNoise(0), sd.PerSampleNoise([0, 1])):
        out = torch.empty(2, n // 2, dtype=DOUBLE)
        start = source.start(out.clone()).flatten()
        stream = source.stream(out)
        first = stream(torch.empty_like(out), 1.0, 0.5).flatten()
        second = stream(torch.empty_like(out), 0.5, 0.0).flatten()
        for z in (start, first, second):
            assert abs(float(z.mean())) < 5 / math.sqrt(n)
            assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / n)
        for a, b in ((start, first), (first, second), (start, second)):
            assert abs(float((a * b).mean())) < 5 / math.sqrt(n)


def test_unseeded_noise_is_new_each_time_and_still_repeatable(x, denoiser):
    first, second = sd.IndependentNoise(), sd.IndependentNoise()
    assert first.seed != second.seed
    plan = ddpm(VP, GRID)
    a, b = (sd.run(plan, denoiser, x, noise=first) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        (-1, "2\\^63"),
        (2**63, "2\\^63"),
        ([], "empty"),
        ("0", "give an integer"),
        (1.5, "integer"),
        (True, "integer"),
    ],
)
def test_bad_seeds(seed, words, denoiser):
    with pytest.raises((ValueError, TypeError), match=words):
        sd.sample(denoiser, (2, 3), seed=seed)


# --- the front door --------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [*sd.SOLVERS, *sd.adaptive.ADAPTIVE])
def test_sample_with_every_solver_by_name(solver, denoiser):
    grid = "default" if solver in sd.adaptive.ADAPTIVE else sd.times.uniform(VP, 5, t_end=1e-3)
    y = sd.sample(denoiser, (4, 3), solver=solver, times=grid, seed=0)
    assert y.shape == (4, 3)
    assert torch.isfinite(y).all()
    assert torch.equal(y, sd.sample(denoiser, (4, 3), solver=solver, times=grid, seed=0))


@pytest.mark.parametrize("grid", sorted(sd.times.GRIDS))
def test_sample_with_every_grid_by_name(grid):
    schedule = sd.ddpm_linear()
    denoiser = NetworkDenoiser(Net(), schedule)
    assert torch.isfinite(sd.sample(denoiser, (2, 3), times=grid, steps=5, seed=0)).all()


def test_sample_is_run_from_the_prior(denoiser):
    plan = ddpm(VP, GRID)
    noise = sd.IndependentNoise(7)
    start = noise.start(torch.empty(4, 3)) * VP.sigma(1.0)
    expected = sd.run(plan, denoiser, start, noise=noise)
    assert torch.equal(sd.sample(denoiser, (4, 3), solver="ddpm", times=GRID, seed=7), expected)
    assert torch.equal(sd.sample(denoiser, (4, 3), solver=plan, seed=7), expected)
    own = lambda schedule, times: ddpm(schedule, times)
    assert torch.equal(sd.sample(denoiser, (4, 3), solver=own, times=GRID, seed=7), expected)
    assert torch.equal(
        sd.sample(denoiser, (4, 3), solver="ddpm", times=GRID, seed=7, start=start), expected
    )


def test_samples_of_the_ring_have_its_law():
    """A perfect network and 40 steps: mean and covariance within 5 sigma of the exact data's."""
    n = 4000
    denoiser = PROBLEM.denoiser(VP)
    covariance = PROBLEM.data_covariance()
    for solver, options in (("dpm_solver_pp_2m", {}), ("ddpm", {"variance": "posterior"})):
        grid = sd.times.uniform_lambda(VP, 100)
        y = sd.sample(denoiser, (n, 2), solver=solver, times=grid, seed=0, dtype=DOUBLE, **options)
        error = (y.mean(0) - PROBLEM.mean) / (covariance.diagonal() / n).sqrt()
        assert float(error.abs().max()) < 5
        assert float((torch.cov(y.T) - covariance).abs().max()) < 0.02 + 5 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "dim"}, "did you mean 'ddim'"),
        ({"solver": 3}, "give a name"),
        ({"solver": "ddim", "etta": 1.0}, "did you mean 'eta'"),
        ({"step": 10}, "did you mean 'steps'"),
        ({"times": "karass"}, "did you mean 'karras'"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 2.5}, "integer"),
        ({"times": [0.5, 0.1]}, "pass start="),
        ({"times": [1.0, 0.1], "steps": 3}, "leave out one"),
        ({"solver": ddim(VP, GRID), "steps": 3}, "its own times"),
        ({"solver": ddim(VP, GRID), "eta": 1.0}, "unknown option"),
        ({"dtype": torch.float16}, "float32 or float64"),
        ({"start": torch.zeros(2, 2)}, "start has shape"),
        ({"seed": [1, 2, 3]}, "one for each sample"),
        ({"solver": "scipy", "progress": True}, "chooses its own steps"),
        ({"solver": "torchdiffeq", "steps": 3}, "chooses its own steps"),
        ({"solver": lambda schedule, times: None}, "not a Plan"),
        ({"start": [[0.0]]}, "must be a tensor"),
        ({"solver": "scipy", "method": "RK54"}, "did you mean 'RK45'"),
        ({"solver": "torchdiffeq", "method": "dopri6"}, "did you mean 'dopri"),
        ({"solver": "torchdiffeq", "rtol": 0.0}, "must be positive"),
    ],
)
def test_bad_requests_are_refused_with_a_cure(options, words, denoiser):
    with pytest.raises((ValueError, TypeError), match=words):
        sd.sample(denoiser, (2, 3), **options)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (2.0, 3)])
def test_bad_shapes(shape, denoiser):
    with pytest.raises(ValueError, match="at least 1"):
        sd.sample(denoiser, shape)


def test_bad_states_and_networks_are_refused_with_a_cure(x, denoiser):
    plan = ddim(VP, GRID)
    cases = [
        (lambda: sd.run(plan, denoiser, x.long()), TypeError, "x.float"),
        (lambda: sd.run(plan, denoiser, x[:0]), ValueError, "empty batch"),
        (lambda: sd.run(plan, denoiser, x / 0), ValueError, "not finite"),
        (lambda: sd.run(plan, denoiser, [1.0]), TypeError, "must be a tensor"),
        (lambda: sd.run(plan, NetworkDenoiser(Net().to("meta"), VP), x), ValueError, "move one"),
        (
            lambda: sd.run(plan, NetworkDenoiser(Net(), sd.SubVP()), x),
            ValueError,
            "was made for VPLinear",
        ),
        (
            lambda: sd.run(plan, NetworkDenoiser(lambda x, t: x[:, :1], VP), x),
            ValueError,
            "first half of the channels",
        ),
        (lambda: sd.run(plan, lambda x, t: x[0], x), ValueError, "one number for each"),
        (lambda: sd.run(plan, lambda x, t: x[0], x, grad=True), ValueError, "one number for each"),
        (
            lambda: sd.run(plan, NetworkDenoiser(lambda x, t: {"sample": x}, VP), x),
            ValueError,
            "wrap it",
        ),
        (lambda: sd.sample(Net(), (2, 3)), TypeError, "say how to read the network"),
        (lambda: NetworkDenoiser(Net(), VP, "epsilon"), ValueError, "unknown prediction"),
        (lambda: NetworkDenoiser(Net(), VP, "nose"), ValueError, "did you mean 'noise'"),
        (lambda: NetworkDenoiser(Net(), VP, label="tiem"), ValueError, "did you mean 'time'"),
        (lambda: NetworkDenoiser(Net(), VP, label="timestep"), ValueError, "timesteps=1000"),
        (lambda: NetworkDenoiser(Net(), VP)(x, 1.5), ValueError, "outside"),
        (lambda: NetworkDenoiser(Net(), VP)(x, torch.tensor([1, 2])), TypeError, "continuous"),
        (lambda: NetworkDenoiser(Net(), VP, timesteps=-5), ValueError, "positive integer"),
        (lambda: sd.run("ddim", denoiser, x), TypeError, "needs a Plan"),
        (lambda: sd.run(plan, sd.FunctionDenoiser(lambda x, t: None, VP), x), ValueError, "wrap"),
        (
            lambda: sd.adaptive.scipy(sd.FunctionDenoiser(lambda x, t: x[:1], VP), x, [1.0, 0.1]),
            ValueError,
            "one number for each",
        ),
        (
            lambda: sd.adaptive.torchdiffeq(
                sd.FunctionDenoiser(lambda x, t: x * math.nan, VP), x, [1.0, 0.1]
            ),
            FloatingPointError,
            "gave up|not finite",
        ),
        (lambda: NetworkDenoiser(Net(), None), TypeError, "must be a Schedule"),
        (lambda: NetworkDenoiser(3, VP), TypeError, "must be callable"),
        (lambda: NetworkDenoiser(Net(), VP, sigma_data=-1), ValueError, "positive"),
        (
            lambda: sd.sample(NetworkDenoiser(Net(), sd.FlowMatching()), (2, 3), solver="ddim"),
            ValueError,
            "noise prediction says nothing of the data where alpha = 0",
        ),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


def test_flow_velocity_and_data_networks_start_from_pure_noise():
    """alpha = 0 at the first time is no trouble for them."""
    for prediction in ("flow", "velocity", "data"):
        denoiser = NetworkDenoiser(Net(), sd.FlowMatching(), prediction)
        assert torch.isfinite(sd.sample(denoiser, (2, 3), solver="ddim", steps=4, seed=0)).all()


# --- black boxes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "method"),
    [("torchdiffeq", m) for m in ("dopri5", "dopri8", "bosh3", "adaptive_heun")]
    + [("scipy", m) for m in sd.adaptive.SCIPY_METHODS],
)
def test_black_boxes_reach_the_exact_endpoint(solver, method):
    x = PROBLEM.sample_marginal(8, *VP(0.9), torch.Generator().manual_seed(0))
    exact = PROBLEM.endpoint(x, VP, 0.9, 0.1)
    solve = sd.adaptive.ADAPTIVE[solver]
    errors = []
    for tolerance in (1e-4, 1e-7):
        solution = solve(PROBLEM.denoiser(VP), x, [0.9, 0.1], method, tolerance, tolerance)
        assert solution.nfe > 5
        errors.append(float((solution.x - exact).abs().max()))
    assert errors[1] < min(2e-5, errors[0] / 5)


def test_fixed_step_methods_of_torchdiffeq_are_our_runge_kutta():
    """Another implementation of the same method on the same grid: the same map."""
    grid = smooth_grid(VP, 8)
    x = PROBLEM.sample_marginal(4, *VP(float(grid[0])), torch.Generator().manual_seed(0))
    denoiser = PROBLEM.denoiser(VP)
    for theirs, ours in (("euler", "euler"), ("midpoint", "midpoint"), ("heun2", "heun")):
        solution = sd.adaptive.torchdiffeq(denoiser, x, grid, method=theirs)
        plan = sd.SOLVERS[ours](VP, grid)
        torch.testing.assert_close(solution.x, sd.run(plan, denoiser, x), rtol=1e-9, atol=1e-9)
        assert solution.nfe == plan.nfe


def test_black_boxes_count_calls_and_end_at_sigma_zero():
    calls = []

    def network(x, t):
        calls.append(1)
        return PROBLEM.denoised(x, *VP(float(t)))

    denoiser = sd.FunctionDenoiser(network, VP)
    x = torch.randn(4, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for solve in sd.adaptive.ADAPTIVE.values():
        calls.clear()
        solution = solve(denoiser, x, [1.0, 0.0])
        assert solution.nfe == len(calls)
        before = solve(denoiser, x, [1.0, VP.t_clean]).x
        assert torch.equal(solution.x, PROBLEM.denoised(before, *VP(VP.t_clean)))
