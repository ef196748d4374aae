"""What a network answered: whether autograd sees where it came from, and what to say if not."""

from __future__ import annotations

from torch import Tensor


def comes_from(output: Tensor, asked: Tensor) -> bool:
    """Whether autograd sees a way from an answer to what was asked, which is no leaf."""
    seen: set[object] = {None}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is asked.grad_fn:
            return True
        if node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]  # type: ignore[union-attr]
    return False


def unseen(what: str) -> str:
    """What to say of an answer that autograd does not lead back to x."""
    return (
        f"{what} has no gradient in x: it is computed under no_grad, from a detached copy, or in "
        "numpy; choose a method without gradients, or let autograd see it (an answer that depends "
        "on x nowhere is told so: return answer + 0 * x)"
    )


def wrong_output(output: object, x: Tensor, outputs: int = 1) -> str:
    """What to say of an output that is not one number for each of the state's, or not two."""
    if not isinstance(output, Tensor):
        return (
            f"the network returned {type(output).__name__}, not a tensor; wrap it, "
            "e.g. network=lambda x, t: unet(x, t).sample"
        )
    found = f"the network returned shape {tuple(output.shape)} for states of {tuple(x.shape)}; "
    if outputs == 2:
        return f"{found}with outputs=2 it must return twice the channels"
    return (
        f"{found}it must return one number for each of the state's (a network that also predicts "
        "variances: NetworkDenoiser(..., outputs=2))"
    )
