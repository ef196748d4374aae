"""Diffusion models as continuous-time processes: one network, every solver.

schedule -> f, g, lambda          denoiser: one network, however it was trained
solver(schedule, times) -> Plan   run(plan, denoiser, x) -> samples
"""

from . import (
    adaptive,
    bounds,
    comparison,
    editing,
    guidance,
    inverse,
    latent,
    likelihood,
    networks,
    particles,
    problems,
    solvers,
    times,
    transform,
    tuning,
)
from .bounds import Bins, Bound, continuous_bound, discrete_bound
from .brownian import BrownianPath
from .certificates import Certificate, certify, certify_all
from .comparison import Comparison, compare
from .denoise import Denoiser, FunctionDenoiser, NetworkDenoiser
from .few_steps import default_plan
from .form import Form
from .inversion import invert, resume
from .langevin import LANGEVIN, annealed_langevin, predictor_corrector
from .latent import LatentDiffusion, LatentSpace
from .learned_schedule import FrozenSchedule, LearnedSchedule
from .likelihood import (
    GaussianReference,
    Likelihood,
    bits_per_dimension,
    log_likelihood,
    sample_with_density,
)
from .networks import DiT, ResidualMLP, UNet
from .noise import IndependentNoise, Noise, PerSampleNoise
from .parallel import Conditioned, ParallelRun, run_parallel
from .plan import Plan, Row
from .presets import PRESETS, Preset, preset
from .run import Point, Trajectory, record, run
from .sample import sample
from .schedule import CustomSchedule, Schedule
from .schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from .sde import ForwardSDE, ProbabilityFlowODE, ReverseSDE
from .solvers import CLAIMS, PAPERS, SOLVERS, Claim, solver
from .tabulated import (
    Shifted,
    Tabulated,
    ZeroTerminalSNR,
    ddpm_linear,
    ddpm_scaled_linear,
    ddpm_squared_cosine,
)
from .trace import Trace
from .training import Trainer, TrainResult, load_denoiser, train
from .tuning import tune
from .variances import Moments, analytic_dpm, learned_variance, measure_moments
from .version import __version__
from .weights import load_weights, save_weights

__all__ = [
    "CLAIMS",
    "EDM",
    "LANGEVIN",
    "PAPERS",
    "PRESETS",
    "SOLVERS",
    "VE",
    "Bins",
    "Bound",
    "BrownianPath",
    "Certificate",
    "Claim",
    "Comparison",
    "Conditioned",
    "CustomSchedule",
    "Denoiser",
    "DiT",
    "FlowMatching",
    "Form",
    "ForwardSDE",
    "FrozenSchedule",
    "FunctionDenoiser",
    "GaussianReference",
    "IndependentNoise",
    "LatentDiffusion",
    "LatentSpace",
    "LearnedSchedule",
    "Likelihood",
    "Moments",
    "NetworkDenoiser",
    "Noise",
    "ParallelRun",
    "PerSampleNoise",
    "Plan",
    "Point",
    "Preset",
    "ProbabilityFlowODE",
    "ResidualMLP",
    "ReverseSDE",
    "Row",
    "Schedule",
    "Shifted",
    "SubVP",
    "Tabulated",
    "Trace",
    "TrainResult",
    "Trainer",
    "Trajectory",
    "UNet",
    "VPCosine",
    "VPLinear",
    "ZeroTerminalSNR",
    "__version__",
    "adaptive",
    "analytic_dpm",
    "annealed_langevin",
    "bits_per_dimension",
    "bounds",
    "certify",
    "certify_all",
    "compare",
    "comparison",
    "continuous_bound",
    "ddpm_linear",
    "ddpm_scaled_linear",
    "ddpm_squared_cosine",
    "default_plan",
    "discrete_bound",
    "editing",
    "guidance",
    "inverse",
    "invert",
    "latent",
    "learned_variance",
    "likelihood",
    "load_denoiser",
    "load_weights",
    "log_likelihood",
    "measure_moments",
    "networks",
    "particles",
    "predictor_corrector",
    "preset",
    "problems",
    "record",
    "resume",
    "run",
    "run_parallel",
    "sample",
    "sample_with_density",
    "save_weights",
    "solver",
    "solvers",
    "times",
    "train",
    "transform",
    "tune",
    "tuning",
]
