"""Every path of every command: what is read is never written, what is not ours never replaced.

The commands are found, not listed: one that is new fails here until it says of each path whether it
is read or made, and until `MAKES` says how it makes what it makes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vcell.cli import cli
from vcell.config import OutputPath
from vcell.config.options import SettingOption

#: Paths that are read, by their names; `runs` is looked into, and runs are put there.
READ = {
    "bulk", "cells", "control_cells", "data", "evaluate", "features", "file", "files", "folds_file",
    "gene_set", "genes", "graph", "held_out", "ids", "like", "pairs", "perturb_seq",
    "perturbations", "prediction", "prior_effects", "pseudobulk", "real", "screen", "sets",
    "source", "sources", "table", "targets", "triples", "validation", "vocabulary",
}  # fmt: skip
#: Commands of the core that take paths in ways of their own, with tests of their own.
OF_THE_CORE = {"config init", "init", "runs compare", "runs list", "runs rm", "runs show"}

SYNTHETIC = ("--model", "synthetic:gf-6L-10M-i2048")
GRAPH = ("graph-profile", "--graph", "{}")
#: How each output is asked for, {} being a file that is read, and how its name ends; of a folder
#: that files are put into, one of them; "/" where their names are known only once it has read.
MAKES = {
    "convert target": (("convert", "{}"), ".h5ad"),
    "de output": (("de", "{}", "-o"), ".csv"),
    "demo output": (("demo", "-o"), "/demo.json"),
    "effects output": (("effects", "{}", "-o"), ".parquet"),
    "embed output": (("embed", "latest", "{}", "-o"), ".h5ad"),
    "evaluate output": (("evaluate", "{}", "{}", "-o"), ""),
    "evaluate cache": (("evaluate", "{}", "{}", "--cache"), "/"),
    "features output": (("features", "{}", "-o"), "/damaged.npz"),
    "figures output": (("figures", "roc", "-o"), "/roc.svg"),
    "gpu-tune monitor log_file": (("gpu-tune", "monitor", "--readings", "1", "--log-file"), ""),
    "graph-profile output": ((*GRAPH, "-o"), ".html"),
    "graph-profile save": ((*GRAPH, "--save"), ""),
    "inspect html": (("inspect", "{}", "--html"), ".html"),
    "isp embed output": (("isp", "embed", "{}", *SYNTHETIC, "-o"), ".h5ad"),
    "isp run export_upstream_pickles": (
        ("isp", "run", "{}", *SYNTHETIC, "--export-upstream-pickles"), "/1_raw.pickle"
    ),
    "isp stats output": (("isp", "stats", "-o"), ".csv"),
    "isp-bench output": (("isp-bench", "{}", "-o"), ".html"),
    "pack output": (("pack", "{}", "-o"), ".vcc"),
    "pipeline output": (
        ("pipeline", "bulk", "--cells", "{}", "--cell-type-column", "x", "-o"), "/qc.h5ad"
    ),
    "predict output": (("predict", "--control-cells", "{}", "-o"), ".h5ad"),
    "predict-bulk output": (("predict-bulk", "latest", "{}", "-o"), ".csv"),
    "predict explain": (("predict", "--explain"), ""),
    "predict pack": (("predict", "--pack"), ".vcc"),
    "prepare output": (("prepare", "{}", "-o"), ""),
    "pseudobulk output": (("pseudobulk", "{}", "-o"), ".npz"),
    "report output": (("report", "-o"), ".html"),
    "report plots_only": (("report", "--plots-only"), "/"),
    "select-genes output": (("select-genes", "{}", "-o"), ""),
    "simulate out": (("simulate",), ".h5ad"),
}  # fmt: skip
STARTS = {  # commands that put a run into a folder of runs
    "isp run": ("isp", "run", "{}", *SYNTHETIC),
    "train-bulk": ("train-bulk", "{}", "--cell-type-column", "x"),
    "train-gmvae": ("train-gmvae", "{}"),
    "train-graph": ("train-graph", "{}"),
    "train-vcc": ("train-vcc", "{}"),
}


def within(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Yield the words of a command and of all below it, with the commands."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from within(found, (*words, name))


def every_group() -> Iterator[tuple[str, click.Command]]:
    """Yield the words of each group of commands, and the group."""
    yield from (pair for pair in within(cli) if isinstance(pair[1], click.Group))


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield the words of each command that does something, and the command."""
    for name, command in within(cli):
        if name and (not isinstance(command, click.Group) or command.invoke_without_command):
            yield name, command


def paths_of(command: click.Command) -> dict[str, str]:
    """Return the paths that a command takes, with the kind that it makes of each; "" is read."""
    found = {}
    for param in command.params:
        if isinstance(param, SettingOption):
            if param.setting.base is Path:
                found[param.setting.name] = param.setting.made
        elif isinstance(param.type, click.Path):
            found[str(param.name)] = param.type.made if isinstance(param.type, OutputPath) else ""
    return found


def test_every_path_declares_whether_it_is_read_or_written():
    paths = {name: paths_of(command) for name, command in every_command()}
    unsaid = {
        f"{name} {path}"
        for name, of in paths.items()
        for path, made in of.items()
        if not made and path not in READ | {"runs"} and name not in OF_THE_CORE
    }
    assert unsaid == set(), "say made= where the option is declared, or add it to READ"
    made = {f"{name} {path}" for name, of in paths.items() for path, how in of.items() if how}
    assert made == set(MAKES)


def test_replacing_files_needs_the_overwrite_flag():
    """Outputs are replaced only with --overwrite; a log is appended to."""
    for name, command in every_command():
        whole = [path for path, made in paths_of(command).items() if made == "whole"]
        flags = {flag for param in command.params for flag in param.opts}
        if whole and name not in ("isp-bench", "gpu-tune monitor"):
            assert "--overwrite" in flags, name


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_fits_a_small_terminal(typed, monkeypatch, flag, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in (*every_command(), *every_group()):
        if any(flag in [*param.opts, "--help"] for param in command.params):
            ran = typed(*name.split(), flag)
            assert ran.code == 0, name
            assert [line for line in ran.out.splitlines() if len(line) > columns] == [], name


def test_an_example_on_a_narrow_terminal_is_broken_as_in_a_shell(typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = typed("train-bulk", "--help").out.partition("Example:\n")[2].partition("\n\n")[0]
    first, *_, last = text.replace("\\\n", " ").splitlines()
    assert first.split() == [
        "vcell", "train-bulk", "cells.h5ad", "--patient-column", "donor", "--outcome-column",
        "response", "--cell-type-column", "cell_type", "--pairs", "pairs.csv",
    ]  # fmt: skip
    assert last == "    vcell train-bulk --resume latest"


def arguments(command: click.Command) -> list[str]:
    """Return words that a command cannot do without."""
    needed = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    return [str(p.type.choices[0]) if isinstance(p.type, click.Choice) else "x" for p in needed]


def test_a_wrong_variable_is_named_by_every_command(typed, monkeypatch):
    for name, command in every_command():
        settings = [p.setting for p in command.params if isinstance(p, SettingOption)]
        read = [s for s in settings if s.choices or s.base not in (str, Path)]
        for setting in [s for s in read if s.many] + [s for s in read if not s.many][:2]:
            words = name.upper().replace("-", "_").replace(" ", "_")
            variable = f"VCELL_{words}_{setting.variable}"
            with monkeypatch.context() as patch:
                patch.setenv(variable, "abc")
                ran = typed(*name.split(), *arguments(command))
            assert (ran.code, ran.out) == (2, ""), f"{variable}: {ran.err}"
            assert f"variable {variable}" in ran.err


@pytest.fixture
def damaged(tmp_path):
    (tmp_path / "damaged.h5ad").write_bytes(b"whoever reads it complains of that")
    return tmp_path / "damaged.h5ad"


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
    }


def refused(typed, name: str, out: str, *, overwrite: bool = False) -> str:
    """Request an output; nothing may be read, written or printed except one sentence."""
    words, _ = MAKES[name]
    flags = ("--overwrite",) if overwrite and replaces(name) else ()
    ran = typed(*(word.format("damaged.h5ad") for word in words), out, *flags)
    assert (ran.code, ran.out) == (2, ""), f"{name}: {ran.err}"
    said = [line for line in ran.err.splitlines() if not line.startswith("  hint: ")]
    assert len(said) == 1, ran.err
    assert said[0].startswith("error: ")
    assert "whoever" not in ran.err
    return ran.err


def replaces(name: str) -> bool:
    command = dict(every_command())[name.rpartition(" ")[0]]
    return any("--overwrite" in param.opts for param in command.params)


@pytest.mark.parametrize("name", MAKES)
def test_foreign_files_are_never_replaced(typed, damaged, name):
    ending = MAKES[name][1]
    if ending == "/":
        pytest.skip("the names of its files are known when it has read")
    place = damaged.parent / f"out{ending}"
    place.parent.mkdir(exist_ok=True)
    place.write_text("the user's own\n")
    before = everything(damaged.parent)
    for overwrite in (False, True):
        said = refused(typed, name, f"out{'' if '/' in ending else ending}", overwrite=overwrite)
        assert "out" in said
        assert everything(damaged.parent) == before


@pytest.mark.parametrize("name", MAKES)
def test_an_unwritable_output_is_reported_before_reading(typed, damaged, name):
    (damaged.parent / "file").touch()
    before = everything(damaged.parent)
    ending = "" if "/" in MAKES[name][1] else MAKES[name][1]
    for place in ("file/out", "/proc/no"):
        said = refused(typed, name, place + ending)
        assert "is not a folder" in said or "cannot be written" in said
        assert everything(damaged.parent) == before


@pytest.mark.parametrize("name", STARTS)
def test_an_unwritable_runs_folder_is_reported_before_reading(typed, damaged, name):
    words = [word.format("damaged.h5ad") for word in STARTS[name]]
    for place in ("damaged.h5ad", "/proc/no"):
        ran = typed(*words, "--runs", place)
        assert (ran.code, ran.out) == (2, "")
        assert "is not a folder" in ran.err or "cannot be written" in ran.err
    assert [p.name for p in damaged.parent.iterdir()] == ["damaged.h5ad"]


@pytest.mark.parametrize("name", STARTS)
def test_no_run_is_put_into_a_store_of_cells(typed, damaged, name):
    store = damaged.parent / "cells.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    (damaged.parent / "link").symlink_to(store)
    before = everything(damaged.parent)
    words = [word.format("damaged.h5ad") for word in STARTS[name]]
    for place in ("cells.zarr", "cells.zarr/deep/runs", "link/runs"):
        ran = typed(*words, "--runs", place)
        assert (ran.code, ran.out) == (2, ""), ran.err
        assert "a zarr store" in ran.err
    assert everything(damaged.parent) == before


@pytest.mark.parametrize("name", [name for name in MAKES if "{}" in MAKES[name][0]])
def test_an_input_is_never_an_output(typed, damaged, name):
    ending = "" if "/" in MAKES[name][1] else MAKES[name][1]
    (damaged.parent / f"soft{ending}").symlink_to(damaged.name)
    os.link(damaged, damaged.parent / f"hard{ending}")
    before = everything(damaged.parent)
    for place in ("damaged.h5ad", f"soft{ending}", f"hard{ending}"):
        assert "input" in refused(typed, name, place, overwrite=True)
        assert everything(damaged.parent) == before


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--like", "{}", "-o", "{}"),
        ("predict", "--evaluate", "{}", "--pack", "{}"),
        ("isp", "embed", "c.h5ad", *SYNTHETIC, "--vocabulary", "{}", "-o", "{}"),
        ("isp", "stats", "--perturb-seq", "{}", "-o", "{}"),
        ("features", "a.gmt", "--ids", "{}", "-o", "{}"),
        ("graph-profile", "--triples", "{}", "-o", "{}"),
        ("pack", "c.h5ad", "--genes", "{}", "-o", "{}"),
        ("demo", "--data", "{}", "-o", "{}"),
        ("pipeline", "bulk", "--pairs", "{}", "-o", "{}"),
    ],
)
def test_other_files_that_a_command_reads_are_never_outputs(typed, damaged, words):
    before = everything(damaged.parent)
    ran = typed(*(word.format("damaged.h5ad") for word in words))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: damaged.h5ad is an input: it is not written to")
    assert everything(damaged.parent) == before


def test_no_command_writes_to_the_projects_cells(typed, damaged):
    (damaged.parent / "vcell.toml").write_text('[data]\ncells = "damaged.h5ad"\n')
    before = everything(damaged.parent)
    for name in MAKES:
        if name.split(" ")[0] != "demo":  # it has cells of its own
            assert "damaged.h5ad" in refused(typed, name, "damaged.h5ad", overwrite=True)
    assert everything(damaged.parent) == before
