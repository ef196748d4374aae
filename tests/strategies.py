"""Random schedules of every family, random times on them, random grids and random shapes."""

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from sde_diffusion.schedule import CustomSchedule
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.tabulated import (
    Shifted,
    Tabulated,
    ZeroTerminalSNR,
    ddpm_linear,
    ddpm_scaled_linear,
    ddpm_squared_cosine,
)


def given(*args, examples=40):
    """hypothesis.given, with a number of examples that keeps the whole suite short."""
    return lambda test: hypothesis.settings(max_examples=examples)(hypothesis.given(*args)(test))


step_counts = st.integers(1, 6)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def trigonometric(signal, noise, angle, t_min):
    """alpha = signal cos(angle t), sigma = noise sin(angle t): an ellipse, seldom a circle."""
    return CustomSchedule(
        lambda t: signal * torch.cos(angle * t), lambda t: noise * torch.sin(angle * t), t_min, 1.0
    )


def even_in_lambda(top, width, growth):
    """lambda = top - width t, and alpha^2 + sigma^2 = e^(2 growth t), on t from -1 to 2."""

    def norm(t):
        return torch.exp(growth * t)

    return CustomSchedule(
        lambda t: norm(t) * torch.sigmoid(2 * (top - width * t)).sqrt(),
        lambda t: norm(t) * torch.sigmoid(-2 * (top - width * t)).sqrt(),
        -1.0,
        2.0,
    )


beta_mins, beta_maxs = st.floats(0.02, 1.0), st.floats(4.0, 24.0)
vp_linears = st.builds(VPLinear, beta_mins, beta_maxs)
sub_vps = st.builds(SubVP, beta_mins, beta_maxs)
vp_cosines = st.builds(VPCosine, st.floats(0.002, 0.1), st.sampled_from([0.9, 0.9946, 1.0]))
ves = st.builds(VE, st.floats(0.002, 0.1), st.floats(4.0, 100.0))
edms = st.builds(EDM, st.floats(0.002, 0.1), st.floats(4.0, 100.0))
flows = st.just(FlowMatching())
customs = st.one_of(
    st.builds(
        trigonometric,
        st.floats(0.5, 2.0),
        st.floats(0.5, 2.0),
        st.floats(0.8, 1.55),
        st.sampled_from([0.0, 0.01]),
    ),
    st.builds(even_in_lambda, st.floats(0.5, 2.0), st.floats(1.0, 2.0), st.floats(-0.5, 0.5)),
)
betas = st.lists(st.floats(1e-3, 0.3), min_size=2, max_size=40)
tabulateds = st.one_of(
    st.builds(Tabulated.from_betas, betas),
    st.builds(ddpm_linear, st.integers(100, 1000)),
    st.builds(ddpm_scaled_linear, st.integers(100, 1000)),
    st.builds(ddpm_squared_cosine, st.integers(20, 1000)),
)
variance_preserving = st.one_of(vp_linears, vp_cosines, tabulateds)
plain = st.one_of(vp_linears, sub_vps, vp_cosines, ves, edms, flows, customs, tabulateds)
zero_terminal = st.builds(ZeroTerminalSNR, variance_preserving)
shifteds = st.builds(Shifted, st.one_of(plain, zero_terminal), st.floats(0.2, 6.0))
schedules = st.one_of(plain, zero_terminal, shifteds)


@st.composite
def scheduled_times(draw, count=1, margin=0.01, of=schedules):
    """(schedule, count increasing times well inside its range), apart by 2 % of it at least."""
    schedule = draw(of)
    gaps = [draw(st.floats(0.02, 1.0)) for _ in range(count + 1)]
    places = [sum(gaps[: i + 1]) / sum(gaps) for i in range(count)]
    span = schedule.t_max - schedule.t_min
    return schedule, [
        schedule.t_min + span * (margin + (1 - 2 * margin) * place) for place in places
    ]


@st.composite
def grids(draw, schedule, noisy_end=None, clean_end=None, steps=step_counts):
    """Decreasing times with uneven steps; each end exact, inside, or as asked (True: exact)."""
    count = draw(steps)
    span = schedule.t_max - schedule.t_min
    noisy = draw(st.booleans()) if noisy_end is None else noisy_end
    clean = draw(st.booleans()) if clean_end is None else clean_end
    start = schedule.t_max if noisy else schedule.t_min + span * draw(st.floats(0.6, 0.95))
    end = schedule.t_min if clean else schedule.t_min + span * draw(st.floats(0.02, 0.3))
    gaps = [draw(st.floats(0.1, 1.0)) for _ in range(count)]
    inner = [start + (end - start) * sum(gaps[: i + 1]) / sum(gaps) for i in range(count - 1)]
    return [start, *inner, end]


@st.composite
def scheduled_grids(draw, noisy_end=None, clean_end=None, steps=step_counts, of=schedules):
    """(schedule, grid)."""
    schedule = draw(of)
    return schedule, draw(grids(schedule, noisy_end, clean_end, steps))


def slope(sizes, errors):
    """Slope of log error against log size, by least squares."""
    x = [math.log(v) for v in sizes]
    y = [math.log(v) for v in errors]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def close(value, rel=1e-9, scale=0.0):
    return pytest.approx(value, rel=rel, abs=rel * abs(scale) + 1e-13)


def coefficients(plan, i):
    """(on x, on d, noise variance) of step i of a one-row-a-step plan."""
    row = plan.rows[i + 1]
    return row.x.get(i, 0.0), row.d.get(i, 0.0), sum(c**2 for c in row.z.values())
