"""Length, slices and transport of a batch, for any nesting of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch


def length(batch: Any) -> int:
    """Return the number of examples: the first dimension of the first tensor found."""
    if hasattr(batch, "__len__") and not isinstance(batch, list | tuple | dict):
        return len(batch)
    return len(next(leaves(batch)))


def pieces(batch: Any, count: int) -> Iterator[Any]:
    """Cut a batch into `count` pieces of nearly equal size.

    A batch type that is not made of stacked tensors defines ``__len__`` and
    ``__getitem__(slice)``.
    """
    total = length(batch)
    count = min(count, total)
    if count == 1:
        yield batch
        return
    for i in range(count):
        yield _cut(batch, slice(total * i // count, total * (i + 1) // count))


def to_device(batch: Any, device: torch.device) -> Any:
    """Copy a batch to the device; asynchronous from pinned memory."""
    if hasattr(batch, "to") and not isinstance(batch, torch.Tensor):
        return batch.to(device)

    def move(leaf: Any) -> torch.Tensor:
        return torch.as_tensor(leaf).to(device, non_blocking=True)

    return _map(batch, move)


def pinned(batch: Any) -> Any:
    """Copy a batch into page-locked memory, from which copies to a GPU overlap with computing."""
    if hasattr(batch, "pin_memory") and not isinstance(batch, torch.Tensor):
        return batch.pin_memory()
    return _map(batch, lambda leaf: torch.as_tensor(leaf).pin_memory())


def _cut(batch: Any, part: slice) -> Any:
    if hasattr(batch, "__getitem__") and not isinstance(batch, list | tuple | dict):
        return batch[part]
    return _map(batch, lambda leaf: leaf[part])


def _is_leaf(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def leaves(batch: Any) -> Iterator[Any]:
    """Yield the tensors and arrays of a batch."""
    if _is_leaf(batch):
        yield batch
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            yield from leaves(getattr(batch, field.name))
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from leaves(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from leaves(value)


def _map(batch: Any, function: Callable[[Any], Any]) -> Any:
    if _is_leaf(batch):
        return function(batch)
    if isinstance(batch, dict):
        return {key: _map(value, function) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(value, function) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_map(value, function) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        changed = {
            f.name: _map(getattr(batch, f.name), function) for f in dataclasses.fields(batch)
        }
        return dataclasses.replace(batch, **changed)
    return batch
