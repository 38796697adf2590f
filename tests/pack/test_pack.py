"""`vcell pack`: writes what the challenge's server reads, and refuses what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import zstandard

from tests.pack.conftest import CELLS, GENES, NAMES, prediction_2025, prediction_2026


def unpack(path) -> tuple[list[str], dict[str, bytes]]:
    """Read an archive as the server does: standard tar, standard zstandard."""
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    names = list(members)
    raw = members.pop("pred.h5ad.zst")
    members["pred.h5ad"] = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read()
    return names, members


def open_prediction(members, folder) -> ad.AnnData:
    (folder / "unpacked.h5ad").write_bytes(members["pred.h5ad"])
    return ad.read_h5ad(folder / "unpacked.h5ad")


def scanpys(cells: ad.AnnData) -> np.ndarray:
    """Counts scaled to the median total and logged, in float32, as scanpy writes it."""
    x = cells.X.toarray()
    totals = x.sum(axis=1)
    return np.log1p(x / (totals / np.median(totals[totals > 0]))[:, None])


class Test2025:
    def test_the_archive_is_a_tar_of_the_prediction_and_the_watermark(self, pack25, here):
        prediction_2025().write_h5ad(here.folder / "p.h5ad")
        ran = pack25("--json")
        assert ran.code == 0, ran.err
        names, members = unpack(here.folder / "p.vcc")
        assert names == ["pred.h5ad.zst", "watermark.txt"]
        assert members["watermark.txt"] == b"vcc-prep"
        assert ran.json["sha256"] == hashlib.sha256(members["pred.h5ad"]).hexdigest()

    def test_counts_are_converted_as_by_scanpy(self, pack25, here):
        cells = prediction_2025()
        cells.write_h5ad(here.folder / "p.h5ad")
        ran = pack25()
        assert "median total" in ran.err
        packed = open_prediction(unpack(here.folder / "p.vcc")[1], here.folder)
        assert sp.isspmatrix_csr(packed.X)
        assert packed.X.dtype == np.float32
        np.testing.assert_allclose(packed.X.toarray(), scanpys(cells), rtol=1e-6)
        assert list(packed.obs) == ["target_gene"]
        assert packed.obs_names.tolist() == [str(i) for i in range(cells.n_obs)]
        assert packed.obs["target_gene"].tolist() == cells.obs["target_gene"].tolist()
        assert packed.var_names.tolist() == GENES
        assert list(packed.var) == []

    def test_log_values_are_kept_bit_for_bit(self, pack25, here):
        cells = prediction_2025()
        cells.X = sp.csr_matrix(scanpys(cells))
        cells.write_h5ad(here.folder / "p.h5ad")
        assert pack25().code == 0
        packed = open_prediction(unpack(here.folder / "p.vcc")[1], here.folder)
        assert (packed.X != cells.X).nnz == 0

    def test_genes_out_of_order_are_put_in_order(self, pack25, here):
        cells = prediction_2025()
        cells[:, ::-1].copy().write_h5ad(here.folder / "p.h5ad")
        ran = pack25()
        assert "order of the list" in ran.out
        packed = open_prediction(unpack(here.folder / "p.vcc")[1], here.folder)
        assert packed.var_names.tolist() == GENES
        np.testing.assert_allclose(packed.X.toarray(), scanpys(cells), rtol=1e-6)

    def test_equal_predictions_give_equal_archives(self, pack25, here):
        prediction_2025().write_h5ad(here.folder / "p.h5ad")
        pack25()
        first = (here.folder / "p.vcc").read_bytes()
        assert "--overwrite" in pack25().err
        assert pack25("--overwrite").code == 0
        assert (here.folder / "p.vcc").read_bytes() == first

    def test_controls_are_needed(self, pack25, here):
        cells = prediction_2025()
        cells[cells.obs["target_gene"] != "non-targeting"].copy().write_h5ad(here.folder / "p.h5ad")
        refused(pack25(), "no non-targeting cells", here)

    def test_the_number_of_genes_is_checked_without_a_list(self, here):
        prediction_2025().write_h5ad(here.folder / "p.h5ad")
        refused(here("pack", "p.h5ad", "-o", "p.vcc"), "30 genes; the challenge has 18,080", here)

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (np.nan, "not finite"),
            (np.inf, "not finite"),
            (-1.0, "negative"),
            (15.5, "15 or more"),
        ],
    )
    def test_values_impossible_for_log1p(self, pack25, here, value, said):
        cells = prediction_2025()
        cells.X = sp.csr_matrix(scanpys(cells))
        cells.X.data[50] = value
        cells.write_h5ad(here.folder / "p.h5ad")
        refused(pack25(), said, here)


def refused(ran, said: str, here) -> None:
    """Expect one clear message, exit code 2, and no output."""
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    left = {p.name for p in here.folder.iterdir()}
    assert left <= {"genes.csv", "perts.csv", "p.h5ad", "a.h5ad", "b.h5ad"}, left


class Test2026:
    def test_the_archive_leads_with_its_description(self, pack26, here):
        cells = prediction_2026()
        cells.write_h5ad(here.folder / "p.h5ad")
        ran = pack26()
        assert ran.code == 0, ran.err
        names, members = unpack(here.folder / "p.vcc")
        assert names == ["meta.json", "pred.h5ad.zst"]
        meta = json.loads(members["meta.json"])
        names = "\n".join(sorted(NAMES)).encode()
        assert meta["schema"] == 1
        assert (meta["n_obs"], meta["n_vars"], meta["nnz"]) == (*cells.shape, cells.X.nnz)
        assert meta["contexts"] == ["A", "B"]
        assert meta["perts_fingerprint"] == "sha256:" + hashlib.sha256(names).hexdigest()
        packed = open_prediction(members, here.folder)
        assert (packed.X != cells.X).nnz == 0
        assert list(packed.obs) == ["target_gene", "context"]
        assert packed.obs["context"].tolist() == cells.obs["context"].tolist()

    def test_contexts_may_come_from_files_of_their_own(self, here, pack26):
        cells = prediction_2026()
        for name in "AB":
            part = cells[cells.obs["context"] == name].copy()
            part.write_h5ad(here.folder / f"{name.lower()}.h5ad")
        ran = pack26("b.h5ad", file="a.h5ad")
        assert ran.code == 0, ran.err
        packed = open_prediction(unpack(here.folder / "p.vcc")[1], here.folder)
        assert (packed.X != cells.X).nnz == 0
        assert packed.obs["context"].tolist() == cells.obs["context"].tolist()

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda c: c[:0].copy(), "no cells"),
            (lambda c: c[c.obs["context"] == "A"].copy(), "no cells for context B"),
            (lambda c: relabel(c, "context", "B", "Z"), "unknown contexts Z"),
            (lambda c: c[:-1].copy(), "context B: 1 wrong numbers of cells: CCC has 3, not 4"),
            (lambda c: relabel(c, "target_gene", "AAA", "AAA-1"), "without -1"),
            (lambda c: relabel(c, "target_gene", "AAA", "DDD"), "not predicted: AAA"),
            (lambda c: relabel(c, "target_gene", "AAA", "non-targeting"), "takes none"),
            (lambda c: c[:, :-1].copy(), "1 gene of the list is missing: G29"),
            (lambda c: rename(c, "G29", "X"), "1 gene is not on the list: X"),
            (lambda c: rename(c, "G29", "G28"), "named more than once: G28"),
            (lambda c: drop(c, "target_gene"), "no column 'target_gene'"),
            (lambda c: drop(c, "context"), "--context-column"),
            (lambda c: put(c, 7, np.nan), "not finite"),
            (lambda c: put(c, 7, -2), "negative"),
            (lambda c: put(c, 7, 2.5), "not whole numbers"),
            (lambda c: put(c, 7, 2e6), "more than 1,000,000 counts"),
            (lambda c: silence(c, "BBB"), "zero in every cell and gene: A BBB, B BBB"),
        ],
    )
    def test_what_the_server_refuses_is_refused_here(self, pack26, here, spoil, said):
        spoil(prediction_2026()).write_h5ad(here.folder / "p.h5ad")
        refused(pack26(), said, here)

    def test_too_many_cells(self, pack26, here):
        prediction_2026().write_h5ad(here.folder / "p.h5ad")
        refused(pack26("--max-cells", 20), "24 cells; at most 20", here)

    def test_all_label_errors_are_listed_together(self, pack26, here):
        cells = rename(prediction_2026()[:-1].copy(), "G29", "X")
        cells.write_h5ad(here.folder / "p.h5ad")
        ran = pack26()
        assert "not on the list: X" in ran.err
        assert "wrong numbers of cells" in ran.err

    def test_check_looks_at_a_prediction_before_it_is_packed(self, pack26, here):
        prediction_2026().write_h5ad(here.folder / "p.h5ad")
        ran = pack26("--check")
        assert ran.code == 0, ran.err
        assert "would be accepted" in ran.out
        assert not (here.folder / "p.vcc").exists()


def test_the_density_limit_is_the_servers():
    from vcell_pack.checks import too_dense
    from vcell_pack.formats import FORMATS

    form = FORMATS["vcc2026"]
    size = 360_000 * 18_533
    assert too_dense(4_750_000_000, size, form) == []
    assert "71% of this matrix" in too_dense(4_750_000_001, size, form)[0]


@pytest.mark.parametrize("header", ["", "gene_name\n"])
def test_gene_lists_of_both_years_are_read(tmp_path, header):
    from pathlib import Path

    from vcell_pack.formats import read_genes

    path = Path(tmp_path) / "genes.csv"
    path.write_text(header + "A\nB\n")
    assert read_genes(path) == ["A", "B"]


def test_the_output_is_never_the_input(here):
    prediction_2025().write_h5ad(here.folder / "p.h5ad")
    before = (here.folder / "p.h5ad").read_bytes()
    ran = here("pack", "p.h5ad", "-o", "p.h5ad", "--overwrite", "--genes", "genes.csv")
    assert ran.code == 2
    assert (here.folder / "p.h5ad").read_bytes() == before


def relabel(cells, column, old, new):
    cells.obs[column] = cells.obs[column].astype(str).replace(old, new)
    return cells


def rename(cells, old, new):
    cells.var_names = [new if name == old else name for name in cells.var_names]
    return cells


def drop(cells, column):
    del cells.obs[column]
    return cells


def put(cells, index, value):
    cells.X.data[index] = value
    return cells


def silence(cells, name):
    keep = (cells.obs["target_gene"] != name).to_numpy()
    cells.X = sp.csr_matrix(sp.diags(keep.astype(np.float32)) @ cells.X)
    return cells


assert CELLS == 4  # the messages above name it
