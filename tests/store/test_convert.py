"""`vcell convert`: whatever the layout, anndata reads the same cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.sparse import csr_matrix, issparse
from scipy.sparse import random as random_sparse

from vcell.errors import UserError
from vcell.store.converting import ConversionPlan, convert

if TYPE_CHECKING:
    from tests.conftest import Ran


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with everything that anndata stores."""
    path = tmp_path_factory.mktemp("rich") / "rich.h5ad"
    x = random_sparse(300, 80, 0.2, "csr", dtype="f4", random_state=0)
    adata = ad.AnnData(
        x,
        obs=pd.DataFrame(
            {"kind": pd.Categorical(["a", "b", "c"] * 100), "n": np.arange(300)},
            index=[f"c{i}" for i in range(300)],
        ),
        var=pd.DataFrame({"long": np.arange(80.0)}, index=[f"g{i}" for i in range(80)]),
        layers={"counts": csr_matrix((x > 0).astype("i4"))},
        obsm={"X_pca": np.random.default_rng(0).normal(size=(300, 5))},
        uns={"note": "hello", "params": {"k": 3}},
    )
    adata.raw = adata[:, :70].copy()
    adata.write_h5ad(path)
    return path


def read(path: Path) -> ad.AnnData:
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.io.read_zarr(path)


def table(x: Any) -> np.ndarray:
    return x.toarray() if issparse(x) else np.asarray(x)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_every_layout_holds_the_same(rich: Path, tmp_path: Path, suffix: str, form: Any) -> None:
    first, want = tmp_path / f"a{suffix}", ad.read_h5ad(rich)
    convert(rich, first, ConversionPlan(form=form, chunk=500, shard=2000))
    back = tmp_path / "back.h5ad"
    convert(first, back, ConversionPlan())
    for got in (read(first), read(back)):
        assert (table(got.X) == table(want.X)).all()
        assert got.X.dtype == want.X.dtype
        assert (table(got.layers["counts"]) == table(want.layers["counts"])).all()
        assert (table(got.raw.X) == table(want.raw.X)).all()
        assert got.raw.var_names.tolist() == want.raw.var_names.tolist()
        pd.testing.assert_frame_equal(got.obs, want.obs)
        pd.testing.assert_frame_equal(got.var, want.var)
        assert (got.obsm["X_pca"] == want.obsm["X_pca"]).all()
        assert got.uns["params"]["k"] == 3
    kind = type(read(first).X).__name__
    assert kind.startswith(form) if form != "dense" else kind == "ndarray"


@pytest.mark.parametrize("compression", ["gzip", "lzf", "none"])
def test_h5ad_is_compressed_and_chunked_as_asked(
    rich: Path, tmp_path: Path, compression: Any
) -> None:
    convert(rich, tmp_path / "o.h5ad", ConversionPlan(compression=compression, chunk=1000))
    with h5py.File(tmp_path / "o.h5ad") as file:
        assert file["X/data"].compression == (None if compression == "none" else compression)
        assert file["X/data"].chunks == (1000,)
    assert (table(read(tmp_path / "o.h5ad").X) == table(ad.read_h5ad(rich).X)).all()


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd", "none"])
@pytest.mark.parametrize("shard", [0, 3000])
def test_zarr_is_compressed_and_sharded_as_asked(
    rich: Path, tmp_path: Path, compression: Any, shard: int
) -> None:
    convert(
        rich, tmp_path / "o.zarr", ConversionPlan(compression=compression, chunk=1000, shard=shard)
    )
    data = zarr.open_group(tmp_path / "o.zarr", mode="r")["X/data"]
    assert data.chunks == (1000,)
    assert data.shards == ((3000,) if shard else None)
    assert (table(read(tmp_path / "o.zarr").X) == table(ad.read_h5ad(rich).X)).all()


def test_by_gene_in_several_passes(
    rich: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vcell.store.matrices._AT_ONCE", 1000)
    convert(rich, tmp_path / "o.h5ad", ConversionPlan(form="csc"))
    assert (table(read(tmp_path / "o.h5ad").X) == table(ad.read_h5ad(rich).X)).all()
    assert "passes over the input" in capsys.readouterr().err


def test_no_cells_and_no_genes_convert(tmp_path: Path) -> None:
    for n, g in ((0, 5), (5, 0)):
        ad.AnnData(csr_matrix((n, g), dtype="f4")).write_h5ad(tmp_path / "e.h5ad")
        for form in ("csr", "csc", "dense"):
            convert(
                tmp_path / "e.h5ad", tmp_path / "e.zarr", ConversionPlan(form=form), overwrite=True
            )
            assert read(tmp_path / "e.zarr").shape == (n, g)


def test_the_command_and_its_refusals(
    rich: Path, tmp_path: Path, vcell: Callable[..., Ran]
) -> None:
    done = vcell("convert", rich, "o.zarr", "--to", "csc", "--json")
    assert done.code == 0, done.err
    assert done.json["matrices"] == ["X", "layers/counts", "raw/X"]
    again = vcell("convert", rich, "o.zarr")
    assert again.code == 2
    assert "o.zarr exists" in again.err
    with pytest.raises(UserError, match="zarr has no lzf"):
        convert(rich, tmp_path / "p.zarr", ConversionPlan(compression="lzf"))
    with pytest.raises(UserError, match=r"an \.h5ad file or a \.zarr folder"):
        convert(rich, tmp_path / "p.txt", ConversionPlan())
    assert [path.name for path in tmp_path.iterdir()] == ["o.zarr"]


@pytest.mark.parametrize("name", ["..", "zarr.json"])
def test_a_column_cannot_leave_its_folder(
    tmp_path: Path, vcell: Callable[..., Ran], name: str
) -> None:
    cells = ad.AnnData(csr_matrix(np.ones((30, 4), "f4")))
    cells.obs["x"] = np.arange(30)
    cells.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        file["obs"].move("x", name)
        file["obs"].attrs["column-order"] = np.array([name], object)
    for command in (["convert", "a.h5ad", "b.zarr"], ["prepare", "a.h5ad", "-o", "b.zarr"]):
        done = vcell(*command)
        assert done.code == 2
        assert f"obs has a column '{name}', which cannot be a name in zarr" in done.err
        assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]
