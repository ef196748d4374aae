"""Every solver with every claimed set of options, and the schedules it is held to."""

import pytest

import sde_diffusion as sd

SCHEDULES = {
    "vp": sd.VPLinear(),
    "cosine": sd.VPCosine(),
    "subvp": sd.SubVP(),
    "ve": sd.VE(),
    "edm": sd.EDM(),
    "flow": sd.FlowMatching(),
    "table": sd.ddpm_linear(),
    "shifted": sd.Shifted(sd.FlowMatching(), 3.0),
}


def every_claim(select=lambda claim: True):
    """(name, claim) of every claim of every solver that is selected, as pytest parameters."""
    return [
        pytest.param(name, claim, id=name + "".join(f"-{v}" for v in claim.options.values()))
        for name, claims in sd.CLAIMS.items()
        for claim in claims
        if select(claim)
    ]


def every_solver():
    """(name, options) of every claim of every solver, as pytest parameters."""
    return [pytest.param(p.values[0], dict(p.values[1].options), id=p.id) for p in every_claim()]


def every_solver_with(choices, fully=()):
    """(name, options, choice): every claim with one of the choices in turn.

    The first claims of the solvers `fully` come with all of them.
    """
    found, given = [], set()
    for i, parameters in enumerate(every_solver()):
        name, options = parameters.values
        whole = name in fully and name not in given
        given.add(name)
        for choice in choices if whole else [choices[i % len(choices)]]:
            found.append(pytest.param(name, options, choice, id=f"{parameters.id}-{choice}"))
    return found


def smooth_grid(schedule, steps, lambda_start=-2.0, lambda_end=2.0):
    """Even steps in lambda between two noise levels at which every method is regular."""
    t_start, t_end = (schedule.time_of(v) for v in (lambda_start, lambda_end))
    return sd.times.uniform_lambda(schedule, steps, t_start, t_end)


REPRESENTATIVES = (
    ("ddim", {}),  # one step
    ("dpm_solver_pp_3m", {}),  # history
    ("dpm_solver_pp_2s", {}),  # a trial point inside the step
    ("unipc", {}),  # a corrector, which asks nothing
    ("ddim", {"eta": 1.0}),  # noise
    ("sa_solver", {}),  # noise, history, a corrector
    ("stochastic_heun", {}),  # noise and a trial point
)


def representatives():
    """(name, options) of a solver of each kind of table, for what no solver's numbers decide."""
    return [
        pytest.param(name, options, id="-".join([name, *map(str, options.values())]))
        for name, options in REPRESENTATIVES
    ]
