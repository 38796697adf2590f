"""What is held out of a table of gene sets is not learnt from in another row."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from vcell_train_graph import TrainGraph
from vcell_train_graph.problem import GraphProblem, problem

from vcell import library
from vcell.screen.split import TEST

GENES = [f"G{i:02d}" for i in range(14)]


def table(folder: Path, sets: list[tuple[str, ...]], head: str = "") -> Path:
    """Write sets in the order given, each with a value of its own."""
    rng = np.random.default_rng(0)
    width = max(map(len, sets))
    lines = [head or "\t".join([*(f"gene_{i + 1}" for i in range(width)), "tau"])]
    for one in sets:
        cells = [*one, *[""] * (width - len(one)), f"{rng.normal():.5f}"]
        lines.append("\t".join(cells))
    path = folder / "tau.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def strains(folder: Path, sets: list[tuple[str, str, str]]) -> Path:
    """Write a query of two genes, or of one and the neutral locus, and an array gene."""
    rows = [(f"{a}+{b}_tm1", f"{c}_dma1") for a, b, c in sets]
    return table(folder, rows, "Query strain ID\tArray strain ID\ttau")


def splits(path: Path, *folds: str) -> list[GraphProblem]:
    return [problem(TrainGraph(table=path, fold=fold)) for fold in folds]


def sets_of(one: GraphProblem, rows: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(row[row >= 0].tolist()) for row in one.members[rows]}


@pytest.mark.parametrize("fold", ["random", "1/3", "2/3", "3/3"])
@pytest.mark.parametrize("size", [2, 3])
def test_a_set_in_another_order_or_measured_again_is_held_out_with_the_first(tmp_path, size, fold):
    every = list(combinations(GENES, size))
    rng = np.random.default_rng(1)
    again = [tuple(rng.permutation(one).tolist()) for one in every]
    (one,) = splits(table(tmp_path, [*every, *again]), fold)
    test = sets_of(one, one.part == TEST)
    assert test
    assert not test & sets_of(one, one.known)
    both = len(every)
    assert np.array_equal(one.part[:both] == TEST, one.part[both:] == TEST)


def test_a_set_is_not_learnt_from_under_another_query(tmp_path):
    """A+B with C is the set of A+C with B, and A with B that of B with A."""
    trios = [(a, b, c) for a, b, c in combinations(GENES[:9], 3)]
    sets = [*trios, *((a, c, b) for a, b, c in trios)]
    sets += [(x, "YDL227C", y) for a, b in combinations(GENES, 2) for x, y in ((a, b), (b, a))]
    for one in splits(strains(tmp_path, sets), *(f"{k}/4" for k in range(1, 5))):
        test = sets_of(one, one.part == TEST)
        assert test
        assert not test & sets_of(one, one.known)


@pytest.mark.parametrize("named", [True, False])
def test_a_pair_called_never_seen_is_in_no_training_set(tmp_path, named):
    rng = np.random.default_rng(2)
    sets = [tuple(rng.choice(GENES, 3, replace=False).tolist()) for _ in range(150)]
    path = strains(tmp_path, sets) if named else table(tmp_path, sets)
    for one in splits(path, *(f"{k}/5" for k in range(1, 6))):
        learnt = sets_of(one, one.known)
        for number in np.unique(one.group[one.part == TEST]):
            rows = one.members[one.group == number]
            pair = set(rows[0][:2]) if named else set.intersection(*map(set, rows.tolist()))
            assert not any(pair <= members for members in learnt)


def test_what_is_left_out_is_told(vcell, tmp_path):
    rng = np.random.default_rng(2)
    sets = [tuple(rng.choice(GENES, 3, replace=False).tolist()) for _ in range(150)]
    path = strains(tmp_path, sets)
    ran = vcell("train-graph", path, "--model", "additive", "--fold", "1/5")
    assert ran.code == 0
    found = re.search(
        r"(\d+) sets to learn from, (\d+) held out, (\d+) left out because they contain a held-out",
        ran.err,
    )
    assert found
    assert sum(map(int, found.groups())) == 150


def test_controls_of_a_table_are_no_genes(tmp_path):
    """A+ctrl, ctrl+A and A are one set: held out together, also in folds of genes."""
    sets = [pair for gene in GENES for pair in ((gene, "ctrl"), ("ctrl", gene), (gene, ""))]
    path = table(tmp_path, [*sets, *combinations(GENES, 2)])
    for one in splits(path, "random", "1/3"):
        assert one.genes == tuple(GENES)
        alone = (one.part[: len(sets)] == TEST).reshape(-1, 3)
        assert np.array_equal(alone.any(1), alone.all(1))
    told = library.command("train-graph", path, model="additive", folds=2, runs=tmp_path / "runs")
    assert set(told["splits"]) == {"genes never seen", "random"}
