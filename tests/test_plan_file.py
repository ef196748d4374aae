"""A plan's file: whole, as it was saved, and knowing where its numbers come from."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion import Plan, transform
from sde_diffusion.plan_file import write_table
from sde_diffusion.solvers import ddim

VP = sd.VPLinear()
ORIGIN = {"about": "Tuned for digits, seed 3.", "losses": [0.1, 2e-17], "free": {"table": 12}}


def plan_of(steps, **changes):
    return replace(ddim(VP, sd.times.uniform(VP, steps)), **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plan.json"


def test_the_origin_is_kept_and_shown(path):
    plan = plan_of(3, origin=ORIGIN)
    plan.save(path)
    assert Plan.load(path).origin == ORIGIN
    assert "Tuned for digits, seed 3." in str(Plan.load(path)).splitlines()
    plan_of(3).save(path)
    assert Plan.load(path).origin == {}


def test_a_file_that_is_not_there_is_said_to_be_so(path):
    with pytest.raises(FileNotFoundError, match=r"plan\.json: there is no such file of a plan"):
        Plan.load(path)


def test_who_keeps_the_origin():
    """The same numbers do, another table does not; and it is no part of the table."""
    plan = plan_of(3, origin=ORIGIN)
    assert plan.detached().origin == ORIGIN
    assert replace(plan, name="mine").origin == ORIGIN
    assert transform.analytic_first_step(plan, VP).origin == {}
    assert plan == plan_of(3)


@pytest.mark.parametrize(
    ("origin", "error", "words"),
    [
        ({"seed": torch.tensor(3)}, TypeError, "plain values"),
        ({"loss": float("nan")}, ValueError, "finite"),
    ],
)
def test_an_origin_that_is_not_plain_is_not_written(path, origin, error, words):
    with pytest.raises(error, match=words):
        plan_of(3, origin=origin).save(path)
    assert not path.exists()


@pytest.mark.parametrize("place", [("rows", 1, "t"), ("rows", 1, "d", "0"), ("name",), ("digest",)])
def test_an_altered_file_is_refused(path, place):
    plan_of(3).save(path)
    table = json.loads(path.read_text())
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    value = inner[place[-1]]
    inner[place[-1]] = value * (1 + 1e-15) if isinstance(value, float) else value + "0"
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="was altered after it was saved"):
        Plan.load(path)


def test_spaces_and_order_are_no_alteration(path):
    plan = plan_of(3, origin=ORIGIN)
    plan.save(path)
    table = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(table.items()))))
    assert Plan.load(path) == plan


@pytest.mark.parametrize("version", [0, 1, 2, 1.0, True, None])
def test_no_version_steps_around_the_digest(path, version):
    plan_of(3).save(path)
    table = json.loads(path.read_text())
    del table["digest"]
    path.write_text(json.dumps({**table, "version": version}))
    with pytest.raises(ValueError, match=r"damaged|newer version"):
        Plan.load(path)


def test_a_newer_version_is_not_read(path):
    plan_of(3).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(ValueError, match=r"newer version .* version 2; this one reads up to 1"):
        Plan.load(path)


def test_rows_that_cannot_be_are_refused_though_the_digest_is_right(path):
    plan_of(3).save(path)
    table = json.loads(path.read_text())
    del table["digest"]
    table["rows"][1]["d"] = {"2": 1.0}
    write_table(path, table)
    with pytest.raises(ValueError, match="does not exist"):
        Plan.load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\x80\x04\x95pickle", "not JSON"),
        (b"[1, 2]", "not a plan"),
        (b'{"format": "other"}', "not a plan"),
        (b'{"format": "sde_diffusion.plan"}', "damaged"),
        (b'{"format": "sde_diffusion.plan", "version": "1"}', "damaged"),
        (b'{"format": "sde_diffusion.plan", "version": 1}', "no digest"),
    ],
)
def test_files_that_are_no_plans(content, words, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        Plan.load(path)


@given(cut=st.floats(0.0, 0.999))
def test_a_truncated_file_is_damaged(cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    ddim(VP, sd.times.uniform(VP, 3), eta=1.0).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(ValueError, match="damaged"):
        Plan.load(path)


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    plan_of(3).save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="space"):
        plan_of(5).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]


def test_a_reader_of_the_old_file_is_not_disturbed(path):
    """The new file takes the old one's name; it is not written into it."""
    plan_of(3).save(path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        plan_of(5).save(path)
        assert reader.read() == before
    assert path.read_bytes() != before


def test_sample_takes_a_plan_or_its_file(path):
    denoiser = sd.problems.ring().denoiser(VP)
    plan = plan_of(3)
    plan.save(path)
    x = sd.sample(denoiser, (4, 2), solver=plan, seed=0)
    for given_path in (path, str(path)):
        assert torch.equal(sd.sample(denoiser, (4, 2), solver=given_path, seed=0), x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 3}, "its own times"),
        ({"times": "karras"}, "its own times"),
        ({"eta": 1.0}, "unknown option of sample with a Plan 'eta'"),
    ],
)
def test_a_plan_has_its_times_and_options_within(path, options, words):
    plan_of(3).save(path)
    with pytest.raises((ValueError, TypeError), match=words):
        sd.sample(sd.problems.ring().denoiser(VP), (4, 2), solver=path, **options)


def test_a_plan_of_another_schedule_or_no_file_is_refused(path):
    with pytest.raises(FileNotFoundError, match="there is no such file of a plan"):
        sd.sample(sd.problems.ring().denoiser(VP), (4, 2), solver=path)
    plan_of(3).save(path)
    for other in (sd.VPCosine(), sd.EDM()):  # EDM at t = 1 is not noise, which is not the point
        for solver in (path, plan_of(3)):
            with pytest.raises(ValueError, match="was made for VPLinear"):
                sd.sample(sd.problems.ring().denoiser(other), (4, 2), solver=solver)
