"""Every kind of file gives the same cells, in blocks of any size, rows and columns chosen."""

from __future__ import annotations

from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from tests.data import builders
from tests.data.kinds import KINDS, TABLE, h5ad, in_zarr, rewritten, sharded
from vcell import console
from vcell.data import arrays, by_gene, chunked, decode, open_cells, spill, tenx
from vcell.errors import UserError


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def _all(blocks: Any) -> np.ndarray:
    return np.concatenate([block.toarray() for block in blocks])


def test_all_cells_come_once_whatever_the_size_of_blocks(kind, tmp_path):
    with open_cells(KINDS[kind](tmp_path)) as source:
        assert (source.n_cells, source.n_genes) == TABLE.shape
        assert source.genes.tolist()[:2] == ["Gene0", "Gene1"]
        assert source.cells[3] == "cell 3"
        for max_nnz in (1, 7, 100, 10**6):
            blocks = list(source.chunks(max_nnz=max_nnz))
            assert np.array_equal(_all(blocks), TABLE)
            assert np.concatenate([b.rows for b in blocks]).tolist() == list(range(len(TABLE)))
            # Bounded: a block of several rows keeps within the bound.
            assert all(b.nnz <= max_nnz or len(b) == 1 for b in blocks)


def test_blocks_are_canonical_csr_with_the_promised_types(kind, tmp_path):
    with open_cells(KINDS[kind](tmp_path)) as source:
        for block in source.chunks(max_nnz=50):
            assert (block.indptr.dtype, block.indices.dtype) == (np.int64, np.int32)
            assert block.data.dtype == np.float32
            assert block.indptr[0] == 0
            assert block.indptr[-1] == len(block.indices) == len(block.data)
            assert block.tocsr().has_canonical_format
            assert (block.data != 0).all()
        assert next(source.chunks(dtype="stored")).data.dtype == source.dtype


def test_rows_and_columns_are_chosen_before_reading(kind, tmp_path):
    rng = np.random.default_rng(1)
    with open_cells(KINDS[kind](tmp_path)) as source:
        for _ in range(5):
            rows = np.flatnonzero(rng.random(len(TABLE)) < rng.random())
            genes = rng.permutation(TABLE.shape[1])[: rng.integers(0, 20)]
            blocks = list(source.chunks(rows, genes, max_nnz=int(rng.integers(1, 60))))
            got = _all(blocks) if blocks else np.zeros((0, len(genes)))
            assert np.array_equal(got, TABLE[rows][:, genes])
            for block in blocks:
                assert block.tocsr().has_canonical_format
        assert np.array_equal(_all(source.chunks(slice(10, 31))), TABLE[10:31])
        mask = TABLE.sum(axis=1) > 10
        assert np.array_equal(_all(source.chunks(mask)), TABLE[mask])


def test_blocks_stay_valid_while_they_are_held(tmp_path):
    """Buffers are used again, but never one that somebody still refers to."""
    table = builders.counts(400, 50)
    path = tmp_path / "cells.h5ad"
    builders.annotated(table).write_h5ad(path, compression="gzip")
    with open_cells(path) as source:
        held = list(source.chunks(max_nnz=200))
        views = [block.data[1:] for block in source.chunks(max_nnz=200)]
    assert np.array_equal(_all(held), table)
    assert np.array_equal(np.concatenate(views), np.concatenate([block.data[1:] for block in held]))


@pytest.mark.parametrize("name", decode.INFLATERS)
def test_every_inflater_reads_the_same(name, tmp_path, monkeypatch):
    if name != "zlib":
        pytest.importorskip(name)
    monkeypatch.setattr(decode, "INFLATERS", (name,))
    decode.decoder.cache_clear()
    try:
        with open_cells(rewritten(chunks=(20,), compression="gzip", shuffle=True)(tmp_path)) as s:
            assert np.array_equal(_all(s.chunks(max_nnz=33)), TABLE)
    finally:
        decode.decoder.cache_clear()


@pytest.mark.parametrize("codec", ["Zstd", "Blosc", "LZ4", "Bitshuffle"])
@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_plugin_compressions_are_read(codec, layout, tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "cells.h5ad"
    form = sp.csr_matrix if layout == "csr" else np.asarray
    builders.annotated(TABLE, form).write_h5ad(path)
    with h5py.File(path, "a") as file:
        for name in ("data", "indices") if layout == "csr" else ("X",):
            parent = file["X"] if layout == "csr" else file
            values, attrs = parent[name][...], dict(parent[name].attrs)
            del parent[name]
            options = {"compression": getattr(hdf5plugin, codec)(), "chunks": True}
            parent.create_dataset(name, data=values, **options).attrs.update(attrs)
    with open_cells(path) as source:
        assert np.array_equal(_all(source.chunks(max_nnz=33)), TABLE)


def test_plugins_are_loaded_when_a_file_needs_them(vcell, tmp_path):
    """Names compressed by a plugin can only be read by HDF5, which must be told of the plugin."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "cells.h5ad"
    options = hdf5plugin.Bitshuffle()
    builders.annotated(TABLE).write_h5ad(
        path, compression=options.filter_id, compression_opts=options.filter_options
    )
    ran = vcell("inspect", path, "--json")
    assert ran.code == 0, ran.err
    assert "bitshuffle" in ran.json["compression"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("big-endian", "big-endian"), ("skipped filter", "skip a filter"), ("fletcher32", "filter 3"),
     ("dense, chunks never written", "never written")],
)  # fmt: skip
def test_a_slower_way_is_said(kind, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console.settings, "verbosity", console.VERBOSE)
    with open_cells(KINDS[kind](tmp_path)) as source:
        list(source.chunks())
    assert reason in capsys.readouterr().err


def test_a_pass_over_a_long_file_lists_its_chunks(tmp_path, monkeypatch):
    """Each block is a small share of the file, and yet HDF5 must not read all of them."""
    monkeypatch.setattr(chunked, "LONG_LIST", 100)
    table = builders.counts(600)
    path = tmp_path / "cells.h5ad"
    builders.annotated(table).write_h5ad(path)
    with h5py.File(path, "a") as file:
        for name in ("data", "indices"):
            values = file["X"][name][...]
            del file["X"][name]
            file["X"].create_dataset(name, data=values, chunks=(4,))
    asked = []
    tasks = arrays.PlainArray.tasks
    monkeypatch.setattr(arrays.PlainArray, "tasks", lambda *how: asked.append(how) or tasks(*how))
    with open_cells(path) as source:
        blocks = list(source.chunks(max_nnz=40))
    assert np.array_equal(_all(blocks), table)
    assert 0 < len(asked) <= 4 < len(blocks)  # of both arrays, before their chunks are listed


@pytest.mark.parametrize("kind", ["csc gzip", "zarr 3 csc", "10x mtx.gz"])
def test_what_is_not_stored_by_cell_goes_through_a_temporary_file(
    kind, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(by_gene, "IN_MEMORY", 20)
    monkeypatch.setattr(by_gene, "RUN_NNZ", 30)
    monkeypatch.setattr(tenx, "IN_MEMORY", 20)
    monkeypatch.setattr(tenx, "TEXT_PIECE", 100)
    monkeypatch.setattr(spill, "BUCKET", 25)
    with open_cells(KINDS[kind](tmp_path)) as source:
        for max_nnz in (7, 60, 1000):
            assert np.array_equal(_all(source.chunks(max_nnz=max_nnz)), TABLE)
        genes = np.array([20, 3, 4])
        assert np.array_equal(_all(source.chunks(genes=genes)), TABLE[:, genes])
    assert "temporary file" in capsys.readouterr().err


def test_columns_of_a_csc_matrix_are_read_alone(tmp_path):
    """Choosing genes of a matrix stored by gene reads only those genes."""
    with open_cells(h5ad(sp.csc_matrix, None)(tmp_path)) as source:
        genes = np.array([4, 9])
        list(source.chunks(genes=genes))
        assert source.matrix._transposed[genes.tobytes()].indptr[-1] == np.count_nonzero(
            TABLE[:, genes]
        )


def test_raw_and_layers_are_read_with_their_own_genes(tmp_path):
    whole = builders.annotated(TABLE)
    small = whole[:, :10].copy()
    small.raw = whole
    small.layers["counts"] = small.X * 2
    small.write_h5ad(tmp_path / "c.h5ad")
    for cells in (tmp_path / "c.h5ad", small):
        with open_cells(cells, "raw") as source:
            assert np.array_equal(_all(source.chunks()), TABLE)
            assert len(source.genes) == TABLE.shape[1]
        with open_cells(cells, "counts") as source:
            assert np.array_equal(_all(source.chunks()), TABLE[:, :10] * 2)
        with pytest.raises(UserError, match=r"no layer 'cuonts' \(did you mean counts\?\)"):
            open_cells(cells, "cuonts")


def test_a_backed_anndata_is_read_from_its_file(tmp_path):
    backed = anndata.read_h5ad(h5ad(sp.csr_matrix, "gzip")(tmp_path), backed="r")
    with open_cells(backed) as source:
        assert np.array_equal(_all(source.chunks()), TABLE)
    backed.file.close()


def test_errors_in_the_reading_thread_reach_the_reader(tmp_path):
    path = rewritten(chunks=(20,), compression="gzip")(tmp_path)
    with open_cells(path) as source:
        info = h5py.File(path)["X/data"].id.get_chunk_info(2)
        with path.open("r+b") as file:
            file.seek(info.byte_offset)
            file.write(b"\xff" * info.size)
        with pytest.raises(UserError, match="X/data, chunk 2"):
            list(source.chunks())


def test_readers_can_be_left_early_and_run_side_by_side(tmp_path):
    with open_cells(rewritten(chunks=(7,), compression="gzip")(tmp_path)) as source:
        first = source.chunks(max_nnz=5)
        next(first)
        second = source.chunks(max_nnz=11)
        pairs = [next(second), next(first), next(second)]
        assert [block.start for block in pairs][1] > 0
        first.close()
        assert np.array_equal(_all(source.chunks(max_nnz=9)), TABLE)


def test_two_readers_of_one_matrix_stored_by_gene(tmp_path, monkeypatch):
    monkeypatch.setattr(by_gene, "IN_MEMORY", 20)
    monkeypatch.setattr(spill, "BUCKET", 25)
    with open_cells(h5ad(sp.csc_matrix, None)(tmp_path)) as source:
        genes = np.array([4, 9, 2])
        pairs = zip(source.chunks(max_rows=3), source.chunks(genes=genes, max_rows=3), strict=True)
        for whole, part in pairs:
            assert np.array_equal(whole.toarray()[:, genes], part.toarray())


def test_several_anndata_in_memory_are_one():
    halves = [builders.annotated(TABLE[:30]), builders.annotated(TABLE[30:])]
    with open_cells(halves) as source:
        assert np.array_equal(_all(source.chunks()), TABLE)


@pytest.mark.parametrize("codec", ["blosc", "checked", "zstd", "gzip", "holes", "lost"])
def test_shards_are_read_beside_zarr_where_that_is_safe(codec, tmp_path, monkeypatch):
    import zarr
    from zarr import codecs

    from vcell.data import arrays, sharded

    compressor: Any = {
        "zstd": codecs.ZstdCodec(), "gzip": codecs.GzipCodec(),
        "checked": [codecs.BloscCodec(), codecs.Crc32cCodec()],
    }  # fmt: skip
    path = in_zarr(sp.csr_matrix, 3)(tmp_path)
    group = zarr.open_group(path / "X", mode="r+")
    expected = {}
    for name in ("data", "indices"):
        values = expected[name] = group[name][...]
        if codec == "holes" and name == "data":
            values[32:80] = 0  # a whole chunk of zeros is not written
        del group[name]
        group.create_array(
            name, data=values, chunks=(16,), shards=(64,),
            compressors=compressor.get(codec, codecs.BloscCodec()),
        )  # fmt: skip
    if codec == "lost":
        (path / "X/data/c/1").unlink()
        expected["data"][64:128] = 0
    by_zarr = []
    real = arrays.PlainArray.tasks
    monkeypatch.setattr(
        arrays.PlainArray, "tasks", lambda self, *a: (by_zarr.append(self.where), real(self, *a))[1]
    )
    with open_cells(path) as source:
        kinds = {type(source.matrix.data), type(source.matrix.indices)}
        table = np.concatenate([block.toarray() for block in source.chunks(max_nnz=50)])
    group = zarr.open_group(path / "X", mode="r")
    parts = (expected["data"], expected["indices"], group["indptr"][...])
    np.testing.assert_array_equal(table, sp.csr_matrix(parts, table.shape).toarray())
    assert (kinds == {sharded.ShardedArray}) == (codec != "gzip")
    by = {where.rsplit("/", 1)[1] for where in by_zarr}
    beside: dict[str, set[str]] = {key: set() for key in ("blosc", "checked", "zstd")}
    assert by == (beside | {"gzip": {"data", "indices"}}).get(codec, {"data"})


def test_a_bit_that_flipped_in_a_checked_chunk_is_one_sentence(tmp_path):
    from zarr import codecs

    path = sharded(tmp_path, [codecs.BloscCodec(), codecs.Crc32cCodec()])
    shard = path / "X/data/c/0"
    coded = bytearray(shard.read_bytes())
    coded[20] ^= 1
    shard.write_bytes(coded)
    with open_cells(path) as source, pytest.raises(UserError, match="does not match its checksum"):
        list(source.chunks())


def test_a_damaged_shard_is_one_sentence(tmp_path):
    path = sharded(tmp_path)
    shard = path / "X/data/c/0"
    shard.write_bytes(shard.read_bytes()[:-30])  # the index is gone
    with open_cells(path) as source, pytest.raises(UserError, match=r"shard 0|chunk"):
        list(source.chunks())


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
def test_half_precision_is_read_although_no_kernel_knows_it(form, vcell, tmp_path, monkeypatch):
    from vcell.data import block, by_gene

    table, path = builders.counts(60, 20), tmp_path / "half.h5ad"
    builders.annotated(table, form).write_h5ad(path)
    with h5py.File(path, "a") as file:
        values = file["X/data"][...].astype(np.float16)
        del file["X/data"]
        file["X/data"] = values
    monkeypatch.setattr(block, "COMPILED_FROM", 0)
    monkeypatch.setattr(by_gene, "IN_MEMORY", 0)
    with open_cells(path) as source:
        found = np.concatenate([b.toarray() for b in source.chunks(dtype="stored")])
    np.testing.assert_array_equal(found, table)
    assert vcell("inspect", path, "--full", "--json").json["qc"]["cells_seen"] == 60


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, bool])
def test_large_and_small_blocks_are_looked_at_alike(dtype, monkeypatch):
    from vcell.data import block

    rng = np.random.default_rng(0)
    for _ in range(40):
        lengths = rng.integers(0, 6, 8)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        indices = rng.integers(0, 9, indptr[-1]).astype(np.int32)
        if rng.random() < 0.5:  # in order, perhaps without repeats
            rows = [np.sort(part) for part in np.split(indices, indptr[1:-1])]
            indices = np.concatenate(rows).astype(np.int32)
        csr = block.Csr(indptr, indices, rng.integers(0, 3, indptr[-1]).astype(dtype))
        found = []
        for size in (-1, 1 << 18):
            monkeypatch.setattr(block, "COMPILED_FROM", size)
            found.append(block._faults(csr))
        assert found[0] == found[1]
