"""The rank value encoding, slow and obvious, in float64."""

from __future__ import annotations

import numpy as np


def encode_cell(counts, names, vocabulary, longest):
    """Encode one dense row; equal values by ascending token."""
    total = counts.sum()
    by_token = {}
    for count, name in zip(counts, names, strict=True):
        token = vocabulary.find(name)
        if token >= 0:
            by_token[token] = by_token.get(token, 0.0) + count
    values = {
        token: count / total * 10_000 / vocabulary.medians[token]
        for token, count in by_token.items()
        if count != 0
    }
    order = sorted(values, key=lambda token: (-values[token], token))
    ranked = np.array(order[: longest - vocabulary.n_special], np.int32)
    if vocabulary.cls is None:
        return ranked
    return np.concatenate([[vocabulary.cls], ranked, [vocabulary.eos]]).astype(np.int32)
