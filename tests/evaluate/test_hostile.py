"""Damaged and hostile files: one clear line each, exit code 2, nothing written or replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from tests.evaluate.conftest import screen
from vcell import outputs

Spoil = Callable[[h5py.File], None]


def put(path: str, change: Callable[[np.ndarray], Any], **how: Any) -> Spoil:
    """Replace an array by what `change` makes of it, attributes kept."""

    def spoil(file: h5py.File) -> None:
        old, attributes = file[path][:], dict(file[path].attrs)
        del file[path]
        file.create_dataset(path, data=change(old), **how).attrs.update(attributes)

    return spoil


def at(place: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(old: np.ndarray) -> np.ndarray:
        new = old.copy()
        new[place] = value
        return new

    return change


def shaped(*shape: int) -> Spoil:
    return lambda file: file["X"].attrs.__setitem__("shape", shape)


def without(path: str) -> Spoil:
    return lambda file: file.__delitem__(path)


def linked(path: str, link: Any) -> Spoil:
    def spoil(file: h5py.File) -> None:
        del file[path]
        file[path] = link

    return spoil


def twice(names: np.ndarray) -> np.ndarray:
    return np.array([names[1], *names[1:]], object)


def bomb(file: h5py.File) -> None:
    """Claim sixteen thousand million entries for one cell, in a file of kilobytes."""
    n = 1 << 34
    for name, kind in (("data", "f4"), ("indices", "i4")):
        del file[f"X/{name}"]
        file.create_dataset(f"X/{name}", (n,), kind, chunks=(1 << 20,), compression="gzip")
    put("X/indptr", lambda old: at(-1, n)(old.astype(np.int64)))(file)


STRINGS = {"dtype": h5py.string_dtype()}
DAMAGE: dict[str, tuple[Spoil, str]] = {
    "rows short": (put("X/indptr", lambda x: x[:-3]), "248 entries where 251"),
    "rows long": (put("X/indptr", lambda x: np.append(x, x[-1])), "252 entries where 251"),
    "rows fall": (put("X/indptr", at(10, 10**6)), "does not ascend"),
    "rows begin below": (put("X/indptr", at(0, -5)), "does not ascend"),
    "rows promise more": (put("X/indptr", at(-1, 2**20)), "where indptr promises 1,048,576"),
    "a bomb": (bomb, "to one of 120 places"),
    "a column outside": (put("X/indices", at(5, 5000)), "has an entry 5000, outside"),
    "a column below": (put("X/indices", at(5, -1)), "has an entry -1, outside"),
    "values short": (put("X/data", lambda x: x[:-30]), "where indptr promises"),
    "values of another shape": (put("X/data", lambda x: x[:12].reshape(3, 4)), "3 x 4 values"),
    "text": (put("X/data", lambda x: np.full(len(x), b"a")), "not numbers"),
    "complex": (put("X/data", lambda x: x.astype(complex)), "not numbers"),
    "fewer cells": (shaped(10, 120), "where 11 are needed"),
    "a negative shape": (shaped(-250, 120), "no usable shape"),
    "a huge shape": (shaped(2**62, 2**62), "no usable shape"),
    "no matrix": (without("X"), "has no X"),
    "no values": (linked("X/data", h5py.SoftLink("/nowhere")), "X"),
    "a loop": (linked("X", h5py.SoftLink("/X")), "cannot be read"),
    "a link out": (linked("X", h5py.ExternalLink("/etc/passwd", "/X")), "cannot be read"),
    "no labels": (without("obs"), "holds no cells"),
    "no genes": (without("var"), "holds no cells"),
    "fewer labels": (put("obs/_index", lambda x: x[:-4], **STRINGS), "obs has 246 rows"),
    "fewer codes": (put("obs/target_gene/codes", lambda x: x[:-4]), "target_gene"),
    "a code of nothing": (put("obs/target_gene/codes", at(3, 100)), "target_gene"),
    "more gene names": (put("var/_index", lambda x: np.append(x, x), **STRINGS), "var has 240"),
    "a gene twice": (put("var/_index", twice, **STRINGS), "more than once: G001"),
    "NaN": (put("X/data", at(7, np.nan)), "NaN or infinite"),
    "infinity": (put("X/data", at(7, np.inf)), "NaN or infinite"),
    "negative": (put("X/data", at(7, -3)), "-3"),
}
COMMANDS = {
    "2025": ("evaluate", "bad.h5ad", "real.h5ad", "-o", "out", "--overwrite"),
    "real": ("evaluate", "pred.h5ad", "bad.h5ad", "-o", "out", "--overwrite"),
    "2026": ("evaluate", "bad.h5ad", "real.h5ad", "-o", "out", "--overwrite", "--rules", "vcc2026"),
    "de": ("de", "bad.h5ad", "-o", "out.parquet", "--overwrite"),
}


@pytest.fixture
def results(here):
    """Results of an earlier run at the path of the new ones."""
    with outputs.folder(here.folder / "out", listed_in="score.json") as out:
        (out / "results.csv").write_text("earlier")
    (here.folder / "out.parquet").touch()
    return here


def contents(here) -> dict[str, bytes]:
    return {
        str(path.relative_to(here.folder)): path.read_bytes()
        for path in here.folder.rglob("*")
        if path.is_file() and path.name != "bad.h5ad"
    }


def refused(here, command: str, said: str) -> None:
    before = contents(here)
    ran = here(*COMMANDS[command])
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert said in errors[0]
    assert contents(here) == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_structural_damage_is_reported_in_one_line(results, damage):
    spoil, said = DAMAGE[damage]
    shutil.copy(results.folder / "pred.h5ad", results.folder / "bad.h5ad")
    with h5py.File(results.folder / "bad.h5ad", "r+") as file:
        spoil(file)
    for command in COMMANDS:
        refused(results, command, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [("cells", "holds no cells"), ("genes", "holds no genes"), ("a folder", "holds no cells"),
     ("empty", "is empty"), ("words", "does not begin like HDF5")],
)  # fmt: skip
def test_empty_files(results, name, said):
    bad = results.folder / "bad.h5ad"
    if name == "cells":
        screen(2)[:0].copy().write_h5ad(bad)
    elif name == "genes":
        screen(2)[:, :0].copy().write_h5ad(bad)
    elif name == "a folder":
        bad.mkdir()
    else:
        bad.write_bytes(b"" if name == "empty" else b"hello\n" * 99)
    for command in COMMANDS:
        refused(results, command, said)


def test_a_category_listed_twice_is_one_perturbation(here):
    """anndata refuses such a file; here both codes have the same name."""
    here("de", "pred.h5ad", "-o", "whole.csv")
    with h5py.File(here.folder / "pred.h5ad", "r+") as file:
        names = file["obs/target_gene/categories"][:]
        put("obs/target_gene/categories", lambda x: np.append(x, names[0]), **STRINGS)(file)
        codes = file["obs/target_gene/codes"][:]
        put("obs/target_gene/codes", at(np.flatnonzero(codes == 0)[3], len(names)))(file)
    assert here("de", "pred.h5ad", "-o", "twice.csv").code == 0
    tables = [(here.folder / f"{name}.csv").read_text() for name in ("whole", "twice")]
    assert tables[0] == tables[1]


def test_a_prediction_of_zeros_is_reported(here):
    pred = screen(2)
    pred.X = pred.X * 0
    pred.write_h5ad(here.folder / "pred.h5ad")
    ran = here("evaluate", "pred.h5ad", "real.h5ad", "--no-baseline")
    assert ran.code == 0
    assert "no value differs from zero" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_crashes(results, seed):
    rng = np.random.default_rng(seed)
    pred = screen(2)
    if seed % 2:
        pred.X = pred.X.toarray()
    pred.write_h5ad(results.folder / "bad.h5ad", compression="gzip" if seed % 3 else None)
    whole = bytearray((results.folder / "bad.h5ad").read_bytes())
    if seed % 4:
        for place in rng.integers(0, len(whole), int(rng.choice([1, 5, 60, 600]))):
            whole[place] ^= int(rng.integers(1, 256))
    else:
        whole = whole[: rng.integers(0, len(whole))]
    (results.folder / "bad.h5ad").write_bytes(whole)
    for words in COMMANDS.values():
        before = contents(results)
        ran = results(*words)
        assert ran.code in (0, 2), ran.err  # 0: only a value changed
        assert "Traceback" not in ran.err
        if ran.code == 2:
            assert contents(results) == before
        assert not list(results.folder.glob("*.tmp*"))
