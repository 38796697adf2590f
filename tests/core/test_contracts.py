"""Contracts between modules that import-linter cannot express."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict

import grimp
import pytest


@pytest.fixture(scope="module")
def imports(repository):
    """Who imports whom, lazy imports included, those for type checkers left out.

    A plugin's door imports its work when the command runs, and the work the settings at the door:
    the one circle that is meant. What a door imports of its own plugin is left out.
    """
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    roots = settings["tool"]["importlinter"]["root_packages"]
    graph = grimp.build_graph(*roots, exclude_type_checking_imports=True, cache_dir=None)
    found = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    for door in roots:
        if door != "vcell":
            found[door] = {name for name in found[door] if not name.startswith(f"{door}.")}
    return found


def circles(imports):
    """Return the strongly connected modules, by Tarjan's algorithm."""
    number, low, stack, found = {}, {}, [], []

    def visit(module):
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in imports.get(module, ()):
            if other not in number:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            place = stack.index(module)
            found.append(tuple(sorted(stack[place:])))
            del stack[place:]

    for module in sorted(imports):
        if module not in number:
            visit(module)
    return {one for one in found if len(one) > 1}


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {("b", "c")}


def test_no_module_imports_itself_through_others(imports):
    assert circles(imports) == set()


def test_the_contracts_hold_for_every_plugin(repository):
    """A plugin that the settings do not list could import anything."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]
    plugins = {path.name for path in (repository / "plugins").glob("vcell_*")}
    assert set(settings["root_packages"]) == {"vcell", *plugins}
    assert set(settings["contracts"][0]["protected_modules"]) == plugins


# Who may read the column of perturbations without `vcell.screen.design`: what finds it, what counts
# or copies labels, and the metrics, whose definitions say which cells are compared.
READERS = (
    "vcell/screen/",
    "vcell/data/labels.py",
    "vcell/metrics/",
    "plugins/vcell_inspect/",
    "plugins/vcell_pack/",
    "plugins/vcell_predict/after.py",
)
READS_LABELS = re.compile(r"\.(?:obs|codes)\([^()]*perturbation|index\([\w.]*control\)")
PARSES_NAMES = re.compile(r"""\[(?=[^]]*\+)[+,;|]{2,}\]|(?:split|partition)\((?:sep=)?["']\+["']""")


def sources(repository):
    for folder in ("vcell", "plugins"):
        for path in sorted((repository / folder).rglob("*.py")):
            yield path.relative_to(repository).as_posix(), path.read_text(encoding="utf-8")


def test_only_the_screen_pairs_labels_with_controls(repository):
    found = {
        name
        for name, text in sources(repository)
        if READS_LABELS.search(text) and not name.startswith(READERS)
    }
    assert found == set()


def test_only_the_screen_takes_names_of_perturbations_apart(repository):
    found = {
        name
        for name, text in sources(repository)
        if PARSES_NAMES.search(text) and not name.startswith("vcell/screen/targets.py")
    }
    assert found == set()


# What reads events without `vcell.runs.history`: a sweep its own trials; two pass events on as they
# are, to trackers and into a file.
RAW_EVENTS = {
    "vcell/train/sweep.py", "vcell/train/sinks.py", "plugins/vcell_train_vcc/report.py",
}  # fmt: skip
READS_EVENTS = re.compile(r"(?<!design)\.events\((?!int\()|\bTail[.(]")


def test_only_the_history_of_a_run_interprets_its_events(repository):
    found = {name for name, text in sources(repository) if READS_EVENTS.search(text)}
    assert {name for name in found if not name.startswith("vcell/runs/")} == RAW_EVENTS


def test_the_patterns_find_what_they_are_for():
    assert READS_LABELS.search("column = source.obs(labels.perturbation_column)")
    assert READS_LABELS.search("codes, names = store.codes(labels['perturbation_column'])")
    assert READS_LABELS.search("control = names.index(labels.control)")
    assert PARSES_NAMES.search('re.split(r"[+,;|]", name)')
    assert PARSES_NAMES.search('re.split("[,+]", name)')
    assert PARSES_NAMES.search('name.split("+")')
    assert PARSES_NAMES.search("first, _, second = name.rpartition('+')")
    assert READS_EVENTS.search("run.events()")
    assert READS_EVENTS.search("Run(path).events(kinds)")
    assert READS_EVENTS.search('Tail(path / "events.jsonl")')


def test_every_class_has_a_name_of_its_own(repository):
    """A name that stands for two things must be explained each time it is read."""
    homes = defaultdict(list)
    for name, text in sources(repository):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_module_of_train_vcc_is_long(repository):
    """What every trainer needs is in the core: the plugin holds its models, and little else."""
    lines = {
        path: len(path.read_text().splitlines())
        for path in (repository / "plugins" / "vcell_train_vcc").rglob("*.py")
    }
    assert {name: n for name, n in lines.items() if n > 300} == {}
    assert sum(lines.values()) < 3200


# What takes log1p of something else than counts scaled to a total: means of genes, counts a million
# that are ranked, scores of communication, values that are log1p already.
OTHER_LOGS = {
    "vcell/hvg/dispersion.py",
    "vcell/metrics/measured.py",
    "vcell/models/own_change.py",  # of a mean, by a formula
    "vcell/patients/features.py",
    "plugins/vcell_predict/cells/residual.py",
}


def test_log1p_of_scaled_counts_is_written_once(repository):
    found = set()
    for folder in ("vcell", "plugins"):
        for path in (repository / folder).rglob("*.py"):
            name = path.relative_to(repository).as_posix()
            if "np.log1p(" in path.read_text() and not name.startswith("vcell/kernels/"):
                found.add(name)
    assert found - {"vcell/data/log_scale.py"} == OTHER_LOGS


def test_all_recorded_output_is_tested_on_other_processors_too(repository):
    """What another processor computed: `make test-narrow` must run the tests that read it."""
    made = re.search(r"^RECORDED := (.*)$", (repository / "Makefile").read_text(), re.M)
    assert made is not None
    folders = {name.split("/")[1] for name in made[1].split()}
    kinds = ("*.npz", "*.npy", "*.safetensors", "*.parquet", "*.h5ad", "*.tar.xz")
    recorded = {p for kind in kinds for p in (repository / "tests").rglob(kind)}
    found = {path.relative_to(repository / "tests").parts[0] for path in recorded}
    assert found == folders
