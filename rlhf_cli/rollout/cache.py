"""Key-value caches with their room reserved in advance: a decoding step writes one column and copies nothing.

`DynamicCache` concatenates every layer's whole cache at every token instead.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


def has_plain_cache(config: PretrainedConfig) -> bool:
    """Say whether every layer of such a model keeps all its keys and values: no sliding window, no recurrent state."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def reserve_cache(config: PretrainedConfig, num_columns: int) -> DynamicCache:
    """Return an empty cache for a model with `config` that has room for `num_columns` tokens per row.

    Layers of other kinds (sliding windows, recurrent states) are small and stay as the library makes them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        _ReservedLayer(num_columns) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


class SlotCache:
    """The plain cache of R rows that all end in column `end`, where others may take the place of rows that are done.

    A newcomer's keys and values are written in front of `end`, wherever that is by now. The model sees columns
    `first` to `end`; `first` is the first one that a row still needs. At `num_columns` all rows move to the front.
    Where a key lies means nothing to attention: its position is rotated or added in before it is stored.
    """

    def __init__(self, config: PretrainedConfig, num_rows: int, num_columns: int) -> None:
        self.past = reserve_cache(config, num_columns)
        self.num_columns = num_columns
        self.first = self.end = 0
        self._num_rows = num_rows

    def put(self, rows: Tensor, newcomers: DynamicCache) -> None:
        """Write the prompts in `newcomers`, left-padded [k, heads, w, head_dim], into `rows` [k]; w <= `end`."""
        for layer, newcomer in zip(self._layers(), newcomers.layers, strict=True):
            assert isinstance(newcomer, DynamicLayer)
            assert newcomer.keys is not None
            assert newcomer.values is not None
            layer.put(rows, newcomer.keys, newcomer.values, self._num_rows, self.end)
        self.show(self.first)

    def show(self, first: int) -> None:
        """Let the model see no column before `first`."""
        self.first = first
        for layer in self._layers():
            layer.show(first, self.end)

    def shift(self, distance: int) -> None:
        """Move all rows `distance` columns to the front, where what lies before `distance` is lost."""
        for layer in self._layers():
            layer.shift(distance)
        self.end -= distance
        self.show(max(0, self.first - distance))

    def select(self, rows: Tensor) -> None:
        """Keep `rows` [R'] only."""
        self._num_rows = len(rows)
        self.past.batch_select_indices(rows)

    def _layers(self) -> Iterator["_ReservedLayer"]:
        for layer in self.past.layers:
            assert isinstance(layer, _ReservedLayer)
            yield layer


class _ReservedLayer(DynamicLayer):  # type: ignore[no-untyped-call, unused-ignore]
    """A layer whose keys and values [R, heads, t, head_dim] are a part of larger tensors: columns first to num_used.

    The base class's other methods read `keys` and `values` alone and hold as they are.
    """

    def __init__(self, num_columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_columns = num_columns
        self.first = self.num_used = 0
        self.key_room: Tensor
        self.value_room: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._reserve(key_states, value_states, len(key_states))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the new columns; return all that are shown."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.num_used, self.num_used + key_states.shape[-2]
        self.key_room[..., start:end, :] = key_states
        self.value_room[..., start:end, :] = value_states
        return self.show(self.first, end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` [R']."""
        self.key_room, self.value_room = self.key_room[indices], self.value_room[indices]
        self.show(self.first, self.num_used)

    def put(self, rows: Tensor, keys: Tensor, values: Tensor, num_rows: int, end: int) -> None:
        """Write keys and values [k, heads, w, head_dim] of `rows` [k], out of `num_rows`, in front of `end`."""
        if not self.is_initialized:
            super().lazy_initialization(keys, values)
            self._reserve(keys, values, num_rows)
        columns = slice(end - keys.shape[-2], end)
        self.key_room[rows, :, columns] = keys
        self.value_room[rows, :, columns] = values

    def shift(self, distance: int) -> None:
        """Move every column `distance` >= 0 to the front."""
        end = self.num_used - distance
        for room in (self.key_room, self.value_room):
            room[..., :end, :] = room[..., distance : self.num_used, :].clone()

    def show(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Make columns `first` to `end` what the base class and the model see."""
        self.first, self.num_used = first, end
        self.keys = self.key_room[..., first:end, :]
        self.values = self.value_room[..., first:end, :]
        return self.keys, self.values

    def _reserve(self, keys: Tensor, values: Tensor, num_rows: int) -> None:
        # Zeros, not empty memory: a masked value is multiplied by 0, and 0 times NaN is NaN.
        self.key_room, self.value_room = (
            states.new_zeros((num_rows, states.shape[1], self.num_columns, states.shape[-1]))
            for states in (keys, values)
        )
