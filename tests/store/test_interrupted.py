"""Killed, crowded, short of space: a store is whole or not there, and the next run goes on."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.store.conftest import Screen, make_screen
from tests.support import PATIENCE, clean_environment
from vcell.errors import UserError
from vcell.store import Store, prepare
from vcell.store.build import first_pass, workdir
from vcell.store.shards import ShardWriter

if TYPE_CHECKING:
    from tests.conftest import Ran

KILLED = Path(__file__).with_name("killed.py")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    """Enough non-zeros for five shards of one chunk."""
    return make_screen(tmp_path_factory.mktemp("big") / "big.h5ad", 2500, 500)


@pytest.fixture(scope="module")
def straight(big: Screen, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """The store as an undisturbed run makes it, and how many moments that has."""
    target = tmp_path_factory.mktemp("straight") / "s.zarr"
    done = attempt(big, target, 0)
    assert done.returncode == 0, done.stderr
    return contents(target), int(done.stdout)


def attempt(
    screen: Screen, target: Path, moment: int, memory: int = 0
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(KILLED), str(screen.path), str(target), str(moment), str(memory)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "share",
    [0.3, 0.75, *(pytest.param(i / 25, marks=pytest.mark.slow) for i in range(26))],
)
def test_a_killed_run_is_continued_to_the_same_store(
    big: Screen, straight: tuple[dict[str, bytes], int], tmp_path: Path, share: float
) -> None:
    want, moments = straight
    target = tmp_path / "s.zarr"
    killed = attempt(big, target, max(1, round(share * moments)))
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    done = attempt(big, target, 0)
    assert done.returncode == 0, done.stderr
    if share > 0.1:
        assert int(done.stdout) < moments  # it did not begin anew
    assert contents(target) == want
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_run_killed_with_its_cells_in_memory_begins_again(
    big: Screen, straight: tuple[dict[str, bytes], int], tmp_path: Path, share: float
) -> None:
    target, memory = tmp_path / "s.zarr", 1 << 24
    moments = int(attempt(big, tmp_path / "o.zarr", 0, memory).stdout)
    killed = attempt(big, target, round(share * moments), memory)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    done = attempt(big, target, 0, memory)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= moments - 1  # all but the journal's first line
    assert contents(target) == straight[0]  # made through files


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_stopped_run_says_whether_there_is_something_to_go_on_from(
    screen: Screen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    in_memory: bool,
) -> None:
    def stop(_: ShardWriter) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(workdir, "STEP", 0)
    monkeypatch.setattr(first_pass, "MAX_NNZ", 5_000)
    monkeypatch.setattr(first_pass, "MEMORY", 1 << 24 if in_memory else 0)
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "close", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare([screen.path], tmp_path / "s.zarr")
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ([] if in_memory else [".s.zarr.preparing"])
    assert ("the same command continues" in capsys.readouterr().err) != in_memory
    prepare([screen.path], tmp_path / "s.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.slow
def test_a_run_may_be_killed_again_and_again(
    big: Screen, straight: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    target = tmp_path / "s.zarr"
    for _ in range(40):
        if attempt(big, target, 11).returncode == 0:
            break
    assert contents(target) == straight[0]


def test_of_two_processes_one_makes_the_store_and_both_succeed(
    big: Screen, straight: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    target = tmp_path / "s.zarr"
    command = [sys.executable, str(KILLED), str(big.path), str(target), "0"]
    both = [
        subprocess.Popen(
            command,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert contents(target) == straight[0]
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing(
    big: Screen, tmp_path: Path
) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        [sys.executable, "-m", "vcell", "prepare", str(big.path), "-o", "s.zarr"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=small_files,
        check=False,
    )
    assert done.returncode == 1
    assert "no space left while writing s.zarr" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("array", ["data", "indices"])
def test_a_flipped_byte_is_found(prepared: Callable[..., Store], codec: str, array: str) -> None:
    store = prepared(codec=codec)
    store.verify()
    shard = store.path / "X" / array / "c" / "0"
    data = bytearray(shard.read_bytes())
    for place in (50, len(data) - 10):  # in a chunk, in the index
        broken = bytearray(data)
        broken[place] ^= 0x10
        shard.write_bytes(broken)
        with pytest.raises(UserError, match=f"X/{array}/c/0 is damaged") as caught:
            Store.open(store.path).verify()
        with pytest.raises(UserError, match=f"X/{array}/c/0 is damaged"):
            Store.open(store.path).read()
        assert "\n" not in caught.value.message


def test_a_missing_or_short_shard_is_found(store_path: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(store_path, tmp_path / "s.zarr")
    shard = broken / "X" / "data" / "c" / "0"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match="is damaged"):
        Store.open(broken).verify()
    shard.unlink()
    with pytest.raises(UserError, match="No such file"):
        Store.open(broken).verify()


def test_two_ways_to_ask_for_the_impossible(screen: Screen, vcell: Callable[..., Ran]) -> None:
    done = vcell("prepare", screen.path, "--max-mito", "20")
    assert (done.code, "a share: 0.2 for 20 %" in done.err) == (2, True)
    done = vcell("prepare", screen.path, "--n-genes", "20")
    assert (done.code, "n-genes needs genes" in done.err) == (2, True)


def test_the_command_tells_what_it_made(
    screen: Screen, tmp_path: Path, vcell: Callable[..., Ran]
) -> None:
    (tmp_path / "genes.csv").write_text("gene,rank\nG7,1\nG50,2\nG9,3\n")
    words = ("prepare", screen.path, "-o", "s.zarr", "--genes", "genes.csv", "--n-genes", "2")
    done = vcell(*words, "--json")
    assert done.code == 0, done.err
    assert (done.json["n_cells"], done.json["n_genes"], done.json["reused"]) == (900, 2, False)
    assert Store.open(tmp_path / "s.zarr").genes.tolist() == ["G7", "G50"]
    assert "is there already" in vcell(*words).out


def test_prepare_of_a_missing_file_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        prepare([tmp_path / "no.h5ad"], tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []
