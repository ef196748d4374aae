"""What tune refuses at its door, with a cure."""

import math

import pytest
import torch
from fitters import END, IDEAL, RING, TASK, VP, walk

import sde_diffusion as sd
from sde_diffusion.tuning import teach, tune
from sde_diffusion.tuning.loss import endpoint

NAN = math.nan
PLAN = sd.SOLVERS["ddim"](VP, [1.0, 0.5, 0.2, END])
PAIRS = teach(IDEAL, 12, shape=(2,), t_end=END)
OTHER = teach(RING.denoiser(sd.VPCosine()), 12, shape=(2,), t_end=END)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nfe": None}, "Give nfe"),
        ({"nfe": 0}, "at least 1"),
        ({"nfe": 1, "base": "heun variable=t"}, "fewest steps"),
        ({"base": PLAN}, "asks 3 times"),
        ({"base": PLAN, "nfe": None, "times": "karras"}, "has its own"),
        ({"base": PLAN, "nfe": None, "t_end": 0.1}, "has its own"),
        ({"base": 3}, "give a solver's name"),
        ({"base": "dimm"}, "did you mean 'ddim'"),
        ({"base": "ddim etta=1"}, "did you mean 'eta'"),
        ({"base": sd.SOLVERS["ddim"](sd.VPCosine(), [0.9, 0.1]), "nfe": None}, "was made for"),
        ({"times": "karass"}, "did you mean 'karras'"),
        ({"times": "leading", "t_end": 0.1}, "takes no t_end"),
        ({"times": [1.0, 0.5, END], "t_end": None}, "leave out one of them"),
        ({"times": [1.0, 0.5, END]}, "has its own ends"),
        ({"free": "scalar"}, "did you mean 'scalars'"),
        ({"loss": "endpiont"}, "did you mean 'endpoint'"),
        ({"method": "least_square"}, "unknown method"),
        ({"max_iteration": 3}, "did you mean 'max_iterations'"),
        ({"toleranse": 3}, "did you mean 'tolerance'"),
        ({"validation": 12}, "at least one start on either side"),
        ({"starts": 4, "validation": 2}, "2 train starts for 3 free numbers"),
        ({"starts": None}, "no starts"),
        ({"starts": -5}, "starts = -5 must be an integer of at least 2"),
        ({"reference": torch.zeros(12, 2), "chunk": 0}, "chunk = 0 must be an integer"),
        ({"chunk": "a"}, "chunk = 'a' must be an integer"),
        ({"tolerance": "a"}, "tolerance = 'a' must be a number"),
        ({"scale": "a"}, "scale = 'a' must be a number"),
        ({"shape": 2}, r"shape = 2 must be a sequence"),
        ({"method": "gradient", "learning_rate": "a"}, "learning_rate = 'a' must be a number"),
        ({"free": "churn", "loss": "sliced"}, "give base = 'edm_heun'"),
        ({"shape": None}, "Give shape"),
        ({"reference": "dop83"}, "did you mean 'dop853'"),
        ({"reference": 3}, "a teacher's name"),
        ({"reference": torch.zeros(3, 2)}, "give the end of each start"),
        ({"reference": torch.full((12, 2), torch.nan)}, "the end of start 0"),
        ({"reference": PAIRS, "t_end": 0.1}, "same ends"),
        ({"reference": PLAN, "t_end": 0.1}, "same ends"),
        ({"reference": OTHER}, "made for VPCosine"),
        ({"reference": PAIRS, "starts": 11}, "the reference has 12"),
        ({"reference": PAIRS, "starts": torch.zeros(12, 2)}, "these are others"),
        ({"base": "ddpm"}, "loss='sliced'"),
        ({"base": "ddim", "free": "stochasticity"}, "loss='sliced'"),
        ({"base": "edm_euler", "free": "churn"}, "loss='sliced'"),
        ({"t_start": 0.5}, "give starts at that time as a tensor"),
        ({"folder": __file__}, "is a file"),
        ({"free": lambda base: 3}, "returns a Family"),
        ({"free": "table", "method": None, "guesses": ["ddim"]}, "a guess is 'ddim'"),
        ({"free": "table", "method": None, "guesses": PLAN}, "a list of plans"),
        ({"base": "nope.json", "nfe": None}, "there is no such file"),
        ({"loss": endpoint(), "scale": 0.1}, "leave it out"),
        ({"method": "gradient", "nope": 1}, "Known: batch, chunk"),
        ({"denoiser": lambda x, t: x}, "say how to read the network"),
    ],
)
def test_bad_requests_are_refused_with_a_cure(options, words):
    task = {"base": "ddim", "denoiser": IDEAL, "starts": 12, "method": walk, **TASK, **options}
    with pytest.raises((ValueError, TypeError, OSError), match=words) as error:
        tune(**task)
    assert "watch" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({"validation": v}, "leaves at least one") for v in (1.5, 1.0, 0, 0.001, NAN, 12, True)),
        ({"starts": 4, "validation": 2}, "2 train starts for 3 free numbers"),
        ({"free": "table", "method": None}, "9 train starts for .* free numbers"),
        ({"free": "alternate", "method": None}, "9 train starts for .* free numbers"),
        *(({"max_iterations": n}, "an integer of at least 1") for n in (0, "abc", 2.5, True)),
        ({"free": "table", "method": None, "tries": 0}, "tries = 0 must be an integer"),
        *(
            ({"free": "table", "method": None, "ftol": v}, "relative decrease")
            for v in ("abc", 1.0, -1e-3, True)
        ),
        ({"free": "table", "method": None, "guesses": [PLAN.detached()], "nfe": 5}, "asks 3 times"),
        ({"base": "ddpm", "loss": "sliced", "free": "table", "method": None}, "draws noise"),
    ],
)
@pytest.mark.parametrize("starts", [12, torch.ones(12, 2)], ids=["drawn", "given"])
def test_what_is_known_beforehand_is_refused_before_the_model_is_asked(options, words, starts):
    def network(x, t):
        raise AssertionError("asked")

    starts = options.get("starts", starts)
    task = {"base": "ddim", "denoiser": sd.FunctionDenoiser(network, VP), "method": walk, **TASK}
    task |= {"starts": starts, "shape": (2,), **options}
    with pytest.raises(ValueError, match=words):
        tune(**task)


def test_a_base_that_is_not_finite_is_refused():
    denoiser = sd.FunctionDenoiser(lambda x, t: x * (torch.nan if t < 0.1 else 0.1), VP)
    ends = torch.ones(12, 2)
    with pytest.raises(FloatingPointError, match="begin with another base"):
        tune("ddim", denoiser, torch.ones(12, 2), ends, **{**TASK, "t_end": 0.01}, method=walk)
