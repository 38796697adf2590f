"""Attention without softmax: elu(x) + 1 of queries and keys, multiplied in O(T).

Source: Katharopoulos et al. 2020, "Transformers are RNNs".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def features(x: Tensor) -> Tensor:
    """Map queries or keys to positive features, whose products are the weights."""
    return F.elu(x.float() if x.element_size() < 4 else x) + 1


def linear_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average values with weights features(q) . features(k); sums are in float32 or better.

    Parameters
    ----------
    q, k, v
        (B, H, T, D)
    valid
        (B, T), False for keys to ignore.
    """
    with torch.autocast(q.device.type, enabled=False):
        fq, fk = features(q), features(k)
        if valid is not None:
            fk = fk * valid[:, None, :, None].to(fk.dtype)
        state = fk.transpose(-2, -1) @ v.to(fk.dtype)  # (B, H, D, D)
        weight = fq @ fk.sum(-2)[..., None]  # (B, H, T, 1)
        tiny = torch.finfo(fq.dtype).tiny  # zeros if no key is valid
        return (fq @ state / weight.clamp_min(tiny)).to(v.dtype)
