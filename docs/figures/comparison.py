"""The picture of a comparison, as `compare` draws it: a ring of Gaussians, exact denoiser."""

import sde_diffusion as sd
from sde_diffusion.comparison.figure import work_precision


def draw(path):
    denoiser = sd.problems.ring().denoiser(sd.VPLinear())
    found = sd.compare(
        denoiser,
        (2,),
        nfe=(5, 8, 10, 20, 40),
        solvers=[
            "ddim eta=0.0",
            "heun variable=t",
            "deis order=3",
            "adams order=3",
            "ipndm order=4",
        ],
        grids=["uniform", "quadratic", "uniform_lambda"],
        n=32,
    )
    path.write_bytes(work_precision(found, "svg"))
