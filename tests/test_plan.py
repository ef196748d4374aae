"""The table: symbols, the trace, the three views of a plan."""

import math

import pytest
import torch
from cases import each
from enumeration import every_solver, smooth_grid
from hypothesis import given
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion import Form, Plan, Row, Trace
from sde_diffusion.noise import Noise
from sde_diffusion.solvers import ddim, dpm_solver_pp_2m, heun

DOUBLE = torch.float64
VP = sd.VPLinear()
numbers = st.floats(-1e3, 1e3)
forms = st.dictionaries(st.tuples(st.sampled_from("xdz"), st.integers(0, 3)), numbers, max_size=4)


def evaluate(form, values):
    return math.fsum(c * values[symbol] for symbol, c in form.terms.items())


@given(a=forms, b=forms, p=numbers, q=st.floats(0.1, 10.0), data=st.data())
def test_forms_are_a_vector_space(a, b, p, q, data):
    """Evaluating after the algebra equals the algebra after evaluating."""
    values = {(n, k): data.draw(numbers) for n in "xdz" for k in range(4)}
    a, b = Form(a), Form(b)
    u, v = evaluate(a, values), evaluate(b, values)
    size = 1 + abs(p) * (abs(u) + abs(v)) + sum(abs(c) * 1e3 for c in [*a.terms.values()]) * abs(p)
    assert evaluate(p * (a + b) - a / q, values) == pytest.approx(
        p * (u + v) - u / q, rel=1e-9, abs=1e-9 * size + 1e-6
    )
    assert evaluate(-(a - b) * p, values) == pytest.approx(
        p * (v - u), rel=1e-9, abs=1e-9 * size + 1e-6
    )
    assert (sum([a, b]).terms) == (a + b).terms


def test_a_product_of_states_is_refused():
    x = Trace(1.0).x
    with pytest.raises(TypeError, match="not linear"):
        x * x
    with pytest.raises(TypeError):
        x + 1.0


class _Basis(Noise):
    """Noise z_k = e_(offset + k), to read coefficients off a run."""

    def __init__(self, offset):
        self.offset = offset

    def start(self, out):
        return out

    def stream(self, like, course):
        draws = iter(range(10**6))

        def draw(out, t, s):
            out.zero_()[self.offset + next(draws)] = 1.0
            return out

        return draw


def probe(plan, grad=False):
    """What a run returns for x_T = e_0, d_j = e_(1 + j), z_k = e_(1 + nfe + k)."""
    width = 1 + plan.nfe + len(plan.noises)
    basis = torch.eye(width, dtype=DOUBLE)
    outputs = iter(basis[1 : 1 + plan.nfe])
    points = []

    def denoised(x, t):
        points.append(x.clone())
        return next(outputs)

    last = sd.run(plan, denoised, basis[0], noise=_Basis(1 + plan.nfe), grad=grad)
    return torch.stack([*points, last])


@pytest.mark.parametrize("grad", [False, True])
@each(("name", "options"), every_solver())
def test_engine_returns_the_matrix_of_the_plan(name, options, grad):
    """Probing: the run of every plan is its own table, buffers reused or not."""
    plan = sd.SOLVERS[name](VP, sd.times.uniform(VP, 7), **options)
    torch.testing.assert_close(probe(plan, grad), plan.matrix(), rtol=1e-12, atol=1e-13)


@st.composite
def random_plans(draw):
    """Any table: old states and outputs reused at will, stages, stores, shared noises."""
    trace = Trace(1.0)
    states, outputs, noises = [trace.x], [], []
    coefficient = st.floats(-0.9, 0.9)  # so that no row loses its last state
    for i in range(draw(st.integers(1, 8))):
        pool = states + outputs + noises
        chosen = draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=4, unique=True))
        form = sum((draw(coefficient) * pool[k] for k in chosen), Form({}))
        if draw(st.booleans()):
            noises.append(trace.noise(1.0 - 0.1 * i, 0.9 - 0.1 * i))
            form = form + draw(coefficient) * noises[-1]
        form = form + 1.0 * states[-1]
        verb = draw(st.sampled_from(["denoise", "stage", "store"]))
        if verb == "store":
            states.append(trace.store(form, 0.9 - 0.1 * i))
        else:
            x, d = getattr(trace, verb)(form, 0.9 - 0.1 * i)
            states.append(x)
            outputs.append(d)
    if not outputs:
        x, d = trace.denoise(states[-1], 0.05)
        outputs.append(d)
    return trace.end(0.5 * states[-1] + outputs[draw(st.integers(0, len(outputs) - 1))], 0.0)


@given(plan=random_plans())
def test_engine_returns_the_matrix_of_any_table(plan):
    torch.testing.assert_close(probe(plan), plan.matrix(), rtol=1e-11, atol=1e-11)


@given(plan=random_plans())
def test_file_keeps_every_bit(plan, tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    plan.save(path)
    assert Plan.load(path) == plan


def test_rows_must_be_finite_and_ordered():
    end = Row("end", 0.0, x={0: 1.0})
    with pytest.raises(ValueError, match="start row"):
        Plan((end,))
    with pytest.raises(ValueError, match="singular"):
        Plan((Row("denoise", 1.0), Row("end", 0.0, x={0: math.inf})))
    with pytest.raises(ValueError, match="no terms"):
        Plan((Row("denoise", 1.0), Row("end", 0.0)))


def test_draws_are_numbered_by_first_use():
    """A draw that is never used is none; the others keep their intervals."""
    trace = Trace(1.0)
    a, b, c = (trace.noise(t, t - 0.1) for t in (0.9, 0.8, 0.7))
    x, d = trace.denoise(trace.x + 2.0 * c + 0.0 * b, 1.0)
    plan = trace.end(x + d + 3.0 * a, 0.0)
    assert plan.noises == ((0.7, 0.7 - 0.1), (0.9, 0.9 - 0.1))
    assert [dict(row.z) for row in plan.rows] == [{}, {0: 2.0}, {1: 3.0}]
    with pytest.raises(ValueError, match="first use"):
        Plan((Row("denoise", 1.0), Row("end", 0.0, x={0: 1.0}, z={1: 1.0})), plan.noises)
    with pytest.raises(ValueError, match="are used"):
        Plan((Row("denoise", 1.0), Row("end", 0.0, x={0: 1.0})), plan.noises)


def test_history_counts_the_outputs_that_are_kept():
    grid = smooth_grid(VP, 6)
    assert ddim(VP, grid).history == 1
    assert dpm_solver_pp_2m(VP, grid).history == 2
    assert heun(VP, grid).history == 2
    assert sd.SOLVERS["rk4"](VP, grid).history == 4
    assert sd.SOLVERS["rk4"](VP, grid).nfe == 24


def test_equality_of_stochastic_plans_is_of_their_noise_law():
    """z_0 and -z_0, or one draw split in two, are the same sampler; other sizes are not."""

    def plan(*coefficients):
        trace = Trace(1.0)
        x, d = trace.denoise(trace.x, 1.0)
        return trace.end(
            x + d + sum((c * trace.noise(1.0, 0.0) for c in coefficients), Form({})), 0.0
        )

    assert plan(1.0).equals(plan(-1.0))
    assert plan(1.0).equals(plan(0.6, 0.8))
    assert not plan(1.0).equals(plan(0.6, 0.7))
    assert not plan(1.0).equals(plan())


@each(("name", "options"), every_solver())
def test_gradients_flow_to_the_times(name, options):
    """d(matrix)/d(times) by autograd equals a central difference that moves all times."""
    grid = smooth_grid(VP, 4, -1.5, 1.5)
    weights = torch.linspace(0.5, 1.5, sd.SOLVERS[name](VP, grid, **options).matrix().numel())

    def value(times):
        return (sd.SOLVERS[name](VP, times, **options).matrix().flatten() * weights.double()).sum()

    times = grid.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(times), times)
    way = torch.tensor([0.7, -1.0, 0.5, 0.9, -0.6], dtype=DOUBLE)
    difference = (value(grid + 1e-6 * way) - value(grid - 1e-6 * way)) / 2e-6
    within = 1e-5 * float(gradient.abs().max()) + 1e-6
    assert float(gradient @ way) == pytest.approx(float(difference), abs=within)


def test_gradients_through_a_run_reach_the_times():
    grid = smooth_grid(VP, 3).requires_grad_()
    y = sd.run(ddim(VP, grid), lambda x, t: 0.5 * x, torch.ones(1, 2, dtype=DOUBLE), grad=True)
    (gradient,) = torch.autograd.grad(y.sum(), grid)
    assert bool(gradient.abs().min() > 0)


def test_print_shows_the_table():
    text = str(ddim(VP, sd.times.uniform(VP, 3), eta=0.5))
    assert "ddim(eta=0.5) on VPLinear(beta_min=0.1, beta_max=20.0)" in text
    assert "3 steps, 3 network calls, history 1, stochastic" in text
    row = ddim(VP, sd.times.uniform(VP, 3), eta=0.5).rows[1]
    assert f"{row.x[0]:.6g} x0 + {row.d[0]:.6g} d0 + {row.z[0]:.6g} z0" in text
    long = str(ddim(VP, sd.times.uniform(VP, 500)))
    assert len(long.splitlines()) < 50
    assert "500 steps" in long


def test_law_accepts_vectors_and_a_start_of_ones_own():
    """The law of a vector is that of its entries; a given start replaces the marginal."""
    plan = ddim(VP, sd.times.uniform(VP, 4), eta=0.7)
    means, variances = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 2.0])
    both = plan.law(VP, means, variances)
    for i in range(2):
        one = plan.law(VP, float(means[i]), float(variances[i]))
        assert float(both[0][i]) == pytest.approx(float(one[0]))
        assert float(both[1][i]) == pytest.approx(float(one[1]))
    shifted = plan.law(VP, 0.0, 1.0, start=(1.0, 0.0))
    assert float(shifted[0]) == pytest.approx(
        float(plan.law(VP, 0.0, 1.0, start=(2.0, 0.0))[0]) / 2
    )
    with pytest.raises(ValueError, match="negative"):
        plan.law(VP, 0.0, -1.0)
