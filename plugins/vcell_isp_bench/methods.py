"""The methods of embedding cells that are compared.

Each turns ranked cells into one embedding per cell: the mean over genes (or <cls>) after the same
layer. A method that cannot run here gives the reason; none falls back to another.
"""

from __future__ import annotations

import copy
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vcell.cores import cpuinfo
from vcell.errors import UserError
from vcell.geneformer.reference import PaddedReference
from vcell.nn.bert import Bert, Lengths, PrecisionName

if TYPE_CHECKING:
    from vcell.geneformer.checkpoint import Geneformer
    from vcell_isp_bench import IspBench

NAMES = (
    "baseline", "original", "batching", "packed", "mixed_precision", "quantization", "compile",
)  # fmt: skip


@dataclass
class Method:
    """A method: how it forms batches of cells, and how it encodes a batch."""

    name: str
    description: str
    bert: Bert
    encode: Callable[[list[Tensor]], list[Tensor]]
    batches: Callable[[list[int]], Iterator[list[int]]]
    layers: int
    head: bool
    harness: Callable[[], None] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def make(name: str, model: Geneformer, n_layers: int, config: IspBench) -> Method:
    """Return a method, or raise a `UserError` with the reason why it cannot run here."""
    if name in ("baseline", "original", "batching"):
        return _padded(name, model, n_layers, config)
    if name == "quantization":
        bert, facts = _quantised(model.bert)
        description = f"{_PACKED}, int8 weights, activations quantised dynamically"
        return _of_packed(name, description, bert, n_layers, config, facts)
    precision = config.precision if name == "mixed_precision" else "fp32"
    return packed(model, n_layers, config, precision, compiled=name == "compile", name=name)


def packed(
    model: Geneformer,
    n_layers: int,
    config: IspBench,
    precision: PrecisionName = "fp32",
    *,
    compiled: bool = False,
    name: str = "packed",
) -> Method:
    """Return vcell's method, at a given precision, compiled or not."""
    bert, description = model.bert, _PACKED
    if precision != "fp32":
        bert = copy.deepcopy(bert)
        _check_precision(precision, bert.tokens.weight.device)
        bert.set_precision(precision, native=True)
        description += f", {precision}"
    if compiled:
        bert = copy.deepcopy(bert)
        _compile(bert)
        description += ", compiled"
    return _of_packed(name, description, bert, n_layers, config, {})


_PACKED = "packed batches, no head, no padding"


def _of_packed(
    name: str, description: str, bert: Bert, n_layers: int, config: IspBench, facts: dict[str, Any]
) -> Method:
    return Method(
        name, f"{description}, {config.token_budget:,} tokens a batch", bert,
        lambda cells: _packed(bert, cells, n_layers),
        lambda lengths: by_tokens(lengths, config.token_budget), n_layers, head=False, facts=facts,
    )  # fmt: skip


def _padded(name: str, model: Geneformer, n_layers: int, config: IspBench) -> Method:
    """Return the usual method: all layers, the head, padding; single cells or batches."""
    reference = PaddedReference(model.bert)
    size = config.batch_size if name == "batching" else 1
    description = f"{reference.name}: padded batches of {size}, all layers, head on every token"
    harness = None
    if name == "original":
        harness = profiled
        description = (
            f"what the original measured: one cell per forward pass, its profiler called every "
            f"{config.batch_size} cells"
        )
    return Method(
        name, description, model.bert, lambda cells: reference.hidden(cells, n_layers),
        lambda lengths: by_count(lengths, size), model.shape.n_layers, head=True, harness=harness,
    )  # fmt: skip


def _packed(bert: Bert, cells: list[Tensor], n_layers: int) -> list[Tensor]:
    lengths = Lengths.of([len(cell) for cell in cells])
    hidden = bert.encode(torch.cat(cells), lengths, n_layers)
    return list(torch.split(hidden, list(lengths.each)))


def by_count(lengths: list[int], size: int) -> Iterator[list[int]]:
    """Divide cells into batches of `size`, in the order given."""
    for start in range(0, len(lengths), size):
        yield list(range(start, min(start + size, len(lengths))))


def by_tokens(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Divide cells into batches of at most `budget` tokens; a longer cell is its own batch."""
    batch: list[int] = []
    total = 0
    for number, length in enumerate(lengths):
        if batch and total + length > budget:
            yield batch
            batch, total = [], 0
        batch.append(number)
        total += length
    if batch:
        yield batch


def profiled() -> None:
    """Repeat what the original's profiler did at each call: inspect the process, run nvidia-smi."""
    Path("/proc/self/status").read_text()
    Path("/proc/stat").read_text()
    if which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv"]
        subprocess.run(query, capture_output=True, check=False)
    else:
        time.sleep(0)  # without a GPU there is no nvidia-smi, and the row says so


def _check_precision(precision: str, device: torch.device) -> None:
    if device.type == "cuda":
        return
    if precision == "fp16":
        raise UserError("a CPU has no fast fp16 products; emulating them would time the emulation")
    flags = set(cpuinfo("flags").split())
    if not flags & {"avx512_bf16", "amx_bf16"}:
        raise UserError(
            "this CPU has no bf16 products (avx512_bf16, amx_bf16): they would be emulated and "
            "some 56 times slower than fp32"
        )


def _quantised(bert: Bert) -> tuple[Bert, dict[str, Any]]:
    """Replace matrix products by torch's dynamic int8 ones, and list them."""
    if bert.tokens.weight.device.type == "cuda":
        raise UserError(
            "int8 on a GPU needs torchao with torch.compile, and gains nothing at these widths"
        )
    before = _bytes(bert)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this will move to torchao
        from torch.ao.quantization import quantize_dynamic

        small = quantize_dynamic(  # type: ignore[no-untyped-call]
            copy.deepcopy(bert), {nn.Linear}, dtype=torch.qint8
        )
    names = [n for n, m in small.named_modules() if "quantized" in type(m).__module__]
    names = [n for n in names if not n.endswith("_packed_params")]
    if not names:
        raise UserError("torch quantised no layer here")
    after = before - sum(_weight(bert, name) * 3 for name in names)
    return small, {
        "quantised": len(names), "bytes": [before, after],
        "engine": torch.backends.quantized.engine,
    }  # fmt: skip


def _bytes(bert: Bert) -> int:
    return sum(p.numel() * p.element_size() for p in bert.parameters())


def _weight(bert: Bert, name: str) -> int:
    layer = bert.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer.weight.numel()


def _compile(bert: Bert) -> None:
    """Compile the operations on single tokens, for any number of tokens."""
    if bert.tokens.weight.device.type == "cpu" and not (which("c++") or which("g++")):
        raise UserError("torch.compile needs a C++ compiler on a CPU, and there is none here")
    bert.numpy_products = False  # only torch operations are compiled
    bert.finish = torch.compile(bert.finish, dynamic=True)  # type: ignore[method-assign]
