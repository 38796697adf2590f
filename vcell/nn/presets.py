"""Sizes of the transformer by name. Imports no torch, so that settings can list presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Width, depth, heads, width of the feed-forward layer, and dropout of an encoder."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            message = f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}"
            raise ValueError(message)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


PRESETS = {
    "tiny": Preset(d_model=64, n_layers=2, n_heads=4, d_ff=256),  # minutes on a laptop's CPU
    "small": Preset(d_model=256, n_layers=4, n_heads=8, d_ff=1024),
    "base": Preset(d_model=512, n_layers=8, n_heads=16, d_ff=2048),
    "large": Preset(d_model=1024, n_layers=12, n_heads=16, d_ff=4096),
}

# Attention back ends; see `vcell.nn.attention`.
AttentionName = Literal["flash", "sdpa", "chunked", "sparse", "local", "linear"]
