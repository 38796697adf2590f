"""Outputs appear complete and together, or not at all."""

from __future__ import annotations

import errno
import os
import signal

import numpy as np
import pytest

from vcell import outputs, signals
from vcell.data.h5_writing import HdfSink, writing
from vcell.errors import DiskFull, UserError


def test_a_file_appears_when_it_is_complete(tmp_path):
    with outputs.whole(tmp_path / "a.txt") as aside:
        aside.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_only_the_old_file_remains(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with outputs.together(tmp_path / "a.txt", tmp_path / "b") as (one, two):
            one.write_text("new")
            two.mkdir()
            raise error

    with pytest.raises(error):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    outputs.write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_old_companions_are_never_next_to_a_new_output(tmp_path, monkeypatch):
    """A kill between two renames: the old truth is removed before the new cells appear."""
    cells, truth = tmp_path / "cells", tmp_path / "truth"
    cells.write_text("old cells")
    truth.write_text("old truth")
    seen = []

    def put(aside, place):
        aside.replace(place)
        seen.append({p.name: p.read_text() for p in (cells, truth) if p.exists()})

    monkeypatch.setattr("vcell.outputs.aside._put", put)
    with outputs.together(cells, truth) as (one, two):
        one.write_text("new cells")
        two.write_text("new truth")
    assert seen[0] == {"cells": "new cells"}
    assert seen[1] == {"cells": "new cells", "truth": "new truth"}


def test_a_folder_replaces_another(tmp_path):
    target = tmp_path / "deep" / "scores"
    for text in ("first", "second"):
        with outputs.folder(target) as aside:
            (aside / text).write_text(text)
    assert {p.name for p in target.iterdir()} == {"second", "made-by-vcell.json"}
    assert [p.name for p in target.parent.iterdir()] == ["scores"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence_and_exit_code_1(tmp_path, number):
    def fail() -> None:
        with outputs.whole(tmp_path / "a.txt") as aside:
            aside.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFull, match=r"a\.txt cannot be written: ") as told:
        fail()
    assert told.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_read_errors_are_not_reported_as_write_errors(tmp_path):
    with pytest.raises(FileNotFoundError), outputs.whole(tmp_path / "a.txt"):
        (tmp_path / "input.txt").read_text()


def test_a_file_name_of_maximal_length(tmp_path):
    target = tmp_path / ("ä" * 127)
    outputs.write_text(target, "text")
    assert target.read_text() == "text"


def test_a_signal_waits_for_the_renames():
    done = []

    def work() -> None:
        with signals.ended_by_signals():
            with signals.held_back():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("renamed")
            done.append("never")

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()
    assert done == ["renamed"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class Fails(HdfSink):
    """Has room for some bytes; the HDF5 library writes the rest when it closes the file."""

    def write(self, data):
        if self._at + len(memoryview(data).cast("B")) > 300_000 and self._error is None:
            self._error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_hdf5_survives_a_disk_that_fills_up(tmp_path, monkeypatch):
    monkeypatch.setattr("vcell.data.h5_writing.HdfSink", Fails)

    def fill() -> None:
        with outputs.whole(tmp_path / "a.h5") as aside, writing(aside) as (file, _):
            for i in range(50):
                file.create_dataset(f"x{i}", data=np.random.default_rng(i).random(5000))
                file[f"x{i}"].attrs["note"] = "y" * 1000

    with pytest.raises(UserError, match="no space is left on the disk"):
        fill()
    assert list(tmp_path.iterdir()) == []
