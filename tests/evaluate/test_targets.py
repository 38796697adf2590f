"""Perturbations whose names are not those of the genes that they target.

Scores stay those of cell-eval, which knows names only; what a reader would not expect is said.
"""

from __future__ import annotations

import anndata as ad
import pytest

from tests.evaluate.conftest import GENES, TARGETS, screen

ALIAS, SINGLE, PAIR, PLAIN = "MARCH8", "G017+ctrl", "G040+G077", "G077"


def renamed(seed: int, labels: dict[str, str], genes: dict[str, str] | None = None) -> ad.AnnData:
    """Return the screen with other labels of its perturbations, and other names of its genes."""
    cells = screen(seed)
    cells.obs["target_gene"] = cells.obs["target_gene"].astype(str).replace(labels)
    cells.var_names = [(genes or {}).get(gene, gene) for gene in GENES]
    return cells


@pytest.fixture
def odd(here):
    """The command line beside real cells and a prediction with odd names."""
    labels = dict(zip(TARGETS, (ALIAS, SINGLE, PAIR, PLAIN), strict=True))
    for seed, name in ((1, "real.h5ad"), (2, "pred.h5ad")):
        renamed(seed, labels, {"G005": "MARCHF8"}).write_h5ad(here.folder / name)
    return here


@pytest.mark.parametrize("rules", ["vcc2025", "vcc2026"])
def test_own_genes_that_are_not_left_out_are_named_once(odd, rules):
    said = f"not left out: {SINGLE} (G017), {PAIR} (G040, G077), {ALIAS} (MARCHF8)\n"
    ran = odd("evaluate", "pred.h5ad", "real.h5ad", "--rules", rules, "-o", "out", "--json")
    assert ran.code == 0
    assert ran.err.count(said) == 1
    (note,) = ran.json["detected"]["all cells"]["notes"]
    assert note.startswith("as in cell-eval, a target gene is left out only if it has")
    assert note.endswith(said.strip())
    assert "not left out" in (odd.folder / "out" / "index.html").read_text()


def test_it_is_said_once_for_all_contexts(odd):
    for name in ("real.h5ad", "pred.h5ad"):
        cells = ad.read_h5ad(odd.folder / name)
        cells.obs["context"] = ["x" if i % 2 else "y" for i in range(cells.n_obs)]
        cells.write_h5ad(odd.folder / name)
    ran = odd("evaluate", "pred.h5ad", "real.h5ad")
    assert ran.code == 0
    assert ran.err.count("not left out") == 1


def test_names_of_genes_need_no_words(here):
    ran = here("evaluate", "pred.h5ad", "real.h5ad", "--json")
    assert ran.json["detected"]["all cells"]["notes"] == []


def test_perturbations_of_the_same_targets_are_named(here):
    labels = {"G005": "G040+ctrl", "G017": "ctrl+G040", "G077": "g040"}
    renamed(1, labels).write_h5ad(here.folder / "real.h5ad")
    ran = here("evaluate", "real.h5ad", "real.h5ad")
    assert ran.code == 0
    assert "count as different ones: 'G040' and 'G040+ctrl' and 'ctrl+G040' and 'g040'" in ran.err


def test_the_same_pair_in_another_order_is_suggested(here):
    renamed(1, {"G005": "G001+G002", "G017": "G003+ctrl"}).write_h5ad(here.folder / "real.h5ad")
    renamed(2, {"G005": "G002+G001", "G017": "ctrl+G003"}).write_h5ad(here.folder / "pred.h5ad")
    ran = here("evaluate", "pred.h5ad", "real.h5ad")
    assert ran.code == 2
    assert "misspelt? G001+G002 ~ G002+G001, G003+ctrl ~ ctrl+G003" in ran.err
