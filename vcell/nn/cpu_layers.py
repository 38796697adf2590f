"""BERT layers on a CPU: numpy's products, vcell's attention kernel, reused buffers.

The results equal torch's to rounding, in less time: numpy's BLAS multiplies faster than torch's on
many CPUs, attention stays in registers and cache (`vcell.kernels.attention`), products are written
to reused memory (new memory costs as much as a small product), and row-wise operations take one
pass. The bias of keys does not change a softmax and is omitted; that of values is added after the
mixture, whose weights sum to 1.

Sequences are divided into groups, and a group goes through all layers while it is in the cache.
Each thread takes groups; the results do not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from vcell.kernels import attention
from vcell.kernels.transformer import add_and_normalise, add_and_rectify, add_vector
from vcell.nn.attention import attend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.nn.bert import Bert, BertBlock, BertShape, Lengths

    Floats = NDArray[np.float32]

_LINE = 16  # floats in a cache line
GROUP = 512  # short sequences are grouped up to this many tokens

#: Called with the type of products and the attention of every call (for `vcell isp-bench`).
observers: list[Callable[[str, str], None]] = []


def suits(bert: Bert, x: Tensor) -> bool:
    """Whether numpy can run this model's layers here, without gradients."""
    return (
        bert.numpy_products
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not bert.precision.rounds
        and not torch.is_grad_enabled()
        and isinstance(bert.block(0).qkv, nn.Linear)  # not quantised
        and _library() is not None
    )


@cache
def _library() -> Any:
    """Return the control of the threads of numpy's BLAS, or None if there is none."""
    found: Any = ThreadpoolController().select(user_api="blas")
    return found if any(known["internal_api"] != "flexiblas" for known in found.info()) else None


def run(
    bert: Bert, x: Tensor, lengths: Lengths, start: int, stop: int, mixed: Tensor | None = None
) -> Tensor:
    """Return hidden states, (N, d), of packed sequences after layers `start` to `stop`.

    Parameters
    ----------
    x
        (N, d), the input of layer `start`.
    mixed
        (N, d), the attention output of layer `start`, if it is known.
    """
    out = x.detach().numpy().copy()
    given = None if mixed is None else mixed.detach().numpy()
    groups = _groups(lengths.each)
    n_threads = min(torch.get_num_threads(), len(groups))
    layers = [_LayerArrays.of(bert.block(number)) for number in range(start, stop)]
    waiting = deque(sorted(groups, key=lambda group: -sum(n * n for n in group.lengths)))

    def work() -> None:
        space = _Workspace(bert.shape, groups)
        while waiting:
            try:
                group = waiting.popleft()
            except IndexError:  # another thread took the last group
                break
            rows = slice(group.start, group.start + sum(group.lengths))
            known = None if given is None else given[rows]
            for layer in layers:
                layer.apply(out[rows], group.lengths, space, known)
                known = None
        _spare.append(space.memory)

    with _one_thread_each():
        if n_threads < 2:
            work()
        else:
            with ThreadPoolExecutor(n_threads, thread_name_prefix="vcell-nn") as pool:
                for done in [pool.submit(work) for _ in range(n_threads)]:
                    done.result()
    for tell in observers:
        tell("float32", "attention of vcell, in tiles")
    return torch.from_numpy(out)


def _one_thread_each() -> AbstractContextManager[Any]:
    """Limit BLAS to one thread, as our threads share the work."""
    library = _library()
    limited: Any = nullcontext() if library is None else library.limit(limits=1)
    return limited  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _TokenGroup:
    """Some consecutive sequences."""

    start: int
    lengths: tuple[int, ...]


def _groups(each: Sequence[int]) -> list[_TokenGroup]:
    """Group consecutive sequences up to `GROUP` tokens."""
    groups, own, start, at = [], [], 0, 0
    for length in each:
        own.append(length)
        at += length
        if at - start >= GROUP:
            groups.append(_TokenGroup(start, tuple(own)))
            own, start = [], at
    if own:
        groups.append(_TokenGroup(start, tuple(own)))
    return groups


#: Memory of earlier calls for reuse: new pages cost as much as the layers of a short cell.
_spare: list[Floats] = []


class _Workspace:
    """Working memory of one group, aligned to cache lines and reused by all layers and groups."""

    def __init__(self, shape: BertShape, groups: Sequence[_TokenGroup]) -> None:
        n = max((sum(group.lengths) for group in groups), default=0)
        d, width = shape.d_model, shape.d_model // shape.n_heads
        each = {length for group in groups for length in group.lengths}
        rooms = [attention.room(length, width) for length in each if attention.fits(length, width)]
        sizes = [n * 3 * d, n * d, n * d, n * shape.d_ff, *np.max([*rooms, (0, 0, 0)], axis=0)]
        ends = np.cumsum([-(-int(size) // _LINE) * _LINE for size in sizes])
        self.memory = _memory(int(ends[-1]) + _LINE)
        first = -self.memory.ctypes.data % (4 * _LINE) // 4
        parts = np.split(self.memory[first : first + ends[-1]], ends[:-1])
        self.joint, self.mixed, self.inner = (
            part[: n * size].reshape(n, size)
            for part, size in zip(parts, (3 * d, d, d), strict=False)
        )
        self.up = parts[3][: n * shape.d_ff].reshape(n, shape.d_ff)
        self.keys, self.scores, self.inverse = parts[4:]


def _memory(size: int) -> Floats:
    """Reuse memory of an earlier call if it is large enough."""
    try:
        kept = _spare.pop()
    except IndexError:
        kept = None
    return kept if kept is not None and len(kept) >= size else np.empty(size, np.float32)


@dataclass(frozen=True)
class _LayerArrays:
    """The weights of a block as arrays that share its memory, and two derived biases.

    Attributes
    ----------
    products
        Weights of queries with keys and values, of the output of attention, up and down; ``(out,
        in)``. query, out, mixed, up, down
            Biases; `mixed` is `out` plus the contribution of the values' bias.
    """

    n_heads: int
    products: tuple[Floats, ...]
    query: Floats
    out: Floats
    mixed: Floats
    up: Floats
    down: Floats
    norms: tuple[tuple[Floats, Floats, np.float32], ...]

    @classmethod
    def of(cls, block: BertBlock) -> _LayerArrays:
        """Make them from a block."""
        d = block.out.out_features
        joint, bias = _array(block.qkv.weight), _array(block.qkv.bias)
        behind, out = _array(block.out.weight), _array(block.out.bias)
        return cls(
            block.n_heads,
            (joint, behind, _array(block.up.weight), _array(block.down.weight)),
            bias[:d], out, out + behind @ bias[2 * d :], _array(block.up.bias),
            _array(block.down.bias),
            tuple(
                (_array(norm.weight), _array(norm.bias), np.float32(norm.eps))
                for norm in (block.norm_attention, block.norm_output)
            ),
        )  # fmt: skip

    def apply(
        self, x: Floats, lengths: Sequence[int], space: _Workspace, mixed: Floats | None
    ) -> None:
        """Replace the rows of a group by the output of the block."""
        n = len(x)
        bias, inner, up = self.out, space.inner[:n], space.up[:n]
        if mixed is None:
            bias, mixed = self.mixed, self._mixed(x, lengths, space)
        _, behind, widen, narrow = self.products
        np.matmul(mixed, behind.T, out=inner)
        add_and_normalise(x, inner, bias, *self.norms[0])
        np.matmul(x, widen.T, out=up)
        add_and_rectify(up, self.up)
        np.matmul(up, narrow.T, out=inner)
        add_and_normalise(x, inner, self.down, *self.norms[1])

    def _mixed(self, x: Floats, lengths: Sequence[int], space: _Workspace) -> Floats:
        """Return the attention output of each sequence, without the values' bias."""
        n, d = x.shape
        joint, mixed = space.joint[:n], space.mixed[:n]
        np.matmul(x, self.products[0].T, out=joint)
        add_vector(joint[:, :d], self.query)
        at, width = 0, d // self.n_heads
        for length in lengths:
            own = slice(at, at + length)
            at += length
            if not attention.fits(length, width):
                mixed[own] = self._by_torch(joint[own])
                continue
            block, row = attention.block_of(length), attention.row_of(length)
            scores = space.scores[: block * row].reshape(block, row)
            for head in range(self.n_heads):
                q, k, v = (
                    joint[own, first : first + width] for first in range(head * width, 3 * d, d)
                )
                out = mixed[own, head * width : (head + 1) * width]
                attention.attend_head(q, k, v, space.keys, scores, space.inverse, out)
        return mixed

    def _by_torch(self, joint: Floats) -> Floats:
        """Attend by torch, for sequences too short or heads too narrow for tiles."""
        q, k, v = torch.from_numpy(joint).view(len(joint), 3, self.n_heads, -1).unbind(1)
        parts = (part.transpose(0, 1)[None] for part in (q, k, v))
        out: Floats = attend(*parts)[0].transpose(0, 1).reshape(len(joint), -1).numpy()
        return out


def _array(weights: Tensor) -> Floats:
    found: Floats = weights.detach().numpy()
    return found
