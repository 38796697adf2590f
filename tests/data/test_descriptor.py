"""Reading by offset: all of it, however little the system brings at a time, or an error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vcell.data.descriptor import Descriptor
from vcell.data.overflow_file import OverflowFile
from vcell.errors import UserError
from vcell.store.build.second_pass import _read_spans


@pytest.fixture
def slow_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read brings three bytes at most; the system does so after 2 GiB."""
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: whole(fd, [into[0][:3]], at))


@pytest.mark.usefixtures("slow_system")
def test_what_comes_in_pieces_is_put_together(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.int32).reshape(3, 4)
    (tmp_path / "file").write_bytes(b"skipped" + values.tobytes())
    file, out = Descriptor(tmp_path / "file"), np.zeros_like(values)
    file.read_into(out, 7)
    file.close()
    assert np.array_equal(out, values)


@pytest.mark.usefixtures("slow_system")
def test_arrays_that_overflow_memory_come_back_from_pieces() -> None:
    file, out = OverflowFile(), np.zeros(5)
    file.append(np.arange(10.0))
    file.fill(out, 3 * 8)
    file.close()
    assert out.tolist() == [3, 4, 5, 6, 7]


@pytest.mark.usefixtures("slow_system")
def test_spans_of_a_file_are_put_together_from_pieces(tmp_path: Path) -> None:
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "val.spill")
    out = np.zeros(9, np.uint16)
    _read_spans(tmp_path / "val.spill", np.array([[10, 15], [15, 15], [40, 44]]), out)
    assert out.tolist() == [10, 11, 12, 13, 14, 40, 41, 42, 43]


def test_a_file_that_ends_early_is_an_error_with_the_number_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10))
    file = Descriptor(tmp_path / "file")
    with pytest.raises(OSError, match="ends 6 bytes before"):
        file.read_into(np.zeros(1), 8)
    file.close()


def test_more_than_was_written_does_not_come_back() -> None:
    file = OverflowFile()
    file.append(np.arange(2.0))
    with pytest.raises(UserError, match="cut short"):
        file.fill(np.zeros(3), 0)
    file.close()
