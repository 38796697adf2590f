"""flash-attn is called as upstream declares it: a stub with its signature, computed by torch."""

from __future__ import annotations

import inspect
import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vcell.nn.attention import attend

# As of flash-attn 2.7 and 2.8: flash_attn/flash_attn_interface.py of Dao-AILab/flash-attention.
_COMMON = (
    "dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, "
    "alibi_slopes=None, deterministic=False, return_attn_probs=False"
)
DENSE = f"(q, k, v, {_COMMON})"
PACKED = (
    "(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, "
    f"{_COMMON}, block_table=None)"
)


def signature(text: str) -> inspect.Signature:
    names: dict[str, Any] = {}
    exec(f"def declared{text}: ...", names)
    return inspect.signature(names["declared"])


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, T, H, D), as flash-attn has them."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put the stub in place; return the arguments of each call, by upstream's names."""
    seen: list[dict[str, Any]] = []

    def dense(*words: Any, **named: Any) -> Tensor:
        bound = signature(DENSE).bind(*words, **named)
        bound.apply_defaults()
        seen.append(bound.arguments)
        q, k, v = (bound.arguments[name] for name in "qkv")
        assert q.ndim == 4
        return attention(q, k, v)

    def packed(*words: Any, **named: Any) -> Tensor:
        bound = signature(PACKED).bind(*words, **named)
        bound.apply_defaults()
        a = bound.arguments
        seen.append(a)
        for name in ("cu_seqlens_q", "cu_seqlens_k"):
            assert a[name].dtype == torch.int32
            assert a[name][0] == 0
            assert a[name][-1] == len(a["q"])
        assert isinstance(a["max_seqlen_q"], int)
        assert a["max_seqlen_q"] == int(a["cu_seqlens_q"].diff().max())
        ends = a["cu_seqlens_q"].tolist()
        parts = [
            attention(*(a[name][None, i:j] for name in "qkv"))[0]
            for i, j in itertools.pairwise(ends)
        ]
        return torch.cat(parts)

    module = ModuleType("flash_attn")
    module.flash_attn_func, module.flash_attn_varlen_func = dense, packed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return seen


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 3, 2, 9, 4, generator=draw).unbind(0)  # (B, H, T, D)
    return q, k, v


def test_it_computes_what_torch_computes(calls: list[dict[str, Any]], qkv: Any) -> None:
    assert torch.allclose(attend(*qkv, name="flash"), attend(*qkv), atol=1e-6)
    valid = torch.arange(9) < torch.tensor([[9], [4], [1]])
    found, want = attend(*qkv, name="flash", valid=valid), attend(*qkv, valid=valid)
    seen = valid[:, None, :, None].expand_as(found)
    assert torch.allclose(found[seen], want[seen], atol=1e-6)
    assert torch.isfinite(found).all()
    for call in calls:
        assert (call["dropout_p"], call["causal"], call["deterministic"]) == (0.0, False, False)


def test_deterministic_reaches_its_backward_pass(calls: list[dict[str, Any]], qkv: Any) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        attend(*qkv, name="flash")
        attend(*qkv, name="flash", valid=torch.ones(3, 9, dtype=torch.bool))
    finally:
        torch.use_deterministic_algorithms(False)
    assert [call["deterministic"] for call in calls] == [True, True]
