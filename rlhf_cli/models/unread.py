"""The last layer of a model of which only some positions are read.

Where nothing is read, the last layer owes the others its keys and values, no more. What its feed-forward network would
add there, two thirds of the layer's work, is left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_cli.algo.packing import SHAPE_STEP


@contextmanager
def finish_only_at(model: PreTrainedModel, index: Tensor) -> Iterator[None]:
    """Let the last layer finish the positions `index` [N] alone, counted row by row.

    The hidden states of others are not what they would be. Nothing changes where the network would run once more in
    the backward pass, outside of this block, or is compiled.
    """
    network = _last_feed_forward(model)
    # What transformers sets has one name in its older versions and another, which warns, in newer ones.
    is_recomputed = any(vars(part).get("gradient_checkpointing") for part in model.modules())
    if network is None or is_recomputed or model._compiled_call_impl is not None:
        yield
        return
    chosen = _Chosen(index)
    handles = [
        network.register_forward_pre_hook(chosen.gather),
        network.register_forward_hook(chosen.scatter),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_feed_forward(model: PreTrainedModel) -> nn.Module | None:
    """Find what most families call `mlp` in the last of their layers."""
    num_layers = model.config.get_text_config().num_hidden_layers
    stacks = (part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == num_layers)
    layers = next(stacks, None)
    return None if layers is None else dict(layers[-1].named_children()).get("mlp")


class _Chosen:
    """Positions of a batch that a module sees; the others it leaves at zero."""

    def __init__(self, index: Tensor) -> None:
        self._index = index
        self._num_positions = 0
        self._kept = index

    def gather(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take the chosen of the states [B, T, D] -> [1, K, D]."""
        states = inputs[0].flatten(0, -2)
        self._shape = inputs[0].shape
        self._kept = self._distinct(len(states))
        return (states.index_select(0, self._kept)[None], *inputs[1:])

    def scatter(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Put the results [1, K, D] where they belong -> [B, T, D]."""
        whole = output.new_zeros(self._shape).flatten(0, -2)
        return whole.index_copy(0, self._kept, output[0]).view(self._shape)

    def _distinct(self, num_positions: int) -> Tensor:
        """Give the positions [K] once each, with others behind them up to a size that occurs often."""
        size = len(self._index) + -len(self._index) % SHAPE_STEP
        chosen_mask = torch.zeros(num_positions, dtype=torch.uint8, device=self._index.device)
        chosen_mask[self._index] = 1
        return chosen_mask.argsort(descending=True, stable=True)[:size]
