"""The rule of what may be replaced, through the public function."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pytest

from vcell import outputs
from vcell.errors import UserError


def refused(*targets: Path, **rules: object) -> str:
    with pytest.raises(UserError) as told:
        outputs.check(*targets, **rules)  # type: ignore[arg-type]
    assert told.value.exit_code == 2
    return told.value.message


def page(path: Path) -> Path:
    path.write_text('<!doctype html>\n<meta name="generator" content="vcell 0.1.0">')
    return path


def test_a_new_file_may_be_written_and_checking_leaves_nothing(tmp_path):
    outputs.check(tmp_path / "new.h5ad", tmp_path / "other.csv", inputs=[tmp_path / "in.h5ad"])
    assert list(tmp_path.iterdir()) == []


def test_files_made_by_vcell_are_replaced_only_if_allowed(tmp_path):
    ours = page(tmp_path / "page.html")
    assert "exists already" in refused(ours)
    outputs.check(ours, overwrite=True)


@pytest.mark.parametrize("content", ["notes", "{}", "a,b\n1,2\n", "<!doctype html><p>mine</p>"])
def test_files_not_made_by_vcell_are_never_replaced(tmp_path, content):
    theirs = tmp_path / "theirs"
    theirs.write_text(content)
    assert "was not made by vcell" in refused(theirs, overwrite=True)


def test_files_written_by_anndata_are_not_replaced(tmp_path):
    path = tmp_path / "theirs.h5ad"
    anndata.AnnData(np.ones((2, 2), np.float32)).write_h5ad(path)
    assert "was not made by vcell" in refused(path, overwrite=True)


def test_an_empty_file_or_folder_may_be_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    outputs.check(tmp_path / "empty")
    outputs.check(tmp_path / "file", overwrite=True)
    assert "exists already" in refused(tmp_path / "file")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_never_replaced(device):
    assert "neither a file nor a folder" in refused(Path(device), overwrite=True)


def other_names(path: Path) -> dict[str, Path]:
    folder = path.parent
    (folder / "soft").symlink_to(path.name)
    os.link(path, folder / "hard")
    (folder / "twice").symlink_to("soft")
    (folder / "around").symlink_to(folder)
    return {
        "itself": path,
        "symbolic link": folder / "soft",
        "link to a link": folder / "twice",
        "hard link": folder / "hard",
        "dots": folder / ".." / folder.name / path.name,
        "through a linked folder": folder / "around" / path.name,
        "relative": Path(os.path.relpath(path)),
    }


def test_an_input_is_not_an_output_under_another_name(tmp_path):
    source = page(tmp_path / "in.html")
    for how, name in other_names(source).items():
        assert "input" in refused(name, inputs=[source], overwrite=True), how
        assert "input" in refused(source, inputs=[name], overwrite=True), how


def test_nothing_is_written_into_an_input_folder_or_over_one(tmp_path):
    source = tmp_path / "cells.zarr"
    (source / "X").mkdir(parents=True)
    (source / "X" / "0").write_bytes(b"1")
    (tmp_path / "link").symlink_to(source)
    os.link(source / "X" / "0", tmp_path / "chunk")
    for target in ("cells.zarr/out.h5ad", "cells.zarr/X/0", "link/out.h5ad", "chunk"):
        assert "lies inside" in refused(tmp_path / target, inputs=[source], overwrite=True)
    inner = source / "X" / "0"
    assert "holds" in refused(source, inputs=[inner], overwrite=True)


def test_one_name_for_two_outputs_is_refused(tmp_path):
    assert "twice" in refused(tmp_path / "a", tmp_path / "." / "a")


def test_a_wrong_suffix_is_refused(tmp_path):
    words = refused(tmp_path / "q.xlsx", suffixes=(".parquet", ".csv"))
    assert words.endswith("q.xlsx: the name of this output must end in .parquet or .csv")


def test_a_missing_folder_is_reported_first(tmp_path):
    assert "is not a folder" in refused(tmp_path / "gone" / "out.csv")
    outputs.check(tmp_path / "gone" / "deep" / "out", parents=True)
    assert not (tmp_path / "gone").exists()


def test_an_unwritable_folder_is_reported_first(tmp_path):
    if subprocess.run(["mount", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no mount here")
    shut = tmp_path / "shut"
    shut.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(shut)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        assert "cannot be written: Read-only file system" in refused(shut / "out.csv")
    finally:
        subprocess.run(["umount", str(shut)], check=True)


def test_a_results_folder_with_a_users_file_is_not_replaced(tmp_path):
    target = tmp_path / "scores"
    with outputs.folder(target) as aside:
        (aside / "table.csv").write_text("1")
    outputs.check(target, overwrite=True)
    (target / "notes.txt").write_text("mine")
    assert "holds notes.txt, which vcell did not make" in refused(target, overwrite=True)
    assert (target / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("words", [("convert", "cells.h5ad"), ("prepare", "cells.h5ad", "-o")])
def test_a_zarr_folder_with_a_users_file_is_not_replaced(typed, made, tmp_path, words):
    target = tmp_path / "ours.zarr"
    assert typed(*words, target, cwd=made).code == 0
    outputs.check(target, overwrite=True)
    (target / "obs" / "notes.txt").write_text("mine")
    said = refused(target, overwrite=True)
    assert "holds obs/notes.txt, which vcell did not make" in said


def test_leftovers_of_dead_processes_are_removed_and_others_kept(tmp_path):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    for left in (f"out.h5ad.tmp-{dead.pid}", f"out.h5ad.tmp-{dead.pid}.h5ad"):
        (tmp_path / left).write_text("half")
    (tmp_path / f"out.zarr.tmp-{dead.pid}").mkdir()
    living = tmp_path / f"out.h5ad.tmp-{os.getppid()}"
    living.write_text("half")
    others = tmp_path / f"other.h5ad.tmp-{dead.pid}"
    others.write_text("half")
    outputs.check(tmp_path / "out.h5ad", tmp_path / "out.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([living.name, others.name])


def test_the_trial_of_a_dead_process_is_removed_from_the_folder_around(tmp_path):
    (tmp_path / "x.csv.tmp-999999999").touch()
    outputs.check(tmp_path / "new" / "x.csv", parents=True)
    assert list(tmp_path.iterdir()) == []
