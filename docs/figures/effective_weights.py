"""What eight trainings of the literature minimise, as weights over the half-log-SNR."""

import matplotlib

import sde_diffusion as sd
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import DiffusionObjective, plot_effective_weights


def objective(schedule, prediction, **options):
    network = ResidualMLP((1,), width=4, depth=1)
    return DiffusionObjective(sd.NetworkDenoiser(network, schedule, prediction), **options)


def draw(path):
    cosine, flow = sd.VPCosine(), sd.FlowMatching()
    figure = plot_effective_weights(
        {
            "likelihood (flat)": objective(cosine, "noise", weighting="likelihood"),
            "noise, VP linear": objective(sd.VPLinear(), "noise"),
            "noise, VP cosine": objective(cosine, "noise"),
            "P2": objective(cosine, "noise", weighting="p2"),
            "min-SNR-5": objective(cosine, "noise", weighting="min_snr"),
            "sigmoid, b = 2": objective(cosine, "noise", weighting="sigmoid"),
            "flow, logit-normal": objective(flow, "flow", times="logit_normal"),
            "EDM": objective(sd.EDM(), "edm"),
        }
    )
    with matplotlib.rc_context({"svg.hashsalt": "sde_diffusion"}):
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
