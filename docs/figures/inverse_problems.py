"""What each method makes of four measurements of one digit, under the exact posterior's samples."""

import numpy as np
import torch
from _style import figure, save

import sde_diffusion as sd
from sde_diffusion import inverse
from sde_diffusion.digit_mixture import digit_mixture
from sde_diffusion.particles import twisted

SHAPE, SHOWN, STEPS, PARTICLES = (1, 8, 8), 5, 30, 32


def tile(rows):
    """Images (8, 8) in rows, on one canvas with gaps; what is not a number stays clear."""
    canvas = np.full((9 * len(rows) - 1, 9 * SHOWN - 1), np.nan)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            canvas[9 * i : 9 * i + 8, 9 * j : 9 * j + 8] = image.reshape(8, 8)
    return canvas


def problems():
    seen = torch.zeros(SHAPE, dtype=torch.bool)
    seen[:, 5:] = True
    blur = inverse.Blur(inverse.gaussian_kernel(1.5, 7), SHAPE)
    return {
        "three rows seen": (inverse.Mask(seen), 0.2),
        "blurred": (blur, 0.2),
        "four pixels": (inverse.Downsample(4, SHAPE), 0.1),
        "sums of two sides": (inverse.Projection([0, 90], SHAPE), 1.0),
    }


def as_image(measurement):
    """y, if it is an image; else the least image that has it, clear where nothing was seen."""
    operator, y = measurement.operator, measurement.y
    if y.shape == SHAPE:
        return y
    image = operator.pseudo_inverse(y[None])[0]
    seen = operator.pseudo_inverse(torch.ones_like(y)[None])[0]
    return torch.where(seen != 0, image, torch.nan)


def samples(prior, measurement):
    """Name -> (n, 1, 8, 8); the same noise for all."""
    denoiser = prior.denoiser(sd.VPCosine())
    generator = torch.Generator().manual_seed(1)
    yield "exact", measurement.posterior(prior).sample(SHOWN, generator)
    start = torch.randn(SHOWN, *SHAPE, generator=generator)
    for name, method in inverse.METHODS.items():
        guided = method(denoiser, measurement)
        yield (
            name,
            sd.sample(guided, start.shape, solver="ddim", eta=1.0, steps=STEPS, seed=0),
        )
    times = sd.times.default(denoiser.schedule, STEPS)
    yield "daps", inverse.daps(denoiser, start, times, measurement, noise=0).x
    plan = sd.solvers.ddpm(denoiser.schedule, times)
    # One sample of each of several populations: samples of one population are dependent.
    population = twisted(plan, denoiser, measurement, (SHOWN, PARTICLES, *SHAPE), seed=0)
    yield "twisted", population.draw(1, seed=0)[:, 0]


def draw(path):
    prior = digit_mixture().law.shaped(*SHAPE)
    truth = prior.sample(1, torch.Generator().manual_seed(9))[0]
    fig, panels = figure(1, 4, width=9.2, height=5.2)
    for panel, (title, (operator, noise)) in zip(panels, problems().items(), strict=True):
        measurement = inverse.Measurement.simulate(operator, truth, noise)
        rows = {
            "$x_0$ and $y$": [truth, as_image(measurement)],
            **dict(samples(prior, measurement)),
        }
        panel.imshow(
            tile(rows.values()), cmap="gray_r", vmin=-1.1, vmax=1.1, interpolation="nearest"
        )
        panel.set_title(title)
        panel.set_xticks([])
        names = list(rows) if panel is panels[0] else [""] * len(rows)
        panel.set_yticks([9 * i + 3.5 for i in range(len(rows))], names)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    save(fig, path)
