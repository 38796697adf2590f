"""The cost of training an encoder, before anything is loaded: parameters, FLOPs, memory, time.

    python -c "from vcell.nn.estimate import estimate; print(estimate('base', 5002, 8))"

Parameters and FLOPs are exact; memory counts what the layers are known to keep for the backward
pass; time is measured on a part of one layer and scaled (`vcell.nn.rates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vcell.console import bytes_text, human, table
from vcell.nn.presets import PRESETS, AttentionName, Preset

if TYPE_CHECKING:
    from vcell.nn.patterns import Pattern

_LINEAR = ("linear",)
_BLOCKED = ("chunked", "sparse", "local")


@dataclass(frozen=True)
class Estimate:
    """What one training step of an encoder takes."""

    parameters: int
    flops: int  # of the model: forward and backward, what is recomputed not counted twice
    memory: dict[str, int]  # bytes by purpose
    memory_bytes: int  # at the worst moment of a step: not all of `memory` is held at once
    step_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return dict(vars(self))

    def __str__(self) -> str:
        rows = [
            ["parameters", human(self.parameters)],
            ["model FLOPs a step", human(self.flops)],
            *([f"memory: {name}", bytes_text(size)] for name, size in self.memory.items()),
            ["memory: peak of a step", bytes_text(self.memory_bytes)],
            ["seconds a step", f"{self.step_seconds:.3g}"],
            ["model TFLOP/s", f"{self.flops / self.step_seconds / 1e12:.3g}"],
        ]
        return table(rows, ["estimate", "value"])


@dataclass(frozen=True, kw_only=True)
class Besides:
    """What a model holds and does beside its encoder: embeddings, heads, losses."""

    parameters: int = 0
    flops: int = 0  # of a step, forward and backward
    activations: int = 0  # bytes kept for the backward pass
    buffers: int = 0  # bytes that last and are not trained
    working: int = 0  # bytes that a loss needs for a moment, while all activations are kept


def estimate(  # noqa: PLR0913 - all but three by keyword
    preset: Preset | str,
    n_tokens: int,
    batch: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: AttentionName = "sdpa",
    pattern: Pattern | None = None,
    checkpointing: bool = False,
    ema: bool = False,
    besides: Besides | None = None,
    step_seconds: float | None = None,
) -> Estimate:
    """Estimate a training step with AdamW as `vcell.train` takes it.

    Parameters
    ----------
    preset
        Sizes, or the name of some.
    n_tokens, batch
        Length of a sequence, and sequences computed at once on one device.
    device, dtype
        Where, and autocast's precision (float32: none).
    attention, pattern
        The back end and, for ``sparse`` and ``local``, who attends to whom (`Encoder.pattern`).
    checkpointing
        Whether blocks keep only their input and are computed again.
    ema
        Whether averaged weights are kept.
    besides
        The rest of the model; its FLOPs are taken to run at the blocks' rate.
    step_seconds
        The time of a step where it is known; else it is measured on a part of a layer.
    """
    device = torch.device(device)
    p = PRESETS[preset] if isinstance(preset, str) else preset
    besides = besides or Besides()
    parameters = encoder_parameters(p) + besides.parameters
    scores = n_tokens**2 if pattern is None else pattern.scores
    dense = p.n_layers * dense_flops(p) * n_tokens * batch
    flops = dense + p.n_layers * batch * attention_flops(p, n_tokens, attention, scores)
    tokens = n_tokens * batch
    block = tokens * kept_bytes(p, attention, device, dtype)
    kept = p.n_layers * (4 * p.d_model * tokens) + block if checkpointing else p.n_layers * block
    kept += 2 * 4 * p.d_model * tokens + besides.activations  # the last norm's in- and output
    if dtype != torch.float32:
        kept += dtype.itemsize * parameters  # autocast's copies of the weights
    if pattern is not None:
        kept += sum(x.nbytes for x in (pattern.rows, pattern.keys, pattern.hits))
    # Going back through a feed-forward layer: one gradient of its width (the second takes the place
    # of the activation it was made from), and the residual's.
    working = tokens * (p.d_ff * dtype.itemsize + 3 * 4 * p.d_model) + besides.working
    memory = {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW's moments": 8 * parameters,
        "averaged weights": 4 * parameters if ema else 0,
        "effects to compare with": besides.buffers,
        "activations": kept,
        "working space": working,
    }
    lasting = memory["weights"] + memory["AdamW's moments"] + memory["averaged weights"]
    lasting += besides.buffers
    # A backward pass begins without gradients, and ends with all of them and one block's inputs.
    peak = lasting + working + max(kept, memory["gradients"] + block)
    if step_seconds is None:
        from vcell.nn.rates import measure

        rates = measure(p, n_tokens, batch, device, dtype, attention, pattern)
        step_seconds = p.n_layers * (rates.layer + rates.attention)
        if checkpointing:
            step_seconds += p.n_layers * (rates.layer_forward + rates.attention_forward)
        step_seconds += rates.parameter * parameters
        step_seconds += p.n_layers * rates.layer * besides.flops / dense
    memory = {purpose: size for purpose, size in memory.items() if size}
    return Estimate(parameters, flops + besides.flops, memory, peak, step_seconds)


def encoder_parameters(preset: Preset) -> int:
    """Count the weights of `vcell.nn.encoder.Encoder`."""
    d, ff = preset.d_model, preset.d_ff
    return preset.n_layers * (4 * d * d + 2 * d * ff + 2 * d) + d


def dense_flops(preset: Preset) -> int:
    """Count a block's FLOPs for one token, attention apart: forward, and twice that backward."""
    d, ff = preset.d_model, preset.d_ff
    return 3 * 2 * (4 * d * d + 2 * d * ff)


def attention_flops(preset: Preset, n_tokens: int, name: AttentionName, scores: int) -> int:
    """Count a block's attention FLOPs for one sequence, forward and twice that backward."""
    d = preset.d_model
    if name in _LINEAR:
        return 3 * 2 * n_tokens * d * (2 * preset.head_dim + 1)
    return 3 * 2 * 2 * scores * d


def kept_bytes(
    preset: Preset, attention: AttentionName, device: torch.device, dtype: torch.dtype
) -> int:
    """Count the bytes a block keeps of each token for its backward pass."""
    d, ff, heads = preset.d_model, preset.d_ff, preset.n_heads
    e = dtype.itemsize
    mixing = {
        "flash": 4 * e * d + 4 * heads,  # queries, keys, values, output; log-sum-exp
        "sdpa": 4 * e * d + 4 * heads,
        "linear": (36 if e == 4 else 30) * d + 8 * heads,  # and their features, in float32
    }.get(attention, 5 * e * d + 4 * heads)  # the output twice: as heads and as tokens
    norms = 2 * (4 * d + 8 + e * d)  # input, mean and deviation, output
    dropped = 2 * d * (1 if device.type == "cuda" else e) if preset.dropout else 0
    return norms + mixing + 2 * e * ff + dropped
