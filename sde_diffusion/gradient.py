r"""Gradients through a denoiser: d = E[x_0 | x_t], and products with its Jacobian.

By Tweedie's formula the Jacobian is the covariance of what was lost,

    J = dd/dx = (alpha/sigma^2) Cov[x_0 | x_t],

symmetric for an exact denoiser (Efron, "Tweedie's formula and selection bias", 2011). Whatever
says l(x_t) = log p(y | x_t) turns d into the conditional mean:

    E[x_0 | x_t, y] = d + (sigma^2/alpha) grad l.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .answers import unseen
from .denoise import Denoiser
from .scalar import Scalar
from .schedule import Schedule

Pull = Callable[[Tensor], Tensor]
"""v -> J^T v, both of the state's shape."""


def denoise_with_pull(denoiser: Denoiser, x: Tensor, t: Scalar) -> tuple[Tensor, Pull]:
    """d = E[x_0 | x_t = x] and v -> J^T v, which may be asked many times.

    Works inside `torch.no_grad()`, where the engine runs plans; both answers are without a graph,
    unless autograd is on and x or t ask for gradients: then it goes through both. The pull is for
    the step in which it is made: where the graph needs x, it refuses once the engine has gone on
    and overwritten x.

    Args:
        denoiser: differentiable in x; samples of a batch do not see each other.
        x: states, shape (batch, *event).
        t: time, or one a sample, shape (batch,).

    Raises:
        RuntimeError: in inference mode, where autograd keeps nothing, or with a network or a
            condition that was made in it.
        ValueError: if the denoiser's answer does not come from x for autograd; of the pull: a v
            of another shape.
    """
    keep = asks_for_gradients(x, t)
    leaf = leaf_of(x, "the denoiser")
    with tracked("the denoiser"):
        d = denoiser(leaf, t)
    if not d.requires_grad:
        raise ValueError(unseen("the denoiser's answer"))

    def pull(v: Tensor) -> Tensor:
        if v.shape != x.shape:
            raise ValueError(
                f"v has shape {tuple(v.shape)} and the state {tuple(x.shape)}: J^T v needs a "
                "vector of the state's shape"
            )
        (product,) = torch.autograd.grad(
            d, leaf, v.to(d), retain_graph=True, create_graph=keep, allow_unused=True
        )
        if product is None:  # the graph leads to the network's parameters alone
            raise ValueError(unseen("the denoiser's answer"))
        return product

    return d if keep else d.detach(), pull


def gradient_of_log(
    log_p: Callable[[Tensor], Tensor], x: Tensor, keep: bool | None = None
) -> Tensor:
    """grad log p at each sample of x, where log_p answers x with one number a sample, (batch,).

    Works inside `torch.no_grad()`.

    Args:
        log_p: differentiable in x; samples of a batch do not see each other.
        x: where, shape (batch, *event).
        keep: whether the gradient has a graph itself; None: if autograd is on and x asks for it.

    Raises:
        RuntimeError: in inference mode, or with a network that was made in it.
        ValueError: if log_p answers with another shape, or autograd sees no way from it to x.
        TypeError: if log_p answers with no floating tensor, or computes in another dtype than x's.
    """
    keep = asks_for_gradients(x) if keep is None else keep
    leaf = leaf_of(x, "log_p")
    with tracked("log_p"):
        value = log_p(leaf)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"log_p returned {kind}; it must return a real tensor, one number a sample")
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"log_p returned shape {tuple(value.shape)} for {len(x)} samples of shape "
            f"{tuple(x.shape[1:])}; it must return one number a sample, ({len(x)},): sum over the "
            "others, e.g. log_p.flatten(1).sum(1), and of a classifier's log-probabilities take "
            "the one of the wanted class"
        )
    if not value.requires_grad:
        raise ValueError(unseen("log_p's answer"))
    (gradient,) = torch.autograd.grad(
        value, leaf, torch.ones_like(value), create_graph=keep, allow_unused=True
    )
    if gradient is None:
        raise ValueError(unseen("log_p's answer"))
    return gradient


def score_to_mean(schedule: Schedule, t: Scalar) -> Scalar:
    """sigma^2/alpha, with which a gradient of log p(y | x_t) moves d = E[x_0 | x_t].

    Raises:
        ValueError: at alpha = 0, where x_t says nothing of x_0: grad log p(y | x_t) is 0 there, and
            what moves E[x_0 | y] is a limit that no gradient tells.
    """
    alpha_t, sigma_t = schedule(t)
    if not bool(alpha_t.all() if isinstance(alpha_t, Tensor) else alpha_t):
        raise ValueError(
            "a gradient through the denoiser says nothing at alpha = 0, where x_t is noise alone: "
            "(sigma^2/alpha) grad is 0/0. Begin later, e.g. with times=lambda schedule, steps: "
            "sd.times.default(schedule, steps, t_start=schedule.time_of(-4.0)); guidance may also "
            "be left out there, sd.guidance.limited_interval(guided, 0, 50)"
        )
    return sigma_t * sigma_t / alpha_t


def asks_for_gradients(x: Tensor, t: Scalar = 0.0) -> bool:
    """Whether autograd is on, and x or t are to have gradients."""
    asked = x.requires_grad or (isinstance(t, Tensor) and t.requires_grad)
    return asked and torch.is_grad_enabled()


def leaf_of(x: Tensor, what: str) -> Tensor:
    """x as autograd begins at it; x itself, where its own gradients are asked for."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"this needs gradients through {what}, and torch.inference_mode() keeps none: "
            "leave it out (run and sample make no graph of their own), or use torch.no_grad()"
        )
    if asks_for_gradients(x):
        return x
    return (x.clone() if x.is_inference() else x).detach().requires_grad_()


@contextmanager
def tracked(what: str) -> Iterator[None]:
    """Autograd on, and its refusal of inference tensors in words that say whose they are."""
    try:
        with torch.enable_grad():
            yield
    except RuntimeError as error:
        if "same dtype" in str(error):
            raise TypeError(
                f"{what} computes in another dtype than the state's ({error}): convert within it "
                "to the dtype of its weights, e.g. lambda x, t: classifier(x.to(weight.dtype), t)"
            ) from error
        if "Inference tensors cannot be saved" not in str(error):
            raise
        raise RuntimeError(
            f"{what} holds tensors (weights, conditions) that were made inside "
            "torch.inference_mode(), through which autograd cannot go: make or load them outside "
            "of it, or copy them: network.load_state_dict(weights, assign=False) into a network "
            "made outside, condition.clone()"
        ) from error
