"""How sampling in parallel asks the network, and what it refuses."""

import threading

import pytest
import torch
from models import DOUBLE, PROBLEM, VP, Net

import sde_diffusion as sd
from sde_diffusion.parallel import run_parallel

SWEEPS = ("picard", "anderson", "secant")
PLAN = sd.SOLVERS["ddim"](VP, sd.times.uniform(VP, 20), eta=1.0)
DENOISER = PROBLEM.denoiser(VP)


def starts(n=3, dtype=DOUBLE):
    return torch.randn(
        n, *PROBLEM.event_shape, generator=torch.Generator().manual_seed(0), dtype=dtype
    )


def right(x, plan=PLAN, denoiser=DENOISER, noise=1):
    return sd.run(plan, denoiser, x, noise=noise)


class Spy(sd.Denoiser):
    """A denoiser that keeps the number of states in each call, and the threads that call it."""

    def __init__(self, inner=DENOISER):
        self.inner, self.schedule, self.sizes, self.threads = inner, inner.schedule, [], set()

    def __call__(self, x, t):
        assert t.shape == (len(x),)
        assert not torch.is_grad_enabled()
        self.sizes.append(len(x))
        self.threads.add(threading.get_ident())
        return self.inner(x, t)


@pytest.mark.parametrize("method", SWEEPS)
def test_a_round_is_one_call_and_counts_every_state(method):
    spy, x = Spy(), starts()
    found = run_parallel(PLAN, spy, x, noise=1, method=method)
    assert found.calls == found.rounds == len(spy.sizes)
    assert found.evaluations == sum(spy.sizes)
    assert spy.sizes[0] == 20 * 3
    assert found.rounds < 20
    assert found.seconds > 0


@pytest.mark.parametrize("method", SWEEPS)
def test_a_window_bounds_the_rows_in_work(method):
    spy, x = Spy(), starts()
    found = run_parallel(PLAN, spy, x, noise=1, method=method, window=5, tolerance=1e-10)
    assert max(spy.sizes) == 5 * 3
    torch.testing.assert_close(found.x, right(x), rtol=1e-7, atol=1e-7)


def test_a_window_of_one_row_is_the_sequential_run():
    spy, x = Spy(), starts()
    found = run_parallel(PLAN, spy, x, noise=1, window=1)
    assert spy.sizes == [3] * 20
    torch.testing.assert_close(found.x, right(x), rtol=1e-12, atol=1e-12)


def test_a_batch_limit_divides_the_calls():
    spy, x = Spy(), starts()
    found = run_parallel(PLAN, spy, x, noise=1, batch_limit=16)
    whole = run_parallel(PLAN, DENOISER, x, noise=1)
    assert max(spy.sizes) == 16
    assert found.calls == len(spy.sizes) > found.rounds == whole.rounds
    assert found.evaluations == whole.evaluations == sum(spy.sizes)
    torch.testing.assert_close(found.x, whole.x, rtol=1e-12, atol=1e-12)


def test_replicas_share_the_rows_evenly_in_threads_of_their_own():
    spies, x = [Spy(), Spy()], starts(4)
    found = run_parallel(PLAN, spies[0], x, noise=1, replicas=spies[1:])
    whole = run_parallel(PLAN, DENOISER, x, noise=1)
    torch.testing.assert_close(found.x, whole.x, rtol=1e-12, atol=1e-12)
    first, second = (sum(spy.sizes) for spy in spies)
    assert first + second == found.evaluations == whole.evaluations
    assert 0 <= first - second <= found.rounds
    assert found.calls == len(spies[0].sizes) + len(spies[1].sizes)
    assert threading.get_ident() not in spies[0].threads | spies[1].threads


def test_a_plain_function_is_asked_once_for_each_time():
    x, times = starts(), []

    def function(y, t):
        times.append(t)
        return DENOISER(y, t)

    found = run_parallel(PLAN, function, x, noise=1, tolerance=1e-10)
    assert times[:20] == list(PLAN.asked_at)
    assert found.calls == len(times)
    torch.testing.assert_close(found.x, right(x), rtol=1e-8, atol=1e-8)
    wrapped = sd.FunctionDenoiser(function, VP)
    again = run_parallel(PLAN, wrapped, x, noise=1, tolerance=1e-10)
    assert again.calls == found.calls
    assert torch.equal(again.x, found.x)


def test_conditions_go_with_the_sample():
    levels = torch.tensor([-1.0, 0.0, 2.0], dtype=DOUBLE)
    conditioned = sd.Conditioned(
        lambda i: sd.FunctionDenoiser(
            lambda x, t: torch.tanh(x) + levels[i, None], VP, per_sample=True
        ),
        VP,
    )
    x = starts()
    for method in (*SWEEPS, "parareal"):
        found = run_parallel(
            PLAN, conditioned, x, noise=1, method=method, tolerance=1e-12, batch_limit=7
        )
        torch.testing.assert_close(
            found.x, right(x, denoiser=conditioned), rtol=1e-9, atol=1e-9, msg=method
        )


@pytest.mark.parametrize(
    "noise", [7, [3, 4, 5], sd.BrownianPath([3, 4, 5]), sd.IndependentNoise(2)], ids=repr
)
@pytest.mark.parametrize("window", [None, 4])
def test_every_source_of_noise_gives_the_draws_of_a_run(noise, window):
    x = starts()
    found = run_parallel(PLAN, DENOISER, x, noise=noise, window=window, tolerance=1e-12)
    torch.testing.assert_close(found.x, right(x, noise=noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("event", [(), (1,), (3,), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_networks_and_events_of_any_shape(event, dtype):
    scalar = lambda x, label: torch.tanh(x) * label
    network = sd.NetworkDenoiser(Net(event) if event else scalar, VP)
    plan = sd.SOLVERS["unipc"](VP, sd.times.uniform(VP, 12))
    x = torch.randn(5, *event, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = x.clone()
    for method in SWEEPS:
        found = run_parallel(plan, network, x.requires_grad_(), method=method, tolerance=1e-4)
        assert found.x.dtype == torch.float32
        assert not found.x.requires_grad
        torch.testing.assert_close(found.x, sd.run(plan, network, x), rtol=1e-3, atol=1e-3)
    assert torch.equal(x.detach(), before)


def test_rounds_that_run_out_are_said():
    x = starts()
    with pytest.warns(RuntimeWarning, match=r"3 of 3 samples had not met tolerance = 1e-09"):
        found = run_parallel(PLAN, DENOISER, x, noise=1, tolerance=1e-9, max_rounds=3)
    assert not found.converged.any()
    assert found.rounds == 3
    assert found.sample_rounds.tolist() == [3, 3, 3]
    assert (found.x - right(x)).abs().max() > 1e-9
    with pytest.warns(RuntimeWarning, match="max_rounds"):
        short = run_parallel(PLAN, DENOISER, x, noise=1, window=4, max_rounds=2)
    assert short.x.isfinite().all()  # from rows never asked, by the last output there is


@pytest.mark.parametrize("method", SWEEPS)
def test_a_guess_that_leaves_the_finite_numbers_is_dropped(method):
    """The network fails on small states at low noise: a first sweep goes there, a run does not."""
    plan = sd.SOLVERS["ddim"](VP, sd.times.uniform(VP, 20))
    x, unknown = starts(8), []

    def function(y, t):
        d = DENOISER(y, t)
        lost = (torch.linalg.vector_norm(y, dim=1) < 0.3) & (t < 0.22)
        unknown.append(int(lost.sum()))
        return torch.where(lost[:, None], torch.inf, d)

    denoiser = sd.FunctionDenoiser(function, VP, per_sample=True)
    found = run_parallel(plan, denoiser, x, method=method, tolerance=1e-10)
    assert sum(unknown) > 0
    torch.testing.assert_close(found.x, right(x, plan), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", SWEEPS)
@pytest.mark.parametrize("window", [None, 3])
def test_a_run_that_leaves_the_finite_numbers_raises(method, window):
    def function(y, t):
        return torch.where(torch.as_tensor(t < 0.5).reshape(-1, 1), torch.nan, DENOISER(y, t))

    denoiser = sd.FunctionDenoiser(function, VP, per_sample=True)
    with pytest.raises(FloatingPointError, match=r"not finite at t = 0\.4.*run\(plan"):
        run_parallel(PLAN, denoiser, starts(), method=method, window=window)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "picart"}, ValueError, "did you mean 'picard'"),
        ({"windw": 3}, TypeError, "did you mean 'window'"),
        ({"history": 3}, TypeError, "unknown option of run_parallel with secant"),
        ({"tolerance": 0.0}, ValueError, "tolerance = 0.0 must be a positive number"),
        ({"tolerance": float("nan")}, ValueError, "tolerance = nan"),
        ({"window": 0}, ValueError, "window = 0 must be an integer of at least 1"),
        ({"window": 2.5}, ValueError, "window = 2.5"),
        ({"max_rounds": 0}, ValueError, "max_rounds = 0"),
        ({"batch_limit": -1}, ValueError, "batch_limit = -1"),
        ({"replicas": DENOISER}, TypeError, "give a list of denoisers"),
        ({"replicas": [PROBLEM.denoiser(sd.EDM())]}, ValueError, "was made for VPLinear"),
        ({"x": torch.zeros(2, 2, dtype=torch.int64)}, TypeError, "must be floating"),
        ({"x": torch.full((2, 2), torch.nan)}, ValueError, "not finite"),
        ({"noise": "seed"}, TypeError, "seed = 'seed'"),
        ({"noise": [1]}, ValueError, "1 seeds for a batch of 3"),
        ({"denoiser": PROBLEM.denoiser(sd.EDM())}, ValueError, "was made for VPLinear"),
        ({"denoiser": lambda x, t: x[:1]}, ValueError, "the network returned shape"),
        ({"plan": "ddim"}, TypeError, "needs a Plan first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(options, error, text):
    given = {"plan": PLAN, "denoiser": DENOISER, "x": starts(), "noise": 1, **options}
    with pytest.raises(error, match=text):
        run_parallel(**given)


def test_progress_is_told_and_complete(monkeypatch, capsys):
    monkeypatch.setattr("sde_diffusion.progress.EVERY", 0.0)
    run_parallel(PLAN, DENOISER, starts(), noise=1, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("100%")
    assert "round" in lines[0]


def test_a_condition_may_choose_a_plain_function():
    """Of which it is not known whether it takes a time for each state: it gets one at a time."""
    scale, asked = torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE), []

    def at(samples):
        def function(y, t):
            asked.append(t)
            return float(t) * torch.tanh(scale[samples, None] * y)

        return function

    conditioned, x = sd.Conditioned(at, VP), starts()
    found = run_parallel(PLAN, conditioned, x, noise=1, tolerance=1e-12)
    assert found.rounds < 20 < found.calls == len(asked)
    assert asked[:20] == list(PLAN.asked_at)
    torch.testing.assert_close(found.x, right(x, denoiser=conditioned), rtol=1e-9, atol=1e-9)
