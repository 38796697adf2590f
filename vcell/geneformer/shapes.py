"""The published Geneformer models: their shapes, and the sizes of their weight files."""

from __future__ import annotations

from vcell.nn.bert import BertShape


def _shape(
    n_layers: int, d_model: int, n_heads: int, d_ff: int, n_positions: int, n_tokens: int
) -> BertShape:
    return BertShape(
        n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff,
        n_positions=n_positions, n_tokens=n_tokens,
    )  # fmt: skip


V1, V2 = 25_426, 20_275

#: Layers, width, heads, feed-forward width, longest cell, tokens.
SHAPES = {
    "gf-6L-10M-i2048": _shape(6, 256, 4, 512, 2048, V1),
    "gf-12L-40M-i2048": _shape(12, 512, 8, 1024, 2048, V1),
    "gf-12L-38M-i4096": _shape(12, 512, 8, 1024, 4096, V2),
    "gf-20L-151M-i4096": _shape(20, 896, 14, 1792, 4096, V2),
    "gf-12L-104M-i4096": _shape(12, 768, 12, 3072, 4096, V2),
    "gf-18L-316M-i4096": _shape(18, 1152, 18, 4608, 4096, V2),
}

#: Bytes of published files and the first digits of their SHA-256 (Hugging Face's LFS pointers).
PUBLISHED = {
    41_183_536: ("a5e33a757431", "V1-10M"),
    41_216_562: ("8d860e212588", "V1-10M"),
    152_012_980: ("4365ba23e393", "gf-12L-38M-i4096"),
    158_467_410: ("812f8d85e5ec", "gf-12L-40M-i2048"),
    605_292_732: ("db85c081a6d3", "gf-20L-151M-i4096"),
    417_571_156: ("fff5cba29ddd", "V2-104M"),
    1_265_455_076: ("965ceccea819", "V2-316M"),
}
