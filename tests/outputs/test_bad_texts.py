"""Text that cannot be read, of every option that takes some: one sentence, exit 2, nothing left.

The options are found in the tree of commands: a new one fails here until `TEXTS` has a command that
reads it, or `OTHERS` says that it takes no text. Two broken files are tried by default.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.test_every_command import every_command, paths_of
from tests.outputs.test_every_end import ISP, PATIENTS, RUNS, TINY, run_of
from tests.support import (
    PATIENCE,
    clean_environment,
    in_this_process,
    permissions_obeyed,
    shortly,
)
from vcell import text_files

TRAIN = ("train-vcc", "cells.h5ad", "--model", "ridge", "--runs", "out")
BULK = (*RUNS["train-bulk"], "--runs", "out")
GRAPH = ("graph-profile", "--strategy", "khop1", "--steps", "1", "--batch-size", "2")
SETS = ("train-graph", "sets.tsv", "--model", "additive", "--folds", "2", "--runs", "out")
ISP_OUT = ("isp", "run", *ISP, "--runs", "out")
#: A command for each file of text that is read; {} is that file, after | what its name ends in.
TEXTS = {
    "features ids": ("features", "edges.tsv", "--ids", "{}", "-o", "out/x", "|.txt"),
    "features sources": ("features", "{}", "-o", "out/x", "|.gmt"),
    "features sources of tables": ("features", "{}", "-o", "out/x", "|.csv"),
    "graph-profile graph": (*GRAPH, "--graph", "{}", "--seconds", "0", "-o", "out/x.html", "|.tsv"),
    "graph-profile ids": (*GRAPH, "--graph", "edges.tsv", "--ids", "{}", "|.txt"),
    "graph-profile triples": (*GRAPH, "--graph", "edges.tsv", "--triples", "{}", "|.tsv"),
    "isp embed vocabulary": (
        *("isp", "embed", "ensembl.h5ad", *TINY, "--vocabulary", "{}", "-o", "out/x.h5ad"), "|.tsv"
    ),
    "isp run vocabulary": (*ISP_OUT, "--vocabulary", "{}", "|.tsv"),
    "isp run genes": (*ISP_OUT, "--genes", "each:{}", "|.txt"),
    "isp-bench vocabulary": (
        *("isp-bench", "ensembl.h5ad", *TINY, "--vocabulary", "{}", "-o", "out/x.html"), "|.tsv"
    ),
    "pack genes": ("pack", "cells.h5ad", "--genes", "{}", "-o", "out/x.vcc", "|.csv"),
    "pack perturbations": (
        "pack", "cells.h5ad", "--genes", "genes.csv", "--perturbations", "{}", "-o", "out/x.vcc",
        "|.csv",
    ),
    "pipeline pairs": (
        "pipeline", "bulk", "--cells", *PATIENTS, "--no-states", "--pairs", "{}", "-o", "out/x",
        "|.csv",
    ),
    "predict perturbations": (
        "predict", "{train-vcc}", "--perturbations", "{}", "-o", "out/x.h5ad", "|.csv"
    ),
    "predict-bulk bulk": ("predict-bulk", "{train-bulk}", "{}", "-o", "out/x.csv", "|.csv"),
    "prepare genes": ("prepare", "cells.h5ad", "--genes", "{}", "-o", "out/x", "|.csv"),
    "select-genes gene_set": ("select-genes", "cells.h5ad", "--gene-set", "{}", "-o", "out/x",
                              "|.gmt"),
    "select-genes targets": ("select-genes", "cells.h5ad", "--targets", "{}", "-o", "out/x",
                             "|.csv"),
    "train-bulk folds_file": (*BULK, "--folds-file", "{}", "|.json"),
    "train-bulk pairs": (*BULK, "--pairs", "{}", "|.csv"),
    "train-graph features": (*SETS, "--features", "{}", "|.csv"),
    "train-graph graph": (*SETS, "--graph", "{}", "|.tsv"),
    "train-graph sets": ("train-graph", "{}", "--runs", "out", "|.tsv"),
    "train-graph table": ("train-graph", "--table", "{}", "--runs", "out", "|.tsv"),
    "train-vcc features": (*TRAIN, "--features", "{}", "|.csv"),
    "train-vcc genes": (*TRAIN, "--genes", "{}", "|.csv"),
    "train-vcc graph": (*TRAIN, "--graph", "{}", "|.tsv"),
    "train-vcc held_out": (*TRAIN, "--held-out", "{}", "|.csv"),
    "train-vcc validation": (*TRAIN, "--validation", "{}", "|.csv"),
    "every command's config": ("--config", "{}", "config", "show", "|.toml"),
}  # fmt: skip
#: Paths that are of cells, runs, tables in Parquet, or made.
OTHERS = {
    "bulk", "cells", "control_cells", "data", "evaluate", "file", "files", "like", "path", "name",
    "perturb_seq", "prediction", "prior_effects", "pseudobulk", "real", "root", "runs", "screen",
    "source",
}  # fmt: skip

HEADS = {
    ".gmt": "s1\t-\tA\tB\nS2\t-\tC\tD\n",
    ".csv": "gene,value\nA,1\nB,2\n",
    ".tsv": "gene_1\tgene_2\tvalue\nA\tB\t1\nB\tC\t2\n",
    ".txt": "A\nB\n",
    ".json": '{"folds": []}\n',
    ".toml": "[data]\n",
}
MARKS = {".csv": ",", ".json": ",", ".toml": "="}


def bad_texts(ending: str) -> dict[str, bytes]:
    """Return broken files of a kind; some begin with valid text, which is not among them."""
    good, mark = HEADS[ending], MARKS.get(ending, "\t")
    return {
        "binary": bytes(range(256)) * 4,
        "latin-1": good.encode() + "Gen\xe9".encode("latin-1") + mark.encode() + b"1\n",
        "empty": b"",
        "blank lines": b"\n \n\r\n",
        "UTF-16": good.encode("utf-16"),
        "only a byte order mark": b"\xef\xbb\xbf",
        "NUL": good.encode() + b"\0\0",
        "gzip cut short": gzip.compress(good.encode() * 50)[:-12],
        "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(200),
        "a quotation mark not closed": b'"' + good.encode(),
    }


#: What may be read all the same: what a command makes of it is its own, but no traceback.
def odd_texts(ending: str) -> dict[str, bytes]:
    """Return text files with mostly meaningless content."""
    good, mark = HEADS[ending], MARKS.get(ending, "\t")
    head = good.splitlines()[0]
    return {
        "gzip": gzip.compress(good.encode()),
        "old Macintosh lines": good.replace("\n", "\r").encode(),
        "Windows lines and a mark": b"\xef\xbb\xbf" + good.replace("\n", "\r\n").encode(),
        "only a header": head.encode() + b"\n",
        "a column twice": (head + mark + head + "\n" + f"A{mark}1{mark}A{mark}1\n").encode(),
        "ragged": (good + "A\n" + f"B{mark}1{mark}2{mark}3{mark}4\n").encode(),
        "no number": (good + f"C{mark}D{mark}much\n").encode(),
        "NaN": (good + f"C{mark}nan{mark}nan\n").encode(),
        "infinite": (good + f"C{mark}D{mark}inf\n").encode(),
        "a long line": (good + "A" * 300_000 + f"{mark}1\n").encode(),
        "numbers": f"1{mark}2\n3{mark}4\n".encode(),
        "one word": b"x",
        "HTML": b"<!DOCTYPE html><html><body>404, not found</body></html>\n",
        "JSON": b'{"a": [1, 2, {"b": null}]}\n',
        "a list": b"[1, 2]\n",
        "nested": b"[" * 100_000,
        "marks alone": (mark * 5 + "\n").encode() * 3,
        "other names": good.replace("gene", "thing").encode(),
    }


def _shut(path: Path) -> None:
    path.write_text("A\nB\n")
    path.chmod(0)


#: What is no file that can be read.
NO_FILES: dict[str, Callable[[Path], None]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe without a writer": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a file that may not be read": _shut,
}


def test_every_option_that_takes_text_is_here():
    named = {
        f"{name} {path}"
        for name, command in every_command()
        for path, made in paths_of(command).items()
        if not made and path not in OTHERS
    }
    assert named <= set(TEXTS)


@contextmanager
def ended_if_it_waits(name: str) -> Iterator[None]:
    """Fail where a command waits for what never comes."""

    def end(*_signal: object) -> None:
        raise AssertionError(f"{name} waits for ever")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(int(PATIENCE))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(
    name: str, texts: dict[str, bytes] | dict[str, Callable[[Path], None]], place: Any, folder: Any
) -> dict[str, Any]:
    """Run a case with each of these files, and return the outcomes."""
    *words, ending = TEXTS[name]
    ending = ending.removeprefix("|")
    ended, bad = {}, place / f"bad{ending}"
    for kind, raw in texts.items():
        if callable(raw):
            raw(bad)
        else:
            bad.write_bytes(raw)
        (place / "out").mkdir()
        given = [run_of(word, folder) if word != "{}" else word for word in words]
        given = [word.replace("{}", f"bad{ending}") for word in given]
        with permissions_obeyed() if callable(raw) else nullcontext(), ended_if_it_waits(name):
            ran = in_this_process((*given, "--json"), place)
        said = f"{kind}: {ran.err}"
        assert "Traceback" not in ran.err, said
        if ran.code:
            assert ran.code == 2, said
            assert sum(line.startswith("error: ") for line in ran.err.splitlines()) == 1, said
            assert json.loads(ran.out)["error"]["exit_code"] == 2, said
            assert max(map(len, ran.err.splitlines())) < 1000, said
            assert [p for p in (place / "out").rglob("*") if p.is_file()] == [], said
        shutil.rmtree(place / "out")
        bad.rmdir() if bad.is_dir() else bad.unlink()
        ended[kind] = ran
    return ended


@pytest.fixture
def place(folder, tmp_path):
    for path in folder.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


#: Those tried by default: one for each way of reading.
FEW = (
    "features sources",
    "graph-profile ids",
    "prepare genes",
    "train-vcc features",
    "every command's config",
)
MADE = [name for name, words in TEXTS.items() if any(w[:2] in ("{t", "{i") for w in words)]


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in MADE])
def test_binary_files_are_refused_in_one_sentence(place, folder, name):
    some = bad_texts(TEXTS[name][-1].removeprefix("|"))
    for kind, ran in tried(
        name, {k: some[k] for k in ("binary", "latin-1")}, place, folder
    ).items():
        assert ran.code == 2, kind
        assert "bad." in ran.err, ran.err


@pytest.mark.parametrize("name", shortly(TEXTS, *FEW))
def test_what_is_no_file_is_one_sentence(place, folder, monkeypatch, name):
    monkeypatch.setattr(text_files, "_WRITER", 0.1)
    for kind, ran in tried(name, NO_FILES, place, folder).items():
        assert ran.code == 2, kind
        assert "bad" in ran.err, ran.err
        assert kind == "a link to itself" or "no such file" not in ran.err, f"{kind}: {ran.err}"


def test_a_pipe_with_a_writer_is_read(here, tmp_path):
    words = ("prepare", "cells.h5ad", "-o", "store.zarr", "--genes", "/dev/stdin")
    done = subprocess.run(
        [sys.executable, "-m", "vcell", *words], cwd=tmp_path, input="no-gene\n", text=True,
        env=clean_environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert "no-gene" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_bad_text_is_refused_in_one_sentence_or_processed(place, folder, name):
    ending = TEXTS[name][-1].removeprefix("|")
    may = {"a quotation mark not closed"}
    if ending == ".toml":
        may |= {"empty", "blank lines", "only a byte order mark"}
    for kind, ran in tried(name, bad_texts(ending), place, folder).items():
        assert ran.code == 2 or kind in may, kind
        assert kind in may or "bad." in ran.err, ran.err
    tried(name, odd_texts(ending), place, folder)
