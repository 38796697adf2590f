"""Bytecode that ``vcell doctor --compile`` writes, also where Python itself is told not to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vcell import bytecode


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("ONE = 1\n")
    (folder / "inner/module.py").write_text("TWO = 2\n")
    monkeypatch.setattr(bytecode, "packages", lambda: [folder])
    return folder


def test_bytecode_is_written_and_known_to_be_current(package):
    assert list(bytecode.sources().values()) == [False, False]
    bytecode.write()
    assert list(bytecode.sources().values()) == [True, True]


def test_python_takes_it(package):
    bytecode.write()
    words = [sys.executable, "-v", "-B", "-c", "import package.inner.module"]
    ran = subprocess.run(words, cwd=package.parent, capture_output=True, text=True, check=True)
    assert "code object from '" in ran.stderr  # a file of bytecode; a source has no quotes
    assert f"code object from {package}" not in ran.stderr


@pytest.mark.parametrize("change", ["size", "time"])
def test_bytecode_of_an_older_source_does_not_count(package, change):
    bytecode.write()
    path = package / "inner/module.py"
    if change == "size":
        path.write_text("TWO = 2.0\n")
    else:
        os.utime(path, (1e9, 1e9))
    assert bytecode.sources()[path] is False
    bytecode.write()
    assert bytecode.sources()[path] is True


def test_a_damaged_file_and_a_source_with_an_error_are_passed_over(package, capfd):
    (package / "faulty.py").write_text("def\n")
    bytecode.write()
    assert bytecode.sources()[package / "faulty.py"] is False
    assert not any(capfd.readouterr())
    next((package / "__pycache__").iterdir()).write_bytes(b"short")
    assert bytecode.sources()[package / "__init__.py"] is False


def test_doctor_counts_it(vcell):
    found = vcell("doctor", "--json").json["findings"]
    about = next(one for one in found if one["what"] == "bytecode")
    n = len(list(Path(bytecode.__file__).parent.rglob("*.py")))
    assert int(about["found"].split()[2].replace(",", "")) > n
