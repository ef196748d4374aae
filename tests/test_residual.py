"""A learned residual on a solver's rows; blocks of numbers fitted in turn."""

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver
from families import DOUBLE, away, check_gradient

import sde_diffusion as sd
from sde_diffusion.certificates import invariants
from sde_diffusion.problems import ring
from sde_diffusion.tuning.alternate import block, in_turn
from sde_diffusion.tuning.fit import Progress
from sde_diffusion.tuning.gradient import gradient
from sde_diffusion.tuning.knots import knots
from sde_diffusion.tuning.least_squares import least_squares
from sde_diffusion.tuning.loss import endpoint
from sde_diffusion.tuning.objective import Objective
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.residual import fixed, residual
from sde_diffusion.tuning.table import table


def grid(schedule, steps=4):
    return sd.times.default(schedule, steps, t_start=schedule.time_of(-3.0))


@each(("name", "options"), every_solver())
@pytest.mark.parametrize("schedule", ["vp", "flow"])
def test_zero_is_the_solver_and_residuals_that_sum_to_zero_keep_it_exact(name, options, schedule):
    schedule = SCHEDULES[schedule]
    plan = sd.SOLVERS[name](schedule, grid(schedule), **options)
    for exact in (True, False):
        family = residual(fixed(plan), schedule, exact=exact)
        assert family.plan().equals(plan)
        tuned, base = family.plan(away(family)), invariants(plan, schedule)
        assert not tuned.equals(plan)
        if base.worst < 1e-9:
            assert (invariants(tuned, schedule).worst < 1e-9) == exact


@pytest.mark.parametrize("schedule", ["vp", "edm", "flow"])
@pytest.mark.parametrize("exact", [True, False])
def test_gradients_with_free_times_and_free_questions(schedule, exact):
    """The generalized solver: times, times told and residuals at once."""
    schedule = SCHEDULES[schedule]
    times = knots("dpm_solver_pp_3m", schedule, grid(schedule), asked=True)
    family = residual(times, schedule, exact=exact)
    assert len(family.start) == len(times.start) + (6 if exact else 13)
    assert family.plan().equals(times.plan())
    check_gradient(family, away(family))


def test_memory_limits_what_a_row_depends_on():
    schedule = sd.VPLinear()
    plan = sd.SOLVERS["ddim"](schedule, grid(schedule, 6))
    assert residual(fixed(plan), schedule, memory=3).plan().history == 3
    assert residual(fixed(plan), schedule).plan().history == 6
    with pytest.raises(ValueError, match="at least 2 outputs"):
        residual(fixed(plan), schedule, memory=1)
    with pytest.raises(ValueError, match="nothing is left free"):
        residual(fixed(sd.SOLVERS["ddim"](schedule, [1.0, 0.1])), schedule)


@pytest.fixture(scope="module")
def task():
    """The table of three calls on a ring of modes, and exact ends of 64 + 32 starts."""
    schedule, data = sd.VPLinear(), ring(3)
    plan = sd.SOLVERS["angular"](schedule, sd.times.default(schedule, 3))
    x = torch.randn(96, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    pairs = Pairs(x, data.endpoint(x, schedule, 1.0, 0.0), 1.0, 0.0)
    family = table(plan, schedule)
    levels = [i for i, name in enumerate(family.names) if name.startswith("l")]
    blocks = ([i for i in range(len(family.start)) if i not in levels], levels)
    return (
        family,
        blocks,
        (data.denoiser(schedule), endpoint(0.3), pairs.part(0, 64), pairs.part(64)),
    )


def test_a_block_moves_alone(task):
    family, (_, levels), _ = task
    numbers = away(family, 0.05)
    part = block(family, levels, numbers)
    assert part.plan().equals(family.plan(numbers))
    moved = numbers.clone()
    moved[levels] += 0.1
    assert part.plan(part.start + 0.1).equals(family.plan(moved))


@pytest.mark.parametrize(
    ("method", "options"),
    [(least_squares, {"max_iterations": 3}), (gradient, {"max_iterations": 5, "every": 1})],
)
def test_turns_never_raise_the_loss_and_go_on_after_a_break(task, method, options):
    family, blocks, rest = task
    told: list[Progress] = []
    options = {"method": method, "turns": 4, "ftol": 0.0, **options}
    fit = in_turn(family, blocks, *rest, watch=told.append, **options)
    losses = told[-1].state["losses"]
    assert len(losses) == 3
    assert all(b <= a for a, b in zip(losses, [*losses[1:], fit.validation], strict=True))
    assert fit.iterations == told[-1].iteration == len(told)
    assert not fit.numbers[blocks[0]].equal(family.start[blocks[0]])
    assert not fit.numbers[blocks[1]].equal(family.start[blocks[1]])
    middle = next(p for p in told if p.state["turn"] == 2)
    again = in_turn(family, blocks, *rest, state=middle.state, **options)
    assert again.numbers.equal(fit.numbers)
    assert again.iterations == fit.iterations


def test_turns_come_less_low_than_all_numbers_at_once(task):
    """With as many iterations of the same method: what `alternate` says of itself."""
    family, blocks, (denoiser, loss, train, _) = task
    rest = (denoiser, loss, train, train)
    together = least_squares(family, *rest, max_iterations=12)
    turns = in_turn(family, blocks, *rest, turns=4, max_iterations=3, ftol=-1.0)
    start = Objective(family, denoiser, loss, train).value(family.start)
    assert together.train < 0.8 * turns.train < 0.8 * start


def test_blocks_must_be_a_partition(task):
    family, blocks, rest = task
    with pytest.raises(ValueError, match="each number must be in one block"):
        in_turn(family, blocks[:1], *rest)
    with pytest.raises(ValueError, match="at least 1"):
        in_turn(family, blocks, *rest, turns=0)
