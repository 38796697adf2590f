"""vcell's own writer of zarr nodes: zarr reads the same, and would have written the same files."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import zarr

from vcell.data.elements import note, write_array, write_booleans, write_categories, write_texts
from vcell.data.texts import PIECE
from vcell.data.zarr_writing import CHUNK, ZarrGroup, consolidate

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore::FutureWarning")
RANDOM = np.random.default_rng(0)
NUMBERS = {
    "int8": RANDOM.integers(-9, 9, 50).astype(np.int8),
    "uint16": RANDOM.integers(0, 99, 50).astype(np.uint16),
    "int64": RANDOM.integers(-(10**12), 10**12, 50),
    "float32": RANDOM.normal(size=50).astype(np.float32),
    "special": np.array([0.0, -0.0, np.nan, np.inf]),
    "bool": RANDOM.random(50) < 0.5,
    "zeros": np.zeros(50),
    "none": np.zeros(0),
    "big-endian": np.arange(5, dtype=">i4"),
    "strided": np.arange(20)[::2],
}
NAMES = np.array(["a", "", "ñandú", "a longer name"], object)


def fill(group):
    note(group, "dict", "0.1.0")
    for name, values in NUMBERS.items():
        write_array(group, name, values)
    write_texts(group, "texts", len(NAMES), [NAMES])
    write_texts(group, "no-texts", 0, [])
    write_categories(group, "kinds", np.array([1, -1, 0, 1]), np.array(["x", "y"]))
    write_categories(group, "numbered", np.array([0, 1]), np.array([2.5, 3.5]))
    write_booleans(group, "maybe", np.array([True, None, False], object))
    inner = group.create_group("inner")
    note(inner, "dataframe", "0.2.0", **{"_index": "_index", "column-order": ["b", "a"]})


@pytest.fixture
def both(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    fill(ZarrGroup(ours))
    consolidate(ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fill(zarr.open_group(theirs, mode="w", zarr_format=3))
        zarr.consolidate_metadata(theirs)
    return ours, theirs


def test_the_files_are_those_that_zarr_writes(both):
    files = [{str(f.relative_to(root)): f for f in root.rglob("*") if f.is_file()} for root in both]
    ours, theirs = files
    assert ours.keys() == theirs.keys()
    assert len(ours) > 30
    for name, file in ours.items():
        read = json.loads if name.endswith("zarr.json") else bytes
        assert read(file.read_bytes()) == read(theirs[name].read_bytes()), name


def test_zarr_reads_what_was_written(both):
    group = zarr.open_group(both[0], mode="r")
    for name, values in NUMBERS.items():
        read = group[name][:]
        assert read.dtype == values.dtype.newbyteorder("=")
        assert read.tobytes() == values.astype(read.dtype).tobytes()
    assert group["texts"][:].tolist() == NAMES.tolist()
    assert group["inner"].attrs["column-order"] == ["b", "a"]


@pytest.mark.parametrize("extra", [-1, 0, 1, CHUNK + 7])
def test_long_arrays_have_several_chunks(tmp_path, extra):
    values = RANDOM.integers(0, 1000, CHUNK + extra)
    texts = np.array([f"cell{i}" for i in range(PIECE + extra)], object)
    group = ZarrGroup(tmp_path / "long")
    write_array(group, "numbers", values)
    write_texts(group, "whole", len(texts), [texts])
    pieces = [texts[a : a + PIECE] for a in range(0, len(texts), PIECE)]
    write_texts(group, "in-pieces", len(texts), pieces)
    read = zarr.open_group(tmp_path / "long", mode="r")
    assert np.array_equal(read["numbers"][:], values)
    assert read["whole"][:].tolist() == read["in-pieces"][:].tolist() == texts.tolist()


def test_pieces_that_are_not_chunks_are_refused(tmp_path):
    group = ZarrGroup(tmp_path / "odd")
    node = group.create_array("texts", shape=(10,), dtype=str, chunks=(4,))
    with pytest.raises(ValueError, match="whole chunks"):
        node[2:4] = NAMES[:2]


def test_other_types_are_left_to_zarr(tmp_path):
    values = np.array([1 + 2j, 3])
    write_array(ZarrGroup(tmp_path / "other"), "complex", values)
    read = zarr.open_group(tmp_path / "other", mode="r")["complex"]
    assert np.array_equal(read[:], values)
    assert read.attrs["encoding-type"] == "array"


def test_a_group_is_replaced(tmp_path):
    group = ZarrGroup(tmp_path / "root")
    group.create_group("obs")
    assert "obs" in group
    del group["obs"]
    assert "obs" not in group
    assert "other" not in group
