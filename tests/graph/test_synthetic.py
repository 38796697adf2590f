"""The synthetic graphs have the sizes that were recorded for a yeast's."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.graph import Neighbourhoods, Rules
from vcell.graph.synthetic import N_GENES, RECORDED, YEAST, yeast_like


@pytest.mark.slow
def test_full_size_is_what_was_recorded():
    graphs = yeast_like(0)
    assert graphs.n_genes == N_GENES
    assert graphs.n_edges == 2_495_908
    rng = np.random.default_rng(1)
    seeds = np.stack([rng.choice(N_GENES, 3, replace=False) for _ in range(300)])
    for hops, recorded in enumerate(RECORDED, 1):
        sizes = np.bitwise_count(Neighbourhoods(graphs, Rules(hops)).masks(seeds)).sum(1)
        assert sizes.mean() == pytest.approx(recorded, rel=0.05)
    for relation in graphs:
        covered, edges, directed = YEAST[relation.name]
        assert relation.n_edges == edges
        assert relation.covered().sum() == pytest.approx(covered, rel=0.03)
        assert relation.directed == directed
        assert relation.n_both_ways == 0 or directed


def test_a_small_one_keeps_the_shape_and_is_repeatable():
    one, again, other = (yeast_like(seed, scale=0.05) for seed in (3, 3, 4))
    assert one.n_genes == 330
    assert one.names == tuple(YEAST)
    assert all((a.indices == b.indices).all() for a, b in zip(one, again, strict=True))
    assert any(a.n_edges != b.n_edges or (a.indices != b.indices).any()
               for a, b in zip(one, other, strict=True))  # fmt: skip
    assert all(relation.n_loops == 0 for relation in one)
