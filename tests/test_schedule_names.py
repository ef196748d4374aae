"""Schedules by name and as plain data: what is written comes back, what is wrong is told."""

import json

import pytest

import sde_diffusion as sd
from sde_diffusion.schedule_names import SCHEDULES, description_of, schedule_of

NEEDED = {
    "tabulated": {"alphas_cumprod": [0.9, 0.5, 0.1, 0.0]},
    "frozen": {
        "lambda_clean": 5.0,
        "lambda_noisy": -3.0,
        "slope": 0.2,
        "heights": [0.3, 0.5],
        "rates": [4.0, 8.0],
        "centres": [0.3, 0.7],
    },
    "shifted": {"base": {"kind": "flow_matching"}, "factor": 3.0},
    "zero_terminal_snr": {"base": {"kind": "shifted", "base": {"kind": "vp_linear"}, "factor": 2}},
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_named_schedule_comes_back_from_json(kind):
    """The same alpha and sigma to the bit, at times inside and at both ends."""
    first = schedule_of({"kind": kind, **NEEDED.get(kind, {})})
    again = schedule_of(json.loads(json.dumps(description_of(first))))
    assert repr(again) == repr(first)
    for part in (0.0, 0.1, 0.37, 0.8, 1.0):
        t = first.t_min + part * (first.t_max - first.t_min)
        assert again(t) == first(t)
    assert (again.t_min, again.t_max, again.t_clean) == (first.t_min, first.t_max, first.t_clean)


@pytest.mark.parametrize(
    "schedule", [sd.VPLinear(0.2, 15.0), sd.VPCosine(0.01, 1.0), sd.EDM(0.01, 40), sd.VE(0.1, 9)]
)
def test_arguments_are_kept(schedule):
    assert schedule_of(description_of(schedule)) == schedule


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, "lacks kind: one of vp_linear"),
        ("vp_linear", "a table with its kind"),
        ({"kind": "vp_liner"}, "did you mean 'vp_linear'"),
        ({"kind": 3}, "schedule: unknown kind 3"),
        ({"kind": "vp_linear", "beta_mx": 1.0}, "did you mean 'beta_max'"),
        ({"kind": "vp_linear", "beta_max": "20"}, "beta_max = '20': give a number"),
        ({"kind": "vp_linear", "beta_max": True}, "beta_max = True: give a number"),
        ({"kind": "vp_linear", "beta_max": 0.0}, "schedule 'vp_linear'.*need 0 <= beta_min"),
        ({"kind": "ddpm_linear", "timesteps": 10.5}, "timesteps = 10.5: give a whole number"),
        ({"kind": "shifted", "factor": 2.0}, "lacks base"),
        (
            {"kind": "shifted", "factor": 2.0, "base": "vp_linear"},
            "base = 'vp_linear': give a table",
        ),
        ({"kind": "shifted", "factor": 2.0, "base": {"kind": "vp"}}, "base: unknown kind 'vp'"),
        ({"kind": "tabulated", "alphas_cumprod": ["a"]}, "give a list of numbers"),
        ({"kind": "zero_terminal_snr", "base": {"kind": "edm"}}, "variance-preserving"),
    ],
)
def test_descriptions_that_are_refused(description, message):
    with pytest.raises(ValueError, match=message):
        schedule_of(description)


def test_a_schedule_of_ones_own_has_no_description():
    own = sd.CustomSchedule(lambda t: 1 - t, lambda t: t)
    with pytest.raises(ValueError, match="Tabulated holds any"):
        description_of(own)
    with pytest.raises(ValueError, match="CustomSchedule"):
        description_of(sd.Shifted(own, 2.0))
