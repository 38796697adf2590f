"""`vcell pack --check`: archives of any origin, including hostile ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import zstandard

from tests.pack.conftest import CELLS, NAMES, prediction_2025, prediction_2026
from tests.support import clean_environment


def packed(cells, folder) -> bytes:
    cells.write_h5ad(folder / "tmp.h5ad")
    raw = (folder / "tmp.h5ad").read_bytes()
    (folder / "tmp.h5ad").unlink()
    return zstandard.ZstdCompressor().compress(raw)


def archive(path, **members: bytes) -> None:
    """Write a tar; `__` in a member's name stands for a dot."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def official_2026(folder, **changes) -> None:
    """An archive in the layout of the challenge's tool."""
    cells = prediction_2026()
    cells.obs.index = [str(i) for i in range(cells.n_obs)]
    meta = {
        "schema": 1, "nnz": int(cells.X.nnz), "n_obs": cells.n_obs, "n_vars": cells.n_vars,
        "cli_version": "0.3.0", "contexts": ["A", "B"],
    }  # fmt: skip
    members = {"meta__json": json.dumps(meta | changes).encode()}
    archive(folder / "p.vcc", **members, pred__h5ad__zst=packed(cells, folder))


@pytest.fixture
def check(here):
    return lambda *words: here(
        "pack", "--check", "p.vcc", "--genes", "genes.csv", "--contexts", "A,B",
        "--cells-per-perturbation", CELLS, *words,
    )  # fmt: skip


def refused(ran, said: str) -> None:
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_an_official_2025_archive_is_recognised(check, here):
    cells = prediction_2025()
    cells.X = np.log1p(cells.X * 0.7)
    archive(
        here.folder / "p.vcc",
        pred__h5ad__zst=packed(cells, here.folder),
        watermark__txt=b"vcc-prep",
    )
    ran = check("--json")
    assert ran.code == 0, ran.err
    assert "vcc2025 archive" in ran.err
    assert ran.json["n_cells"] == cells.n_obs
    assert ran.json["controls"] == CELLS


def test_an_official_2026_archive_is_recognised(check, here):
    official_2026(here.folder)
    ran = check("--json", "--perturbations", "perts.csv")
    assert ran.code == 0, ran.err
    assert ran.json["rules"] == "vcc2026"
    assert ran.json["contexts"] == {"A": len(NAMES) * CELLS, "B": len(NAMES) * CELLS}


@pytest.mark.parametrize("year", ["2025", "2026"])
def test_vcells_own_archives_pass(check, here, year, pack25, pack26):
    (prediction_2025 if year == "2025" else prediction_2026)().write_h5ad(here.folder / "p.h5ad")
    assert (pack25 if year == "2025" else pack26)().code == 0
    assert check().code == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nnz": 5}, "says nnz = 5"),
        ({"n_obs": "many"}, "says n_obs = 'many'"),
        ({"contexts": ["D", "E"]}, "names other contexts"),
        ({"contexts": 3}, "names other contexts"),
    ],
)
def test_a_description_of_another_prediction_is_refused(check, here, changes, said):
    official_2026(here.folder, **changes)
    refused(check(), said)


def test_the_prediction_inside_is_checked_like_any_other(check, here):
    cells = prediction_2026()
    cells.X.data[3] = np.nan
    meta = json.dumps({"schema": 1}).encode()
    archive(here.folder / "p.vcc", meta__json=meta, pred__h5ad__zst=packed(cells, here.folder))
    refused(check(), "not finite")


def test_an_archive_is_not_packed_again(here):
    official_2026(here.folder)
    refused(here("pack", "p.vcc", "-o", "q.vcc"), "packed already")


class TestHostile:
    def test_no_such_file(self, check):
        refused(check(), "p.vcc: no such file")

    @pytest.mark.parametrize(
        ("content", "said"),
        [(b"", "not a readable .vcc"), (b"hello" * 400, "not a readable .vcc")],
    )
    def test_not_a_tar(self, check, here, content, said):
        (here.folder / "p.vcc").write_bytes(content)
        refused(check(), said)

    @pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "x/../../evil", "extra.txt"])
    def test_members_no_packer_writes(self, check, here, name):
        archive(here.folder / "p.vcc", **{name: b"evil", "pred__h5ad__zst": b"x"})
        refused(check(), "has a member")
        assert sorted(p.name for p in here.folder.iterdir()) == ["genes.csv", "p.vcc", "perts.csv"]
        assert not (here.folder.parent / "evil.txt").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
    def test_links_and_devices(self, check, here, kind):
        info = tarfile.TarInfo("pred.h5ad.zst")
        info.type, info.linkname = kind, "/etc/passwd"
        with tarfile.open(here.folder / "p.vcc", "w") as tar:
            tar.addfile(info)
        refused(check(), "not a plain file")

    def test_a_member_twice(self, check, here):
        with tarfile.open(here.folder / "p.vcc", "w") as tar:
            for content in (b"a", b"b"):
                info = tarfile.TarInfo("pred.h5ad.zst")
                info.size = 1
                tar.addfile(info, io.BytesIO(content))
        refused(check(), "two members")

    def test_no_prediction(self, check, here):
        archive(here.folder / "p.vcc", watermark__txt=b"vcc-prep")
        refused(check(), "has no member pred.h5ad.zst")

    @pytest.mark.parametrize(
        ("content", "said"), [(b"", "is empty"), (b"not zstandard", "is damaged")]
    )
    def test_a_member_that_is_not_a_prediction(self, check, here, content, said):
        archive(here.folder / "p.vcc", pred__h5ad__zst=content, watermark__txt=b"vcc-prep")
        refused(check(), said)

    def test_an_archive_with_the_mark_of_neither_year(self, check, here):
        archive(here.folder / "p.vcc", pred__h5ad__zst=packed(prediction_2025(), here.folder))
        refused(check(), "neither meta.json")

    @pytest.mark.parametrize("content", [b"[" * 60_000, b"{", b"[1]", b"\xff\xfe"])
    def test_a_description_that_is_not_a_json_object(self, check, here, content):
        archive(here.folder / "p.vcc", meta__json=content, pred__h5ad__zst=b"x")
        refused(check(), "meta.json is not")

    def test_an_oversized_description_is_not_read(self, check, here):
        archive(here.folder / "p.vcc", meta__json=b" " * 70_000, pred__h5ad__zst=b"x")
        refused(check(), "it should be tiny")

    def test_every_truncation_is_reported_in_one_line(self, check, here):
        official_2026(here.folder)
        whole = (here.folder / "p.vcc").read_bytes()
        with tarfile.open(here.folder / "p.vcc") as tar:
            last = tar.getmembers()[-1]
        for size in np.linspace(1, last.offset_data + last.size - 1, 12).astype(int):
            (here.folder / "p.vcc").write_bytes(whole[:size])
            ran = check()
            assert ran.code == 2, (size, ran.err)
            assert "Traceback" not in ran.err

    def test_a_truncated_prediction_in_a_complete_archive(self, check, here):
        cells = packed(prediction_2025(), here.folder)
        archive(
            here.folder / "p.vcc",
            pred__h5ad__zst=cells[: len(cells) // 2],
            watermark__txt=b"vcc-prep",
        )
        refused(check(), "pred.h5ad.zst is cut short")

    def test_flipped_bits_never_crash(self, check, here):
        official_2026(here.folder)
        whole = bytearray((here.folder / "p.vcc").read_bytes())
        rng = np.random.default_rng(0)
        for at in rng.integers(0, len(whole), 12):
            spoiled = whole.copy()
            spoiled[at] ^= 0xFF
            (here.folder / "p.vcc").write_bytes(spoiled)
            ran = check()
            assert ran.code in (0, 2), (at, ran.err)  # 0: a byte that means nothing
            assert "Traceback" not in ran.err

    @pytest.mark.parametrize(
        "size", [b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"77777777777\0", b"hello world!"]
    )
    def test_an_impossible_size(self, check, here, size):
        official_2026(here.folder)
        with tarfile.open(here.folder / "p.vcc") as tar:
            start = tar.getmember("pred.h5ad.zst").offset
        whole = bytearray((here.folder / "p.vcc").read_bytes())
        whole[start + 124 : start + 136] = size
        whole[start + 148 : start + 156] = b" " * 8
        whole[start + 148 : start + 156] = b"%06o\0 " % sum(whole[start : start + 512])
        (here.folder / "p.vcc").write_bytes(whole)
        refused(check(), "not a readable .vcc archive")

    @pytest.mark.parametrize(
        ("headers", "said"),
        [
            ({"size": "-5"}, "not a readable .vcc archive"),
            ({"path": "../../evil"}, "has a member '../../evil'"),
            ({"comment": "x" * (1 << 20)}, "a header of 1,048,"),
            (
                {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 15},
                "not a readable .vcc archive",
            ),
        ],
    )
    def test_extended_headers(self, check, here, headers, said):
        info = tarfile.TarInfo("pred.h5ad.zst")
        content = packed(prediction_2025(), here.folder)
        info.pax_headers, info.size = headers, len(content)
        with tarfile.open(here.folder / "p.vcc", "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(info, io.BytesIO(content))
        refused(check(), said)

    def test_a_size_in_an_extended_header_counts(self, check, here):
        """Tools write members of more than 8 GiB like this."""
        official_2026(here.folder)
        with tarfile.open(here.folder / "p.vcc") as tar:
            members = [(one, tar.extractfile(one).read()) for one in tar]
        with tarfile.open(here.folder / "p.vcc", "w", format=tarfile.PAX_FORMAT) as tar:
            for info, content in members:
                info.pax_headers = {"size": str(len(content))}
                tar.addfile(info, io.BytesIO(content))
        whole = bytearray((here.folder / "p.vcc").read_bytes())
        start = whole.index(b"pred.h5ad.zst\0")
        whole[start + 124 : start + 136] = b"00000000000\0"
        whole[start + 148 : start + 156] = b" " * 8
        whole[start + 148 : start + 156] = b"%06o\0 " % sum(whole[start : start + 512])
        (here.folder / "p.vcc").write_bytes(whole)
        ran = check()
        assert ran.code == 0, ran.err

    def test_thousands_of_headers(self, check, here):
        with tarfile.open(here.folder / "p.vcc", "w", format=tarfile.PAX_FORMAT) as tar:
            for number in range(3000):
                info = tarfile.TarInfo(f"f{number}")
                info.type = tarfile.XHDTYPE
                tar.addfile(info)
        refused(check(), "too many members")

    def test_messages_name_the_archive(self, check, here):
        words = zstandard.ZstdCompressor().compress(b"hello" * 99)
        archive(here.folder / "p.vcc", pred__h5ad__zst=words, watermark__txt=b"vcc-prep")
        refused(check(), "error: p.vcc: pred.h5ad.zst is not a file with cells")

    def test_a_bomb_stops_at_the_limit(self, tmp_path):
        from vcell_pack import archive as vcc

        from vcell.errors import UserError

        bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 26))
        assert len(bomb) < 20_000
        archive(tmp_path / "p.vcc", pred__h5ad__zst=bomb, watermark__txt=b"vcc-prep")
        with pytest.raises(UserError, match="unpacks to more than"):
            vcc.read(tmp_path / "p.vcc", tmp_path / "out", most=1 << 22)
        assert (tmp_path / "out").stat().st_size <= 1 << 22


def test_a_bomb_cannot_fill_memory(tmp_path):
    """A frame of a gigabyte of zeros is read in steps."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    step = bytes(1 << 24)
    bomb = b"".join(packer.compress(step) for _ in range(64)) + packer.flush()
    archive(tmp_path / "p.vcc", pred__h5ad__zst=bomb, watermark__txt=b"vcc-prep")
    code = (
        "from pathlib import Path; from vcell_pack import archive;"
        "archive.read(Path('p.vcc'), None);"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(ran.stdout) < 200 << 10  # KiB
