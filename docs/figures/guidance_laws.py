"""What each guidance draws from two classes in the plane, and how far that is from exact laws."""

import torch
from _guidance import (
    COUNT,
    DOUBLE,
    OTHER,
    WANTED,
    distance,
    plan,
    product,
    quantiles,
    start,
    tilted,
    variants,
)
from _style import COLOURS, INK, figure, save

import sde_diffusion as sd

SHOWN, EDGE = 500, 2.1


def density(problem):
    """A grid of points, and the density there."""
    axis = torch.linspace(-EDGE, EDGE, 121, dtype=DOUBLE)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    values = problem.log_prob(points.reshape(-1, 2), 1.0, 0.0).exp()
    return axis, values.reshape(points.shape[:2])


def draw(path):
    exact = [quantiles(tilted(w, 10 * COUNT)) for w in (1.0, 4.0)]
    under_both = quantiles(product(10 * COUNT))
    seed = torch.Generator().manual_seed(3)
    table = plan()
    drawn = {name: sd.run(table, d, start()) for name, d in variants(table).items()}
    panels = {
        "the two classes": None,
        "exact conditional law": tilted(1.0, seed=1),
        "exact tilted law, w = 4": tilted(4.0, seed=1),
        **drawn,
    }
    fig, axes = figure(4, 4, height=9.2)
    wanted, other = density(WANTED), density(OTHER)
    for ax, (name, x) in zip(axes.flat, panels.items(), strict=True):
        axis, values = wanted
        ax.contour(axis, axis, values, 5, colors=INK, linewidths=0.8, alpha=0.8)
        ax.contour(axis, axis, other[1], 5, colors=COLOURS[1], linewidths=0.8, alpha=0.45)
        if x is None:
            ax.set_title("the two classes", fontsize=9.5)
            x = WANTED.sample(COUNT, seed)
            y = OTHER.sample(SHOWN, seed)
            ax.plot(*y[:SHOWN].T, ".", ms=2.2, color=COLOURS[1], alpha=0.6)
        else:
            laws = [under_both] if "composed" in name else exact
            found = " | ".join(f"{distance(quantiles(x), law):.2f}" for law in laws)
            ax.set_title(f"{name}\n{found}", fontsize=9.5)
        ax.plot(*x[:SHOWN].T, ".", ms=2.2, color=COLOURS[0], alpha=0.7)
        ax.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(True)
        ax.spines[:].set_alpha(0.5)
    save(fig, path)
