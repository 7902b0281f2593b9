"""Gradients of weights, added to where they are kept.

PyTorch makes a gradient as large as its weight for each micro-batch and then adds it to the sum, an embedding's with
zeros for every word that does not occur; a tied embedding's twice. With few tokens in a micro-batch that takes a CPU
as long as a sixth of the products themselves. Here the product is added to the sum as it is computed.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlhf_cli.models.parallel import is_shared_out


def add_gradients_in_place(module: nn.Module) -> None:
    """Let the linear layers and embeddings of a module that learn on a CPU add their gradients to `weight.grad`.

    Gradients and results are what they were, up to the order of additions. Hooks on these weights are not called.
    """
    if is_shared_out(module):
        return
    for part in module.modules():
        if type(part) is nn.Linear and _learns_here(part.weight):
            part.__class__ = _Linear
        elif type(part) is nn.Embedding and _learns_here(part.weight) and _is_plain(part):
            part.__class__ = _Embedding


def _learns_here(weight: Tensor) -> bool:
    return weight.requires_grad and weight.device.type == "cpu"


def _is_plain(embedding: nn.Embedding) -> bool:
    return not (embedding.sparse or embedding.scale_grad_by_freq or embedding.max_norm is not None)


def _is_traced() -> bool:
    """Say whether nothing is learnt from this call, or torch.compile makes the gradient itself."""
    return torch.compiler.is_compiling() or not torch.is_grad_enabled()


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        """Multiply, in the precision of autocast."""
        if _is_traced() or not self.weight.requires_grad:
            return super().forward(input)
        low = self.weight.detach()
        if torch.is_autocast_enabled("cpu"):
            input, low = input.to(torch.get_autocast_dtype("cpu")), self._cast(low)
        product: Tensor = _Product.apply(input, low, self.weight)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _cast(self, weight: Tensor) -> Tensor:
        """Give the weight in the precision of autocast, cast once for all micro-batches of a step.

        While it has a gradient it is what it was: an optimizer's step, and whatever else writes weights, drops that.
        """
        kept: Tensor | None = vars(self).get("_kept")
        dtype = torch.get_autocast_dtype("cpu")
        if kept is None or kept.dtype != dtype or self.weight.grad is None:
            self._kept = kept = weight.to(dtype)
        return kept


class _Product(torch.autograd.Function):
    """states [..., D] times `low` [E, D], the weight in the precision of the states -> [..., E]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, low: Tensor, weight: nn.Parameter) -> Tensor:
        ctx.save_for_backward(states, low)
        ctx.weight = weight
        return F.linear(states, low)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        states, low = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        _add_product(ctx.weight, gradient.mT, states.flatten(0, -2))
        return gradients[0] @ low if ctx.needs_input_grad[0] else None, None, None


def _add_product(weight: nn.Parameter, left: Tensor, right: Tensor) -> None:
    if weight.grad is None:
        weight.grad = (left @ right).to(weight.dtype)
    elif left.dtype == weight.grad.dtype:
        weight.grad.addmm_(left, right)
    else:
        weight.grad.add_(left @ right)


class _Embedding(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        """Look the rows up."""
        if _is_traced() or not self.weight.requires_grad:
            return super().forward(input)
        states: Tensor = _Rows.apply(input, self.weight, self.padding_idx)  # type: ignore[no-untyped-call]
        return states


class _Rows(torch.autograd.Function):
    """The rows `ids` [...] of `weight` [V, D] -> [..., D]; that of padding learns nothing."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: nn.Parameter, padding_id: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding_id = weight, padding_id
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        weight, gradient = ctx.weight, gradients[0]
        if ctx.padding_id is not None:
            gradient = gradient.masked_fill((ids == ctx.padding_id).unsqueeze(-1), 0.0)
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, ids.flatten(), gradient.flatten(0, -2).to(weight.dtype))
        return None, None, None
