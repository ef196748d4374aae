"""Configurations: what is written comes back, what is wrong is told with its place and cure."""

import json
import re
from pathlib import Path

import pytest

from sde_diffusion import Bins, Shifted, VPLinear, load_denoiser, sample
from sde_diffusion.options import parameters_of
from sde_diffusion.training import law_of, objectives, trainer_of, weighting_of
from sde_diffusion.training.config import Configuration, read_configuration

VP = VPLinear()
TABLES = {
    "data": {"kind": "digits"},
    "network": {"kind": "mlp", "width": 8, "classes": 10},
    "schedule": {"kind": "shifted", "base": {"kind": "vp_linear"}, "factor": 2.0},
    "training": {"steps": 2, "ema": [0.1, {"decay": 0.9}]},
}
TOML = """
[data]
kind = "digits"
[network]
kind = "mlp"
width = 8
classes = 10
[schedule]
kind = "shifted"
base = { kind = "vp_linear" }
factor = 2.0
[training]
steps = 2
ema = [0.1, { decay = 0.9 }]
"""


def test_toml_json_and_plain_data_are_one(tmp_path):
    (tmp_path / "run.toml").write_text(TOML)
    (tmp_path / "run.json").write_text(json.dumps(TABLES))
    first, second = (read_configuration(tmp_path / f"run.{end}") for end in ("toml", "json"))
    assert first == second == Configuration.of(TABLES)
    assert first.tables() == TABLES
    assert Configuration.of(json.loads(json.dumps(first.tables()))) == first


def test_the_page_names_every_key_of_the_objective():
    page = (Path(__file__).parent.parent / "docs" / "train.md").read_text()
    rows = page[page.index("| `[objective]`") : page.index("| `[training]`")]
    forms = (objectives._denoising, objectives._learned_variance)
    keys = {key for form in forms for key in parameters_of(form)} - {"denoiser"}
    assert keys <= set(re.findall(r"`(\w+)[` ]", rows))


def test_settings_change_a_copy():
    before = Configuration.of(TABLES)
    after = before.changed(
        [
            "training.steps=5",
            "training.learning_rate = 1e-4",
            "schedule.base.beta_max=15.0",
            "model.prediction=noise",
            "samples.steps=[1, 2]",
        ]
    )
    assert after.training == {**TABLES["training"], "steps": 5, "learning_rate": 1e-4}
    assert after.schedule["base"] == {"kind": "vp_linear", "beta_max": 15.0}
    assert after.schedule["factor"] == 2.0
    assert (after.model, after.samples) == ({"prediction": "noise"}, {"steps": [1, 2]})
    assert before == Configuration.of(TABLES)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps=5", "write table.key=value"),
        ("training.steps", "write table.key=value"),
        ("training.=5", "write table.key=value"),
        ("trainig.steps=5", "did you mean 'training'"),
        ("training.steps.x=3", r"'training.steps.x=3': steps = 2 is no table"),
    ],
)
def test_settings_that_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Configuration.of(TABLES).changed([setting])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "", "give a .toml or .json file"),
        ("run.toml", "[data", r"run\.toml is no TOML"),
        ("run.json", "{", r"run\.json is no JSON"),
        ("run.json", "[]", "holds no tables"),
        ("run.toml", "[datas]", r"run\.toml: unknown table 'datas'; did you mean 'data'"),
        ("run.toml", "data = 3", r"data = 3 must be a table, \[data\]"),
        ("run.toml", "[data]\n[training]", r"lacks \[network\], \[schedule\].*--example digits"),
    ],
)
def test_files_that_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_configuration(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_configuration(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("objective", "weighting", "times"),
    [
        ({}, weighting_of("own"), law_of("uniform", VP)),
        (
            {"weighting": "min_snr", "times": "laplace"},
            weighting_of("min_snr"),
            law_of("laplace", VP),
        ),
        ({"weighting": {"kind": "noise"}}, weighting_of("noise"), law_of("uniform", VP)),
        (
            {
                "weighting": {"kind": "min_snr", "gamma": 3},
                "times": {"kind": "log_normal", "mean": 0.5, "std": 2.0},
            },
            weighting_of("min_snr", gamma=3.0),
            law_of("log_normal", VP, mean=0.5, std=2.0),
        ),
    ],
)
def test_the_objective_is_what_the_table_says(objective, weighting, times):
    configuration = Configuration.of({**TABLES, "objective": {**objective, "drop": 0.2}})
    made = trainer_of(configuration).options.objective
    assert (made.weighting, made.times.law, made.drop) == (weighting, times, 0.2)


def test_importance_is_named_as_weighting_and_times_are():
    made = {}
    for importance in ("loss", {"kind": "loss"}, {"kind": "gradient", "cells": 8}):
        configuration = Configuration.of({**TABLES, "objective": {"importance": importance}})
        made[str(importance)] = trainer_of(configuration).options.objective.importance
    assert [(i.of, i.cells) for i in made.values()] == [("loss", 32)] * 2 + [("gradient", 8)]


def test_what_is_switched_off_may_be_said_for_every_schedule():
    off = {"uncertainty": False, "importance": None, "schedule_learning_rate": 0.1}
    tables = {**TABLES, "schedule": {"kind": "learned", "width": 4, "learn_ends": True}}
    tables["objective"] = {**off, "weighting": "likelihood", "bins": {"width": 0.125}}
    made = trainer_of(Configuration.of(tables)).options.objective
    assert (made.bins, made.learning_rate) == (Bins(0.125), 0.1)
    tables["objective"]["uncertainty"] = True
    with pytest.raises(ValueError, match=r"\[objective\]: uncertainty: .*use one of the two"):
        trainer_of(Configuration.of(tables))


def test_a_network_of_two_outputs_learns_its_variance(tmp_path):
    """From the tables to a checkpoint and back, with the variance at hand."""
    tables = {
        **TABLES,
        "network": {**TABLES["network"], "outputs": 2},
        "objective": {"weight": 0.01, "bins": {"width": 0.125}},
    }
    trainer = trainer_of(Configuration.of(tables), folder=tmp_path)
    made = trainer.options.objective
    assert (made.weight, made.bins, len(made.times)) == (0.01, Bins(0.125), 1000)
    trainer.train()
    loaded = load_denoiser(tmp_path)
    samples = sample(loaded, (2, 1, 8, 8), solver="learned_variance", steps=3, seed=0)
    assert samples.shape == (2, 1, 8, 8)
    for bins, message in ((0.125, "bins = 0.125"), ({"widht": 1.0}, "did you mean 'width'")):
        tables["objective"] = {"bins": bins}
        with pytest.raises(ValueError, match=message):
            trainer_of(Configuration.of(tables))
    tables["objective"] = {"weighting": "noise"}
    with pytest.raises(ValueError, match="weighting needs a network with outputs = 1"):
        trainer_of(Configuration.of(tables))


def test_the_trainer_is_what_the_tables_say():
    """Every table reaches what it is for; what the data settle is filled in."""
    tables = {**TABLES, "data": {"kind": "digits", "part": "held_out", "flip": True}}
    tables["model"] = {"prediction": "edm", "sigma_data": 0.4}
    tables["network"] = {**TABLES["network"], "classes": 10, "hidden": 4}
    options = trainer_of(Configuration.of(tables)).options
    denoiser = options.objective.denoiser
    assert (denoiser.prediction, denoiser.sigma_data, denoiser.label) == ("edm", 0.4, "time")
    assert denoiser.network.configuration["event_shape"] == [1, 8, 8]
    assert denoiser.schedule(0.3) == Shifted(VPLinear(), 2.0)(0.3)
    assert (options.steps, len(options.data)) == (2, 599)
    assert [average.name for average in options.ema] == ["sigma_rel 0.1", "decay 0.9"]
    assert options.model["event_shape"] == [1, 8, 8]
    assert options.model["classes"] == 10
