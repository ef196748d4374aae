"""Teachers: exact ends, chunks that are kept and found again, and what they refuse."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.kept import keep, kept
from sde_diffusion.tuning.reference import path_times
from sde_diffusion.tuning.teacher import teach

VP = sd.VPLinear()
RING = sd.problems.ring()
IDEAL = RING.denoiser(VP)
END = VP.t_clean


class Counting(sd.Denoiser):
    """The ideal denoiser, times a factor, and how often it was asked; stops when told to."""

    def __init__(self, factor=1.0, stop=math.inf):
        self.schedule, self.factor, self.calls, self.stop = VP, factor, 0, stop

    def __call__(self, x, t):
        self.calls += 1
        if self.calls > self.stop:
            raise KeyboardInterrupt
        return self.factor * IDEAL(x, t)


@pytest.mark.parametrize("teacher", ["dop853", "dopri5", "exact"])
@pytest.mark.parametrize("end", [0.0, END, 0.3])
def test_every_teacher_reaches_the_exact_ends(teacher, end):
    found = teach(IDEAL, 6, shape=(2,), t_end=end, teacher=teacher, tolerance=1e-9)
    clean = max(end, END)
    exact = RING.trajectory(found.starts, VP, [1.0, clean])[-1]
    if end < clean:  # the ODE to t_clean, then the denoiser's output; exact on smooth data
        exact = (
            RING.trajectory(found.starts, VP, [1.0, 0.0])[-1]
            if teacher == "exact"
            else (IDEAL(exact, clean))
        )
    torch.testing.assert_close(found.ends, exact, rtol=0, atol=1e-7)
    assert (found.t_start, found.t_end, found.origin["teacher"]) == (1.0, end, teacher)


def test_a_plan_can_teach():
    plan = sd.SOLVERS["heun"](VP, sd.times.quadratic(VP, 40, t_end=END))
    starts = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = teach(IDEAL, starts, teacher=plan, times=plan.times[::10], chunk=2)
    whole = sd.record(plan, IDEAL, starts)
    assert torch.equal(found.ends, whole.states[-1])
    assert torch.equal(found.states, whole.states[::10])
    assert torch.equal(teach(IDEAL, starts, teacher=plan).ends, found.ends)


def test_the_path_of_a_teacher_stays_where_a_network_is_asked():
    for end in (0.0, END, 0.1):
        times = path_times(VP, 1.0, end)
        assert (times[0], times[-1]) == (1.0, end)
        assert times == sorted(times, reverse=True)
        assert min(times[:-1]) >= END
        assert teach(IDEAL, 2, shape=(2,), times=times).states.shape == (len(times), 2, 2)


def test_points_on_the_path():
    times = [1.0, 0.6, 0.2, END]
    found = teach(IDEAL, 5, shape=(2,), times=times, teacher="dopri5", tolerance=1e-9, chunk=2)
    torch.testing.assert_close(
        found.states, RING.trajectory(found.starts, VP, times), rtol=0, atol=1e-7
    )
    assert found.times.tolist() == times
    assert torch.equal(found.states[0], found.starts)
    assert torch.equal(found.part(1, 3).states, found.states[:, 1:3])


@pytest.mark.filterwarnings("ignore:the default of sample")
def test_events_without_a_dimension():
    """Of shape (): as of shape (1,)."""

    def network(x, t):
        alpha_t, sigma_t = VP(t)
        return alpha_t * 0.2 * x / (alpha_t**2 * 0.2 + sigma_t**2)

    denoiser = sd.FunctionDenoiser(network, VP)
    starts = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = teach(denoiser, starts)
    torch.testing.assert_close(found.ends, teach(denoiser, starts[:, None]).ends[:, 0])
    for free in ("coefficients", "gits"):
        plans = [sd.tune("ddim", denoiser, x, nfe=2, free=free) for x in (starts, starts[:, None])]
        torch.testing.assert_close(*(plan.matrix() for plan in plans))


def test_chunks_change_nothing_that_matters():
    """dopri5 takes steps of each sample's own, so not even in the last bits."""
    one, many = (teach(IDEAL, 5, shape=(2,), teacher="dopri5", chunk=c).ends for c in (8, 2))
    torch.testing.assert_close(one, many, rtol=1e-13, atol=1e-13)


def test_starts_are_those_of_sample():
    found = teach(IDEAL, 4, shape=(2,), seed=7, t_end=END)
    plan = sd.SOLVERS["ddim"](VP, [1.0, END])
    x = sd.sample(IDEAL, (4, 2), solver=plan, seed=7, dtype=torch.float64)
    assert torch.equal(sd.run(plan, IDEAL, found.starts), x)


def test_a_stopped_teacher_goes_on(tmp_path):
    whole = Counting()
    expected = teach(whole, 6, shape=(2,), chunk=2, folder=None, label="ring")
    stopped = Counting(stop=whole.calls // 2)
    with pytest.raises(KeyboardInterrupt):
        teach(stopped, 6, shape=(2,), chunk=2, folder=tmp_path, label="ring")
    done = len(list(tmp_path.rglob("*.npz")))
    assert 0 < done < 3
    rest = Counting()
    found = teach(rest, 6, shape=(2,), chunk=2, folder=tmp_path, label="ring")
    assert torch.equal(found.ends, expected.ends)
    assert rest.calls < whole.calls - stopped.calls / 2
    again = Counting()
    teach(again, 6, shape=(2,), chunk=2, folder=tmp_path, label="ring")
    assert again.calls == 3  # the probe


@pytest.mark.parametrize(
    "other", [{"tolerance": 1e-5}, {"t_end": 0.2}, {"seed": 1}, {"times": [1.0, 0.5, END]}]
)
def test_other_settings_are_other_files(tmp_path, other):
    settings = {"shape": (2,), "t_end": END, "folder": tmp_path}
    teach(IDEAL, 4, **settings, teacher="dop853")
    if "times" in other:
        del settings["t_end"]
    expected = teach(IDEAL, 4, **{**settings, **other, "folder": None}, teacher="dop853")
    found = teach(IDEAL, 4, **{**settings, **other}, teacher="dop853")
    assert torch.equal(found.ends, expected.ends)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_another_network_is_noticed(tmp_path):
    settings = {"shape": (2,), "teacher": "dop853", "folder": tmp_path}
    teach(Counting(), 4, **settings, label="mine")
    with pytest.raises(ValueError, match=r"another network, also under the label 'mine' .* 1\.0%"):
        teach(Counting(1.01), 4, **settings, label="mine")
    teach(Counting(1.01), 4, **settings, label="theirs")


def test_a_chunk_is_found_again_beside_other_starts(tmp_path):
    """Whether the network is the same does not depend on what else is asked for."""
    starts = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    settings = {"teacher": "dop853", "chunk": 2, "folder": tmp_path, "label": "mine"}
    first = teach(IDEAL, starts[:4], **settings)
    second = teach(IDEAL, starts[2:], **settings)
    assert torch.equal(second.ends[:2], first.ends[2:])
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    with pytest.raises(ValueError, match="another network"):
        teach(Counting(1.01), starts[2:], **settings)


def test_starts_are_found_again_in_other_company(tmp_path):
    """Another choice among the same starts, in another order, asks only for those not yet known."""
    starts = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    settings = {"teacher": "dopri5", "chunk": 4, "folder": tmp_path, "label": "mine"}
    first = teach(IDEAL, starts[:8], **settings)
    again = Counting()
    chosen = torch.tensor([7, 2, 2, 5, 0])
    found = teach(again, starts[chosen], **settings)
    assert again.calls == 3  # the probe
    assert torch.equal(found.ends, first.ends[chosen])
    mixed = torch.tensor([9, 1, 11, 4, 8, 10])
    whole, rest = Counting(), Counting()
    expected = teach(whole, starts[mixed], **{**settings, "folder": None})
    found = teach(rest, starts[mixed], **settings)
    torch.testing.assert_close(found.ends, expected.ends, rtol=1e-12, atol=1e-12)
    assert rest.calls < whole.calls
    far = torch.cat([starts[:9], torch.full((1, 2), 9.0, dtype=torch.float64)])
    broken = sd.FunctionDenoiser(lambda x, t: IDEAL(x, t) / (x.norm(dim=1) < 9)[:, None], VP)
    with pytest.raises(FloatingPointError, match="from start 9 "):
        teach(broken, far, **settings)


@pytest.mark.parametrize("reference", ["dop853", torch.zeros(60, 2), "pairs"])
def test_a_condition_for_each_sample_is_refused(reference):
    """In chunks and parts a sample has another number than in the batch."""
    labels = torch.linspace(0.5, 1.5, 60, dtype=torch.float64)[:, None]
    each = sd.Conditioned(
        lambda i: sd.FunctionDenoiser(lambda x, t: labels[i] * IDEAL(x, t), VP), VP
    )
    with pytest.raises(ValueError, match="for one condition: give a denoiser that has it bound"):
        teach(each, 60, shape=(2,))
    if reference == "pairs":
        reference, starts = teach(IDEAL, 60, shape=(2,)), None
    else:
        starts = 60
    with pytest.raises(ValueError, match="for one condition: give a denoiser that has it bound"):
        sd.tune("angular", each, starts, reference, shape=(2,), nfe=3, free="knots")


def test_a_damaged_file_is_made_anew(tmp_path):
    settings = {"shape": (2,), "folder": tmp_path}
    first = teach(IDEAL, 4, **settings)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-200])
    assert torch.equal(teach(IDEAL, 4, **settings).ends, first.ends)
    assert kept(file) is not None


def test_what_is_kept_is_kept_to_the_bit(tmp_path):
    values = {"a": [1, 2.5e-300, None], "b": {"c": torch.randn(3, 2), "d": [torch.tensor(7)]}}
    keep(tmp_path / "new" / "x.npz", values)
    found = kept(tmp_path / "new" / "x.npz")
    assert found["a"] == values["a"]
    assert torch.equal(found["b"]["c"], values["b"]["c"])
    assert found["b"]["d"][0].item() == 7
    assert found["b"]["d"][0].dtype == torch.int64


def test_paths_that_are_not_finite_are_named():
    starts = torch.zeros(6, 2, dtype=torch.float64)
    starts[4] = 3.0

    def network(x, t):
        return torch.where(x.norm(dim=1, keepdim=True) > 2.5, torch.nan, 0.0 * x)

    denoiser = sd.FunctionDenoiser(network, VP)
    with pytest.raises(FloatingPointError, match="start 4"):
        teach(denoiser, starts, chunk=6)
    starts[4, 0] = torch.inf
    with pytest.raises(ValueError, match="starts 4 are not finite"):
        teach(IDEAL, starts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": 4}, "Give shape"),
        ({"starts": 0, "shape": (2,)}, "how many to draw"),
        ({"starts": torch.zeros(3, 2), "shape": (3,)}, r"samples of shape \(2,\)"),
        ({"teacher": "dop835"}, "did you mean 'dop853'"),
        ({"tolerance": 0.5}, "below the errors"),
        ({"chunk": 0}, "at least 1"),
        ({"t_end": 2.0}, "lies outside"),
        ({"times": [1.0, 0.5], "t_end": 0.2}, "not an end of times"),
        ({"times": [1.0, 1e-4, 0.0]}, "below t_clean"),
        ({"teacher": sd.SOLVERS["ddpm"](VP, [1.0, 0.5, 0.1])}, "draws noise"),
        ({"teacher": sd.SOLVERS["ddim"](sd.VPCosine(), [0.9, 0.1])}, "was made for VPCosine"),
        ({"teacher": sd.SOLVERS["ddim"](VP, [1.0, 0.1]), "t_end": 0.2}, "has its own: 0.1"),
        ({"teacher": sd.SOLVERS["ddim"](VP, [1.0, 0.1]), "times": [1.0, 0.5]}, "plan.times"),
    ],
)
def test_bad_requests_are_refused_with_a_cure(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        teach(IDEAL, **{"starts": torch.zeros(3, 2), **options})


def test_only_an_ideal_denoiser_has_exact_paths():
    with pytest.raises(ValueError, match="take 'dop853'"):
        teach(Counting(), 4, shape=(2,), teacher="exact")
    with pytest.raises(TypeError, match="say how to read the network"):
        teach(lambda x, t: x, torch.zeros(3, 2))


@pytest.mark.parametrize("method", ["RK45", "DOP853", "LSODA"])
def test_scipy_ends_where_a_network_does_not_answer(method):
    """Its own step control would shorten the step for ever."""
    denoiser = sd.FunctionDenoiser(lambda x, t: x * (torch.nan if t < 0.5 else 0.1), VP)
    with pytest.raises(FloatingPointError, match="not finite"):
        sd.adaptive.scipy(denoiser, torch.ones(2, 2), [1.0, END], method=method)
