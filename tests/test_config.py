"""Configurations: what is written comes back, what is wrong is told with its place and cure."""

import json

import pytest

from sde_diffusion.training.config import Configuration, read_configuration

TABLES = {
    "data": {"kind": "digits"},
    "network": {"kind": "mlp", "width": 8},
    "schedule": {"kind": "shifted", "base": {"kind": "vp_linear"}, "factor": 2.0},
    "training": {"steps": 2, "ema": [0.1, {"decay": 0.9}]},
}
TOML = """
[data]
kind = "digits"
[network]
kind = "mlp"
width = 8
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
