"""Neighbourhoods equal a plain search over lists, and PyG's own functions where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcell.graph import Neighbourhoods, Relation, Rules, k_hop_subgraph

N = 70  # two words of a mask, the second one not full


def walk(edges, seeds, hops, direction):
    """One hop at a time from what was there before the hop."""
    found = set(seeds)
    for _ in range(hops):
        before = set(found)
        found |= {s for s, t in edges if t in before}
        if direction == "both":
            found |= {t for s, t in edges if s in before}
    return found


edge_lists = st.lists(st.tuples(st.integers(0, N - 5), st.integers(0, N - 5)), max_size=120)
some_seeds = st.lists(st.integers(0, N - 1), min_size=1, max_size=4, unique=True)


def arrays(edges):
    return np.array(edges, np.int64).reshape(-1, 2).T


def genes_of(mask):
    return {g for g in range(N) if int(mask[g // 64]) >> (g % 64) & 1}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(edge_lists, min_size=1, max_size=3),
    some_seeds,
    st.integers(0, 3),
    st.sampled_from(["in", "both"]),
    st.sampled_from(["relation", "union"]),
    st.sampled_from(["kept", "deleted"]),
)
def test_neighbourhoods_are_what_a_plain_walk_finds(lists, seeds, hops, direction, over, perturbed):
    relations = [
        Relation.from_edges(f"r{i}", *arrays(edges), N, keep=i == 0)[0]
        for i, edges in enumerate(lists)
    ]
    rules = Rules(hops, direction, over, perturbed)
    near = Neighbourhoods(relations, rules)
    mask = near.masks(np.array([[*seeds, -1]]))[0]
    if over == "union":
        wanted = walk([e for edges in lists for e in edges], seeds, hops, direction)
    else:
        wanted = set().union(*(walk(edges, seeds, hops, direction) for edges in lists))
    if perturbed == "deleted":
        wanted -= set(seeds)
    assert genes_of(mask) == wanted
    assert near.nodes(mask).tolist() == sorted(wanted)
    pairs, csr = near.pairs(mask), near.csr(mask)
    assert pairs.rules == rules
    number = {g: i for i, g in enumerate(sorted(wanted))}
    for i, edges in enumerate(lists):
        inside = [(number[s], number[t]) for s, t in edges if s in wanted and t in wanted]
        if direction == "both":
            inside = [(a, b) for s, t in inside for a, b in ((s, t), (t, s))]
        if i > 0 or direction == "both":  # each once, and no gene with itself
            inside = list({(s, t) for s, t in inside if s != t})
        wanted_edges = sorted(inside, key=lambda e: (e[1], e[0]))
        assert [tuple(e) for e in pairs.edges[i].T.tolist()] == wanted_edges
        assert pairs.edges[i].dtype == np.int64
        rows, sources = csr.edges[i]
        assert sources.dtype == np.uint16
        assert sources.tolist() == [s for s, _ in wanted_edges]
        assert np.repeat(np.arange(len(wanted)), np.diff(rows)).tolist() == [
            t for _, t in wanted_edges
        ]
    again = near.pairs(mask, reuse=True)
    assert all((a == b).all() for a, b in zip(again.edges, pairs.edges, strict=True))


@settings(max_examples=25, deadline=None)
@given(edge_lists, some_seeds, st.integers(0, 3))
def test_tensors_are_those_of_the_definition_in_the_order_given(edges, seeds, hops):
    edge_index = arrays(edges)
    subset, found, mapping, edge_mask = k_hop_subgraph(np.array(seeds), hops, edge_index, N)
    wanted = sorted(walk(edges, seeds, hops, "in"))
    assert subset.tolist() == wanted
    assert edge_mask.tolist() == [s in wanted and t in wanted for s, t in edges]
    assert subset[found].T.tolist() == edge_index[:, edge_mask].T.tolist()
    assert subset[mapping].tolist() == seeds


@settings(max_examples=25, deadline=None)
@given(edge_lists, some_seeds, st.integers(0, 3))
def test_tensors_equal_those_of_pyg(edges, seeds, hops):
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("torch_geometric.utils")
    edge_index = arrays(edges)
    ours = k_hop_subgraph(np.array(seeds), hops, edge_index, N)
    theirs = utils.k_hop_subgraph(
        torch.tensor(seeds), hops, torch.from_numpy(edge_index), relabel_nodes=True, num_nodes=N
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.tolist() == b.tolist()
        assert torch.from_numpy(a).dtype == b.dtype


def test_wide_and_narrow_rows_walk_alike():
    """A graph with hubs, over several words, where rows are bits, against matrix products."""
    rng = np.random.default_rng(0)
    n = 1500
    source = np.minimum(rng.zipf(1.3, 20_000) - 1, n - 1)
    target = rng.integers(0, n, 20_000)
    relations = [
        Relation.from_edges("a", source, target, n)[0],
        Relation.from_edges("b", target[:3000], source[:3000], n)[0],
    ]
    dense = []
    for relation in relations:
        a = np.zeros((n, n), np.float32)
        a[relation.targets, relation.indices] = 1
        dense.append(a)
    seeds = rng.integers(0, n, (20, 3))
    start = np.zeros((20, n), np.float32)
    start[np.arange(20)[:, None], seeds] = 1
    masks = Neighbourhoods(relations, Rules(2)).masks(seeds)
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, :n]
    wanted = sum(start + start @ a + start @ a @ a for a in dense) > 0
    assert (bits == wanted).all()
    union = dense[0] + dense[1]
    masks = Neighbourhoods(relations, Rules(2, over="union")).masks(seeds)
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, :n]
    assert (bits == (start + start @ union + start @ union @ union > 0)).all()


def test_rules_are_told_and_places_checked():
    relation = Relation.from_edges("r", np.array([0]), np.array([1]), 3)[0]
    assert Rules(2, "both", "union", "deleted").describe() == (
        "2 hops in both directions, over the union of relations, perturbed genes deleted"
    )
    with pytest.raises(IndexError, match="gene 3 of 3"):
        Neighbourhoods([relation], Rules()).masks(np.array([3]))
