"""The members, the baseline and the replicate are cell-eval2's (benchmarks/parity_2026.py)."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import scipy.sparse as sp

from tests.metrics.cells import CONTROL, GOLDEN, blocks, measured, numbered
from vcell.metrics import vcc2026
from vcell.metrics.by_gene import GeneMajor, ResampledCells

CASES = sorted(path.stem.removeprefix("vcc2026-") for path in GOLDEN.glob("vcc2026-*.npz"))


class Case:
    """One golden file, measured."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"vcc2026-{name}.npz", allow_pickle=False) as stored:
            self.golden = dict(stored)
        self.genes = self.golden["genes"]
        self.real, self.pred = self.matrix("real"), self.matrix("pred")
        self.names, self.group = numbered(self.golden["real_labels"])
        _, self.pred_group = numbered(self.golden["pred_labels"])
        place = {gene: i for i, gene in enumerate(self.genes.tolist())}
        self.target = np.array([place.get(name, -1) for name in self.names])
        self.whole = self.measure(self.group)

    def matrix(self, side: str) -> sp.csr_matrix:
        parts = (self.golden[f"{side}_{key}"] for key in ("data", "indices", "indptr"))
        data, indices, indptr = parts
        shape = (len(indptr) - 1, len(self.genes))
        return sp.csr_matrix((data.astype(np.float32), indices.astype(np.int32), indptr), shape)

    def measure(self, group: np.ndarray) -> vcc2026.Measured:
        return measured(self.real, group, len(self.names) + 1)

    def with_real_controls(self, x: sp.csr_matrix, group: np.ndarray) -> vcc2026.Measured:
        both = sp.vstack([self.real[self.group == 0], x]).tocsr()
        groups = np.concatenate([np.zeros((self.group == 0).sum(), np.int32), group])
        return measured(both, groups, len(self.names) + 1)

    def members(self, side: vcc2026.Measured):
        return vcc2026.members(self.whole, side, self.target, self.genes)


@pytest.fixture(params=CASES, scope="module")
def case(request) -> Case:
    return Case(request.param)


def test_there_are_golden_files():
    assert CASES == [
        "copied", "dense", "hollow", "plain", "quiet", "single", "sparse", "tied", "tiled",
        "unbalanced",
    ]  # fmt: skip


def test_members_of_a_prediction(case):
    rows, values = case.members(case.with_real_controls(case.pred, case.pred_group))
    for name in vcc2026.MEMBERS:
        np.testing.assert_allclose(
            values[name], case.golden.get(f"mean_{name}", np.nan), rtol=1e-8, err_msg=name
        )
        if name != vcc2026.MSE:
            np.testing.assert_allclose(
                rows[name], case.golden[f"pert_{name}"], rtol=1e-8, err_msg=name
            )


def test_cells_without_any_effect_have_no_expression_error():
    """The peer refuses them: what is left of the real effects after noise is not positive."""
    case = Case("plain")
    controls = case.real[case.group == 0]
    n = len(case.names)
    x = sp.vstack([controls] * (n + 1)).tocsr()
    group = np.repeat(np.arange(n + 1, dtype=np.int32), controls.shape[0])
    silent = measured(x, group, n + 1)
    values = vcc2026.members(silent, silent, case.target, case.genes)[1]
    assert np.isnan(values[vcc2026.MSE])
    assert np.isnan(values[vcc2026.NMAE])
    assert np.isnan(values[vcc2026.FIDELITY])
    assert values[vcc2026.JACCARD] == 1
    assert values[vcc2026.PDS] == 0.5


def test_baseline(case):
    if f"base_{vcc2026.PDS}" not in case.golden:
        pytest.skip("a mean response needs two perturbations")
    factor = vcc2026.baseline_scale(case.whole.means, case.target)
    controls, sizes = np.flatnonzero(case.group == 0), case.whole.sizes[1:]
    group = np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes)
    with closing(GeneMajor(len(case.genes))) as cells:
        for block in blocks(case.real, controls)():
            cells.add(block)
        drawn = vcc2026.draws(controls, sizes)
        copies = ResampledCells.draw(cells, factor, drawn, len(case.group))
        found = copies.read(0, len(case.genes))
    x = sp.csc_matrix(
        (found.value, found.cell - len(case.group), found.first), (len(group), len(case.genes))
    )
    _, values = case.members(case.with_real_controls(x.tocsr(), group))
    for name in vcc2026.MEMBERS:
        np.testing.assert_allclose(
            values[name], case.golden[f"base_{name}"], rtol=1e-8, atol=1e-12, err_msg=name
        )


def test_every_split_of_the_replicate(case):
    if f"split_{vcc2026.PDS}" not in case.golden:
        pytest.skip("the peer has no replicate here")
    labels = np.array([CONTROL, *case.names])
    order = np.argsort(labels)  # the peer draws by the order of the labels
    own = np.zeros((len(case.names), len(case.genes)), bool)
    own[np.arange(len(case.names)), case.target] = True
    for split, seed in enumerate(vcc2026.split_seeds()):
        first, second = (
            case.measure(half) for half in vcc2026.halves(case.group, order.tolist(), seed)
        )
        values = vcc2026.members(first, second, case.target, case.genes)[1]
        error = vcc2026.nmae(case.whole, second.lfc, second.tested, first, own)
        values[vcc2026.NMAE] = vcc2026.mean(error)
        for name in vcc2026.MEMBERS:
            np.testing.assert_allclose(
                values[name], case.golden[f"split_{name}"][split], rtol=1e-8, err_msg=name
            )
