"""Copies that read their source batches later, as a busy GPU's do: no batch gets another's numbers.

The false device copies from raw addresses, so that it keeps nothing alive, and only when it gets to
it: `delay` batches after it was asked.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from tests.store.conftest import make_screen
from vcell.data.buffers import Buffers
from vcell.gpu import accelerator
from vcell.store import Loader, Output, Recipe, Sets, Shuffled, Store, prepare
from vcell.store.device import PageLocked, send
from vcell.train import stream as streams
from vcell.train.batch import to_device
from vcell.train.task import Place


class Queue:
    """What a device was asked to do and has not done yet."""

    def __init__(self) -> None:
        self.asked = self.done = 0
        self.copies: deque[tuple[int, int, torch.Tensor]] = deque()
        self.blocks: list[torch.Tensor] = []  # page-locked memory, which the allocator keeps

    def holds(self, address: int) -> bool:
        """Whether an address is page-locked."""
        return any(0 <= address - block.data_ptr() < block.nbytes for block in self.blocks)

    def work(self, until: int) -> None:
        """Do what was asked before a moment."""
        while self.copies and self.done < until:
            address, size, target = self.copies.popleft()
            ctypes.memmove(target.data_ptr(), address, size)
            self.done += 1


class SlowDevice(accelerator.Accelerator):
    """A GPU of ordinary memory, which copies late."""

    kind = "cuda"
    has_queue = True
    queue = Queue()

    def page_locked(self, size: int) -> np.ndarray:
        self.queue.blocks.append(torch.empty(size, dtype=torch.uint8))
        return self.queue.blocks[-1].numpy()

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self.queue.holds(tensor.data_ptr()):
            return tensor.clone()  # of ordinary memory the driver takes a copy at once
        target = torch.full_like(tensor, -7)
        self.queue.copies.append((tensor.data_ptr(), tensor.nbytes, target))
        self.queue.asked += 1
        return target

    def mark(self, *, timed: bool = False) -> accelerator.Mark:
        queue, asked = self.queue, self.queue.asked

        class Place:
            def done(self) -> bool:
                return queue.done >= asked

            def seconds_after(self, earlier: object) -> float:
                raise AssertionError

        return Place()


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setitem(accelerator.KINDS, "cuda", SlowDevice)
    SlowDevice.queue = Queue()
    yield SlowDevice.queue
    SlowDevice.queue.work(1 << 60)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("cells")
    screen = make_screen(folder / "screen.h5ad", n=400, g=60)
    prepare([screen.path], folder / "store.zarr", Recipe())
    with Store.open(folder / "store.zarr") as made:
        yield made


def pairs(store: Store) -> Sets:
    codes, names = store.codes("perturbation")
    control = list(names).index("control")
    return Sets(perturbation=codes, control=control, set_size=1, sets_per_batch=8, buffer=64)


ORDERS: dict[str, Callable[[Store], object]] = {
    "loader": lambda store: Shuffled(batch_size=16, buffer=64),
    "pairs": pairs,
}
OUTPUTS = {
    "dense": {"dense": True},
    "CSR as it lies": {},
    "CSR scaled, of some genes": {"log1p": True, "genes": np.arange(5, 40)},
}


def arrived(loader: Loader, queue: Queue, delay: int, epochs: int = 2) -> list[list[np.ndarray]]:
    """What came to the device, batch by batch, where copies are `delay` batches late."""
    sent, asked = [], [0]
    for _ in range(epochs):
        for batch in loader:
            sent.append(send(batch, "cuda"))
            del batch
            asked.append(queue.asked)
            queue.work(asked[max(len(asked) - 1 - delay, 0)])
    queue.work(queue.asked)
    return [[part.numpy() for part in batch] for batch in sent]


def expected(loader: Loader, epochs: int = 2) -> list[list[np.ndarray]]:
    batches = [batch for _ in range(epochs) for batch in loader]
    return [
        [part.copy() for part in (b.x, b.indptr, b.indices, b.data) if part is not None]
        for b in batches
    ]


def wrong(found: list[list[np.ndarray]], want: list[list[np.ndarray]]) -> int:
    assert len(found) == len(want)
    return sum(
        not all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
        for both in zip(found, want, strict=True)
    )


@pytest.mark.parametrize("delay", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_batch_arrives_whole(
    queue: Queue, store: Store, order: str, output: str, resident: bool, delay: int
) -> None:
    words = OUTPUTS[output]
    if order == "pairs" and words.get("dense"):
        words = words | {"genes": np.arange(60)[::-1]}
    plain, locked = Output(**words, own=True), Output(**words, pin=True)
    with Loader(store, ORDERS[order](store), plain, resident=resident) as loader:
        want = expected(loader)
    with Loader(store, ORDERS[order](store), locked, resident=resident) as loader:
        assert wrong(arrived(loader, queue, delay), want) == 0


def test_without_the_marks_batches_do_get_anothers_numbers(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the tests above can fail: memory that is used again as soon as nobody refers to it."""
    monkeypatch.setattr(PageLocked, "is_read", Buffers.is_read)
    monkeypatch.setattr(SlowDevice, "has_queue", False)
    order = Shuffled(batch_size=16, buffer=64)
    with Loader(store, order, Output(dense=True, own=True)) as loader:
        want = expected(loader)
    with Loader(store, order, Output(dense=True, pin=True)) as loader:
        assert wrong(arrived(loader, queue, 4), want) > len(want) // 4


def test_a_users_own_copies_are_waited_for_too(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever copies without `send` is served by the mark that is put where memory is taken."""
    monkeypatch.setattr(SlowDevice, "has_queue", False)
    order = Shuffled(batch_size=16, buffer=64)
    with Loader(store, order, Output(dense=True, own=True)) as loader:
        want = expected(loader)
    with Loader(store, order, Output(dense=True, pin=True)) as loader:
        assert wrong(arrived(loader, queue, 4), want) == 0


def test_memory_is_used_again_once_it_has_been_copied(queue: Queue, store: Store) -> None:
    order = Shuffled(batch_size=16, buffer=64)
    with Loader(store, order, Output(dense=True, pin=True)) as loader:
        arrived(loader, queue, 2, epochs=1)
        few = len(queue.blocks)
        arrived(loader, queue, 2, epochs=4)
        assert len(queue.blocks) <= few + 4


class HostMemory:
    """Page-locked memory as torch's own allocator hands it out: a block that nobody refers to is
    used again, once the device has done the copies that were asked for of it."""

    def __init__(self, queue: Queue, *, careful: bool = True) -> None:
        self.queue, self.careful = queue, careful
        self.blocks: list[torch.Tensor] = []
        self.users: dict[int, weakref.ref[torch.Tensor]] = {}
        self.asked: dict[int, int] = {}  # address -> place in the queue of its last copy

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        block = next((block for block in self.blocks if self.is_free(block)), None)
        if block is None:
            block = torch.empty(tensor.nbytes, dtype=torch.uint8)
            self.queue.blocks.append(block)
            self.blocks.append(block)
        given = block.view(tensor.dtype).view(tensor.shape)
        given.copy_(tensor)
        self.users[block.data_ptr()] = weakref.ref(given)
        return given

    def is_free(self, block: torch.Tensor) -> bool:
        user = self.users[block.data_ptr()]()
        read = self.asked.get(block.data_ptr(), 0) <= self.queue.done
        return user is None and (read or not self.careful)

    def to(self, tensor: torch.Tensor, device: object, *, non_blocking: bool) -> torch.Tensor:
        assert non_blocking
        sent = SlowDevice(torch.device("cpu")).send(tensor)
        self.asked[tensor.data_ptr()] = self.queue.asked
        return sent


def streamed(
    monkeypatch: pytest.MonkeyPatch, memory: HostMemory, matrix: np.ndarray, delay: int
) -> int:
    """How many of 40 batches of a training stream that reads ahead arrive wrong."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda leaf: memory.pin(leaf))  # noqa: PLW0108
    to_slow_device = lambda leaf, device, non_blocking=False: memory.to(  # noqa: E731
        leaf, device, non_blocking=non_blocking
    )
    monkeypatch.setattr(torch.Tensor, "to", to_slow_device)
    place = Place(0, 1, torch.device("cpu"))
    kept = np.empty((8, matrix.shape[1]), matrix.dtype)  # the source has one array, used again

    def fetch(numbers: np.ndarray) -> dict[str, torch.Tensor]:
        fetched.append(numbers)
        return {"x": torch.from_numpy(np.take(matrix, numbers, axis=0, out=kept))}

    fetched: list[np.ndarray] = []
    sent, asked = [], [0]
    shuffled = streams.ShuffledBatches(len(matrix), fetch, place=place, batch_size=8, seed=0)
    with streams.ReadAhead(shuffled, pin=True) as stream:
        for _ in range(40):
            sent.append(to_device(next(stream), torch.device("cuda")))
            asked.append(memory.queue.asked)
            memory.queue.work(asked[max(len(asked) - 1 - delay, 0)])
    memory.queue.work(memory.queue.asked)
    whole = [np.array_equal(b["x"].numpy(), matrix[n]) for b, n in zip(sent, fetched, strict=False)]
    return whole.count(False)


MATRIX = np.random.default_rng(0).random((60, 50), np.float32)


@pytest.mark.parametrize("delay", [0, 1, 2, 4, 9])
def test_every_batch_of_a_training_stream_arrives_whole(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, delay: int
) -> None:
    assert streamed(monkeypatch, HostMemory(queue), MATRIX, delay) == 0


def test_a_careless_allocator_would_mix_the_streams_batches(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert streamed(monkeypatch, HostMemory(queue, careful=False), MATRIX, 4) > 10
