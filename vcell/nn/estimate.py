"""The cost of training an encoder, before anything is loaded: parameters, FLOPs, memory, time.

    python -c "from vcell.nn.estimate import estimate; print(estimate('base', 5002, 8))"

Parameters and FLOPs are exact; memory counts what the layers store for the backward pass; time is
measured on a part of one layer and scaled (`vcell.nn.rates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vcell.console import bytes_text, human, table
from vcell.nn.presets import PRESETS, AttentionName, Preset

if TYPE_CHECKING:
    from vcell.nn.patterns import Pattern


@dataclass(frozen=True)
class Estimate:
    """The cost of one training step of an encoder."""

    parameters: int
    flops: int  # forward and backward, without recomputation
    memory: dict[str, int]  # bytes by purpose
    memory_bytes: int  # peak of a step: not all of `memory` is allocated at once
    step_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
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
    """The cost of a model besides its encoder: embeddings, heads, losses."""

    parameters: int = 0
    flops: int = 0  # per step, forward and backward
    activations: int = 0  # bytes stored for the backward pass
    buffers: int = 0  # bytes of untrained buffers
    working: int = 0  # temporary bytes of a loss, on top of all activations


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
    """Estimate the cost of a training step of `vcell.train`, with AdamW.

    Parameters
    ----------
    preset
        Sizes, or the name of a preset.
    n_tokens, batch
        Length of a sequence, and number of sequences at once on one device.
    device, dtype
        The device, and autocast's precision (float32: none).
    attention, pattern
        The back end and, for ``sparse`` and ``local``, the pattern (`Encoder.pattern`).
    checkpointing
        Whether blocks store only their input and are recomputed.
    ema
        Whether there are averaged weights.
    besides
        The rest of the model; its FLOPs are assumed to run at the blocks' rate.
    step_seconds
        The time of a step, if known; otherwise it is measured on a part of a layer.
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
    saved = p.n_layers * (4 * p.d_model * tokens) + block if checkpointing else p.n_layers * block
    saved += 2 * 4 * p.d_model * tokens + besides.activations  # input and output of the final norm
    if dtype != torch.float32:
        saved += dtype.itemsize * parameters  # autocast's copies of the weights
    if pattern is not None:
        saved += sum(x.nbytes for x in (pattern.rows, pattern.keys, pattern.hits))
    # In the backward pass of a feed-forward layer: one gradient of its width (the second replaces
    # the activation it was made from), and that of the residual.
    working = tokens * (p.d_ff * dtype.itemsize + 3 * 4 * p.d_model) + besides.working
    memory = {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW's moments": 8 * parameters,
        "averaged weights": 4 * parameters if ema else 0,
        "effects to compare with": besides.buffers,
        "activations": saved,
        "working space": working,
    }
    lasting = memory["weights"] + memory["AdamW's moments"] + memory["averaged weights"]
    lasting += besides.buffers
    # A backward pass starts without gradients, and ends with all of them and one block's inputs.
    peak = lasting + working + max(saved, memory["gradients"] + block)
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
    """Count a block's FLOPs per token without attention: forward, and twice that backward."""
    d, ff = preset.d_model, preset.d_ff
    return 3 * 2 * (4 * d * d + 2 * d * ff)


def attention_flops(preset: Preset, n_tokens: int, name: AttentionName, scores: int) -> int:
    """Count a block's attention FLOPs per sequence: forward, and twice that backward."""
    d = preset.d_model
    if name == "linear":
        return 3 * 2 * n_tokens * d * (2 * preset.head_dim + 1)
    return 3 * 2 * 2 * scores * d


def kept_bytes(
    preset: Preset, attention: AttentionName, device: torch.device, dtype: torch.dtype
) -> int:
    """Count the bytes per token that a block stores for its backward pass."""
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
