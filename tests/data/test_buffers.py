"""Arrays that are used again: never one that somebody refers to, and not more than needed."""

from __future__ import annotations

import errno
import mmap

import numpy as np
import pytest

from vcell.data.buffers import MAPPED_FROM, Buffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_what_was_let_go_is_used_again() -> None:
    buffers = Buffers()
    first = buffers.take(1000, np.float32)
    at = address(first)
    del first
    assert address(buffers.take(900, np.int32)) == at


def test_an_array_in_use_is_left_alone_even_through_a_view() -> None:
    buffers = Buffers(keep=1)
    view = buffers.take(1000, np.float32)[10:20]
    view[:] = 7
    for _ in range(5):
        buffers.take(1000, np.float32)[:] = 0
    assert (view == 7).all()


def test_the_smallest_that_suffices_is_taken() -> None:
    buffers = Buffers()
    held = [buffers.take(n, np.uint8) for n in (10_000, 1_000, 100_000)]
    at = [address(array) for array in held]
    del held
    large, small = buffers.take(5_000, np.uint8), buffers.take(500, np.uint8)
    assert [address(large), address(small)] == at[:2]


def test_a_larger_array_takes_the_place_of_an_unused_smaller_one() -> None:
    buffers = Buffers(keep=None)
    for n in range(1, 50):
        buffers.take(n * MAPPED_FROM, np.uint8)[-1] = 1
    assert len(buffers._held) == 1


def test_no_more_are_held_than_asked_for() -> None:
    buffers = Buffers(keep=4)
    mine = [buffers.take(100, np.uint8) for _ in range(20)]
    assert len({address(array) for array in mine}) == 20
    assert len(buffers._held) == 4


@pytest.mark.parametrize("refuses", [False, True])
def test_huge_pages_are_a_wish(monkeypatch: pytest.MonkeyPatch, *, refuses: bool) -> None:
    asked: list[int] = []

    class Mapped(mmap.mmap):
        def madvise(self, option: int, *_: int) -> None:
            asked.append(option)
            if refuses:
                raise OSError(errno.EINVAL, "this kernel has none")

    monkeypatch.setattr("vcell.data.buffers.mmap.mmap", Mapped)
    monkeypatch.setattr("vcell.data.buffers.mmap.MADV_HUGEPAGE", 14, raising=False)
    buffers = Buffers(huge=True)
    large, small = buffers.take(8 << 20, np.uint8), buffers.take(2 << 20, np.uint8)
    large[:], small[:] = 1, 2
    assert asked == [14]
    assert (large == 1).all()
