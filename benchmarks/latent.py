"""Latent diffusion against diffusion of pixels: 8 x 8 digits, and discs of 64 x 64 pixels.

python -m benchmarks.latent [digits] [discs] [disc-pixels] [--quick] [--output DIR]

An autoencoder is trained, its latents are scaled to unit variance, a network is trained on them,
and its samples are decoded. Another network is trained on the pixels, for about as long as
autoencoder and latent network together. Seconds are of processor time, of all threads, and
beside them by the clock.

Digits are judged by their distances to the held-out digits, discs by the law of the six numbers
that an image of a disc has (`benchmarks.discs`). Both are given for real images too, which is what
a perfect sampler would get, and for decoded encodings of real images, which is what a perfect
sampler of latents would get.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import sde_diffusion as sd
from sde_diffusion.networks import Autoencoder, DiT, ResidualMLP, UNet, count_parameters
from sde_diffusion.training import AutoencoderObjective, DiffusionObjective, Objective, Trainer

from .data import digit_labels, digits
from .discs import NAMES, Discs, distances, read, unexplained
from .metrics import Judge, classifier_features
from .parts import Pictures, Row, run

SCHEDULE = sd.VPCosine()
STEPS = 20  # of the default solver


def train(objective: Objective, data: Any, steps: int, batch: int, rate: float) -> tuple[Any, Row]:
    """(trained network, what it took)."""
    clock, processor = time.perf_counter(), time.process_time()
    result = Trainer(
        objective,
        data,
        steps=steps,
        batch_size=batch,
        learning_rate=rate,
        ema=(0.05,),
        progress=False,
        device="cpu",
    ).train()
    spent: Row = {
        "parameters": count_parameters(objective),
        "steps": steps,
        "batch": batch,
        "seconds": round(time.process_time() - processor, 1),
        "seconds_by_the_clock": round(time.perf_counter() - clock, 1),
    }
    return result.network, spent


def train_denoiser(
    network: nn.Module, data: Any, steps: int, batch: int, rate: float = 1e-3
) -> tuple[sd.NetworkDenoiser, Row]:
    """A denoiser that predicts the velocity."""
    read_as = lambda made: sd.NetworkDenoiser(made, SCHEDULE, "velocity", "time")
    made, spent = train(DiffusionObjective(read_as(network)), data, steps, batch, rate)
    return read_as(made), spent


def train_latent(
    autoencoder: Autoencoder, kl: float, data: Any, steps: int, batch: int
) -> tuple[sd.LatentSpace, Any, Row]:
    """(space, latents to train on, what it took and how the latents are spread)."""
    made, spent = train(AutoencoderObjective(autoencoder, kl), data, steps, batch, 2e-3)
    space = sd.LatentSpace.measure(made, data)
    latents = space.encode_all(data)
    mean, log_variance = latents.posterior
    assert log_variance is not None
    shares = log_variance.exp().mean((0, 2, 3))
    variance = mean.square().mean((0, 2, 3)) + shares
    return (
        space,
        latents,
        {
            **spent,
            "configuration": autoencoder.configuration,
            "kl": kl,
            "latents": list(space.event_shape),
            "scale": space.scale.tolist(),
            "variance_after_scaling": variance.tolist(),
            "of_which_the_posterior": shares.tolist(),
        },
    )


@torch.no_grad()
def errors(space: sd.LatentSpace, images: Tensor) -> Row:
    """Root mean square error of a pixel, through the mean and through a draw of the posterior."""
    rms = lambda z: (space.decode(z) - images).square().mean().sqrt().item()
    generator = torch.Generator().manual_seed(0)
    return {"mean": rms(space.encode(images)), "draw": rms(space.encode(images, generator))}


def measure_digits(quick: bool) -> tuple[Row, Pictures]:
    """The digits."""
    (train_images, held_out), (labels, _) = digits(), digit_labels()
    share = 20 if quick else 1
    count, repeats = len(held_out), 2 if quick else 5
    model = Autoencoder(1, latent=2, width=16, multipliers=(1, 2))
    space, latents, encoding = train_latent(model, 0.01, train_images, 600 // share, 64)
    network = ResidualMLP(space.event_shape, width=256, depth=3)
    denoiser, on_latents = train_denoiser(network, latents, 1600 // share, 256)
    pixels, on_pixels = train_denoiser(
        ResidualMLP(train_images.shape[1:], width=256, depth=3), train_images, 2500 // share, 256
    )
    encoding["error"] = {"train": errors(space, train_images), "held out": errors(space, held_out)}
    encoding["error"]["as many principal components, held out"] = _principal(
        train_images, held_out, len(latents.posterior.mean[0].flatten())
    )
    judge = Judge(held_out, classifier_features(train_images, labels))
    latent = sd.LatentDiffusion(denoiser, space)
    order = lambda seed: torch.randperm(
        len(train_images), generator=torch.Generator().manual_seed(seed)
    )
    real = lambda seed: train_images[order(seed)[:count]]
    sources: dict[str, Callable[[int], Tensor]] = {
        "latent diffusion": lambda seed: latent.sample(count, steps=STEPS, seed=seed),
        "diffusion of pixels": lambda seed: sd.sample(
            pixels, (count, 1, 8, 8), steps=STEPS, seed=seed
        ),
        "training digits, encoded and decoded": lambda seed: space.decode(space.encode(real(seed))),
        "training digits": real,
    }
    quality, pictures = {}, {}
    for name, source in sources.items():
        with torch.no_grad():
            sets = [source(seed) for seed in range(repeats)]
        judged = [judge(images) for images in sets]
        quality[name] = {
            metric: {
                "mean": statistics.mean(row[metric] for row in judged),
                "deviation": statistics.stdev(row[metric] for row in judged),
            }
            for metric in judged[0]
        }
        pictures[name] = sets[0][:10]
    result = {
        "autoencoder": encoding,
        "latent network": on_latents,
        "pixel network": on_pixels,
        "samples": count,
        "repeats": repeats,
        "distances to the held-out digits": quality,
    }
    return result, pictures


def _principal(train_images: Tensor, held_out: Tensor, count: int) -> float:
    """Root mean square error of a projection on the leading principal components."""
    mean = train_images.flatten(1).mean(0)
    _, _, axes = torch.linalg.svd(train_images.flatten(1) - mean, full_matrices=False)
    rest = (held_out.flatten(1) - mean) @ axes[count:].T
    return (rest.square().sum(1).mean() / len(mean)).sqrt().item()


def measure_discs(quick: bool) -> tuple[Row, Pictures]:
    """The discs."""
    share = 20 if quick else 1
    count = 128 if quick else 1000
    data, held_out = Discs(4096 // share, seed=1), Discs(count, seed=2)
    images = held_out.batch(torch.arange(count)).x
    model = Autoencoder(3, latent=4, width=64, multipliers=(1,), patch=8)
    space, latents, encoding = train_latent(model, 0.01, data, 2400 // share, 16)
    network = UNet(space.event_shape[0], width=32, multipliers=(1, 2), blocks=1)
    denoiser, on_latents = train_denoiser(network, latents, 2200 // share, 32)
    encoding["error"] = {"held out": errors(space, images)}
    latent = sd.LatentDiffusion(denoiser, space)
    sources: dict[str, Callable[[], Tensor]] = {
        "latent diffusion": lambda: latent.sample(count, steps=STEPS, seed=0),
        "new discs, encoded and decoded": lambda: space.decode(space.encode(images)),
        "new discs": lambda: images,
    }
    law, pictures = judge_discs(sources)
    result = {
        "autoencoder": encoding,
        "latent network": on_latents,
        "samples": count,
        "law": law,
    }
    return result, pictures


def measure_disc_pixels(quick: bool) -> tuple[Row, Pictures]:
    """The discs without an autoencoder: a transformer of squares of 16 x 16 pixels."""
    share = 20 if quick else 1
    count = 128 if quick else 1000
    data = Discs(4096 // share, seed=1)
    network = DiT(3, patch=16, width=128, depth=4)
    denoiser, on_pixels = train_denoiser(network, data, 900 // share, 64)
    draw = lambda: sd.sample(denoiser, (count, *data.event_shape), steps=STEPS, seed=0)
    law, pictures = judge_discs({"diffusion of pixels": draw})
    return {"pixel network": on_pixels, "samples": count, "law": law}, pictures


def judge_discs(sources: dict[str, Callable[[], Tensor]]) -> tuple[Row, Pictures]:
    """The law of the images of each source, and ten of them."""
    law, pictures = {}, {}
    for name, source in sources.items():
        clock = time.perf_counter()
        with torch.no_grad():
            x = source().clamp(-1, 1)
        seconds = round(time.perf_counter() - clock, 1)
        law[name] = {"seconds_by_the_clock": seconds, **law_of(x)}
        pictures[name] = x[:10]
    return law, pictures


def law_of(images: Tensor) -> Row:
    """How the six numbers of the images are distributed, against their uniform laws."""
    numbers, residual = read(images), unexplained(images)
    known = numbers.isfinite().all(1)
    numbers = numbers[known]
    error = numbers.std(0) / len(numbers) ** 0.5
    table = {
        name: {"mean": mean, "standard error": e, "deviation": deviation}
        for name, mean, e, deviation in zip(
            NAMES, numbers.mean(0).tolist(), error.tolist(), numbers.std(0).tolist(), strict=True
        )
    }
    apart = distances(numbers)
    return {
        "images without numbers": int((~known).sum()),
        "numbers": table,
        "distances": apart,
        "mean distance": statistics.mean(apart.values()),
        "largest correlation": float((torch.corrcoef(numbers.T) - torch.eye(6)).abs().max()),
        "unexplained, median": residual[known].median().item(),
        "unexplained, 95 %": residual[known].quantile(0.95).item(),
    }


PARTS: dict[str, Callable[[bool], tuple[Row, Pictures]]] = {
    "digits": measure_digits,
    "discs": measure_discs,
    "disc-pixels": measure_disc_pixels,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print, write."""
    return run("latent", __doc__, PARTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
