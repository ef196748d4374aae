"""Solvers: pure functions (schedule, times, **options) -> Plan, one family a file.

`SOLVERS` lists them by name, `CLAIMS` what each says of itself.
"""

from .adams import adams, deis
from .angular import angular
from .belm import o_belm
from .ddim import ddim, ddpm
from .dpm import dpm_solver_1, dpm_solver_2, dpm_solver_2m, dpm_solver_3, dpm_solver_3m
from .dpm_pp import dpm_solver_pp_2m, dpm_solver_pp_2s, dpm_solver_pp_3m, dpm_solver_pp_3s
from .dpm_sde import (
    sde_dpm_solver_1,
    sde_dpm_solver_2m,
    sde_dpm_solver_pp_1,
    sde_dpm_solver_pp_2m,
    sde_dpm_solver_pp_2s,
    sde_dpm_solver_pp_3m,
)
from .edm import (
    dpm_2,
    dpm_2_ancestral,
    dpm_solver_pp_2s_ancestral,
    edm_euler,
    edm_heun,
    euler_ancestral,
)
from .er_sde import er_sde
from .euler_maruyama import euler_maruyama
from .exponential_runge_kutta import hochbruck_ostermann, krogstad, res_2s, res_3s
from .linear_multistep import ipndm, lms, pndm, velocity_adams
from .repaint import repaint
from .restart import restart
from .richardson import richardson
from .runge_kutta import TABLEAUX, Tableau, euler, heun, midpoint, rk4, runge_kutta
from .sa_solver import sa_solver
from .seeds import seeds
from .solver import CLAIMS, PAPERS, SOLVERS, Claim, solver
from .stochastic_runge_kutta import stochastic_heun, stochastic_midpoint
from .unipc import unipc

__all__ = [
    "CLAIMS",
    "PAPERS",
    "SOLVERS",
    "TABLEAUX",
    "Claim",
    "Tableau",
    "adams",
    "angular",
    "ddim",
    "ddpm",
    "deis",
    "dpm_2",
    "dpm_2_ancestral",
    "dpm_solver_1",
    "dpm_solver_2",
    "dpm_solver_2m",
    "dpm_solver_3",
    "dpm_solver_3m",
    "dpm_solver_pp_2m",
    "dpm_solver_pp_2s",
    "dpm_solver_pp_2s_ancestral",
    "dpm_solver_pp_3m",
    "dpm_solver_pp_3s",
    "edm_euler",
    "edm_heun",
    "er_sde",
    "euler",
    "euler_ancestral",
    "euler_maruyama",
    "heun",
    "hochbruck_ostermann",
    "ipndm",
    "krogstad",
    "lms",
    "midpoint",
    "o_belm",
    "pndm",
    "repaint",
    "res_2s",
    "res_3s",
    "restart",
    "richardson",
    "rk4",
    "runge_kutta",
    "sa_solver",
    "sde_dpm_solver_1",
    "sde_dpm_solver_2m",
    "sde_dpm_solver_pp_1",
    "sde_dpm_solver_pp_2m",
    "sde_dpm_solver_pp_2s",
    "sde_dpm_solver_pp_3m",
    "seeds",
    "solver",
    "stochastic_heun",
    "stochastic_midpoint",
    "unipc",
    "velocity_adams",
]
