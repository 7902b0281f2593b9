"""A key-value cache with its room reserved in advance: a decoding step writes one column and copies nothing.

`DynamicCache` concatenates every layer's whole cache at every token instead.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


def reserve_cache(config: PretrainedConfig, num_columns: int) -> DynamicCache:
    """Return an empty cache for a model with `config` that has room for `num_columns` tokens per row.

    Layers of other kinds (sliding windows, recurrent states) are small and stay as the library makes them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        _ReservedLayer(num_columns) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


class _ReservedLayer(DynamicLayer):  # type: ignore[no-untyped-call, unused-ignore]
    """A layer whose keys and values [R, heads, t, head_dim] are the written part of larger tensors.

    The base class's other methods read `keys` and `values` alone and hold as they are.
    """

    def __init__(self, num_columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_columns = num_columns
        self.num_used = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.key_room = _room_for(key_states, self.num_columns)
        self.value_room = _room_for(value_states, self.num_columns)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the new columns; return all that are written so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.num_used = self.num_used, self.num_used + key_states.shape[-2]
        self.key_room[..., start : self.num_used, :] = key_states
        self.value_room[..., start : self.num_used, :] = value_states
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` [R']."""
        self.key_room, self.value_room = self.key_room[indices], self.value_room[indices]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys = self.key_room[..., : self.num_used, :]
        self.values = self.value_room[..., : self.num_used, :]
        return self.keys, self.values


def _room_for(states: Tensor, num_columns: int) -> Tensor:
    """Return an unwritten tensor like `states` [R, heads, t, head_dim], `num_columns` long."""
    return states.new_empty((*states.shape[:-2], num_columns, states.shape[-1]))
