"""Plugins: built-in and foreign ones by the same door, and none can break another command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vcell.plugin import CORE_COMMANDS, discover

GOOD = """
from dataclasses import dataclass
import click
from vcell.config import configured, option
from vcell.plugin import Plugin

@dataclass(frozen=True, kw_only=True)
class Greet:
    word: str = option("hello", help="What to say.")

@click.command("NAME")
@configured(Greet)
def command(config):
    '''Greet. Example: vcell NAME'''
    click.echo(config.word)

plugin = Plugin(name="NAME", summary="Greet.", command=command, config=Greet)
"""


def distribution(
    folder: Path, name: str, code: str, *, command: str | None = None
) -> dict[str, str]:
    """Lay out an installed distribution with one plugin; return the environment that sees it."""
    command = command or name
    module = f"dist_{name.replace('-', '_')}"
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vcell.plugins]\n{command} = {module}:plugin\n")
    (folder / f"{module}.py").write_text(code.replace("NAME", command))
    return {"PYTHONPATH": str(folder)}


def test_a_foreign_plugin_is_a_command_like_any_other(vcell, tmp_path):
    env = distribution(tmp_path / "site", "greet", GOOD)
    (tmp_path / "vcell.toml").write_text('[greet]\nword = "hi"\n')
    assert vcell("greet", env=env).out == "hi\n"
    assert vcell("greet", "--word", "ho", env=env).out == "ho\n"
    assert vcell("greet", env=env | {"VCELL_GREET_WORD": "hu"}).out == "hu\n"
    assert "\n  greet " in vcell("--help", env=env).out
    assert vcell("plugins", "check", "greet", env=env).code == 0


def test_help_follows_a_plugin_that_changes(vcell, tmp_path):
    """Summaries are kept, so that help need not import plugins; a new door is noticed."""
    env = distribution(tmp_path / "site", "greet", GOOD) | {"VCELL_CACHE": str(tmp_path / "cache")}
    assert "Greet." in vcell("--help", env=env).out
    door = tmp_path / "site" / "dist_greet.py"
    door.write_text(door.read_text().replace('summary="Greet."', 'summary="Say hello."'))
    assert "Say hello." in vcell("--help", env=env).out
    door.write_text("import nowhere_to_be_found")
    assert "greet †" in vcell("--help", env=env).out
    distribution(tmp_path / "other", "greet", GOOD)
    door.write_text((tmp_path / "other" / "dist_greet.py").read_text())
    assert "greet †" not in vcell("--help", env=env).out


@pytest.mark.parametrize("cache", ["a file", "damaged", "of something else"])
def test_help_needs_no_cache(vcell, tmp_path, cache):
    env = distribution(tmp_path / "site", "greet", GOOD) | {"VCELL_CACHE": str(tmp_path / "cache")}
    expected = vcell("--help", env=env).out
    for kept in (tmp_path / "cache").iterdir():
        if cache == "a file":
            kept.unlink()
        else:
            kept.write_text("{" if cache == "damaged" else '{"installed": 3, "plugins": [1]}')
    if cache == "a file":  # nothing can be written into it, even by root
        (tmp_path / "cache").rmdir()
        (tmp_path / "cache").touch()
    shown = vcell("--help", env=env)
    assert (shown.code, shown.out, shown.err) == (0, expected, "")


def test_plugins_are_listed_with_their_origin(vcell, tmp_path):
    env = distribution(tmp_path / "site", "greet", GOOD)
    rows = {row["name"]: row for row in vcell("plugins", "--json", env=env).json["plugins"]}
    assert rows["greet"]["distribution"] == "dist_greet"
    assert rows["greet"]["state"] == "ok"
    assert {row["distribution"] for name, row in rows.items() if name != "greet"} == {"vcell"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def (", "SyntaxError"),
        ("raise RuntimeError('out of\\nluck')", "RuntimeError: out of"),
        ("raise SystemExit(3)", "SystemExit"),
        ("plugin = 3", "is a int, not a vcell.plugin.Plugin"),
        ("x = 1", "AttributeError"),
        (GOOD.replace("plugin = Plugin(", "plugin = Plugin(api=99, "), "plugin API 99"),
        (GOOD.replace('name="NAME"', 'name="other"'), "calls itself 'other'"),
        (GOOD.replace("command=command", "command=3"), "is a int, not a click command"),
    ],
)
def test_a_broken_plugin_is_a_marked_line_and_breaks_nothing_else(vcell, tmp_path, code, reason):
    env = distribution(tmp_path / "site", "greet", code)
    help_text = vcell("--help", env=env)
    assert help_text.code == 0
    assert "greet †" in help_text.out
    used = vcell("greet", "--whatever", env=env)
    assert used.code == 1
    assert reason in used.err
    assert "Traceback" not in used.err
    checked = vcell("plugins", "check", "greet", env=env)
    assert checked.code == 1
    assert vcell("config", "check", env=env).code == 0


def test_a_missing_module_is_named_with_the_line_that_mends_it(vcell, tmp_path):
    code = GOOD.replace("config=Greet", "config=Greet, needs=('flash_attn_nowhere',)")
    env = distribution(tmp_path / "site", "greet", code)
    ran = vcell("greet", env=env)
    assert ran.code == 2
    assert "greet needs flash_attn_nowhere, which is not installed" in ran.err
    assert "pip install flash_attn_nowhere" in ran.err


def test_a_built_in_command_cannot_be_replaced_unseen(vcell, tmp_path):
    taken = next(iter(discover().plugins))
    env = distribution(tmp_path / "site", "thief", GOOD, command=taken)
    rows = vcell("plugins", "--json", env=env)
    assert rows.json["problems"] == [
        f"plugin {taken!r} of dist_thief is ignored: vcell already has that command"
    ]
    assert f"warning: plugin {taken!r} of dist_thief" in rows.err


@pytest.mark.parametrize("name", [*CORE_COMMANDS[:1], "Bad_Name"])
def test_names_of_the_core_and_bad_names_are_refused_aloud(vcell, tmp_path, name):
    env = distribution(tmp_path / "site", "thief", GOOD, command=name)
    assert name in vcell("plugins", "--json", env=env).json["problems"][0]


def test_plugins_can_be_restricted_and_switched_off(vcell):
    one = next(iter(discover().plugins))
    listed = vcell("plugins", "--json", env={"VCELL_PLUGINS": f"{one},absent"}).json
    assert [row["name"] for row in listed["plugins"]] == [one]
    assert "absent" in listed["problems"][0]
    assert vcell("plugins", "--json", env={"VCELL_NO_PLUGINS": "1"}).json["plugins"] == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (("import click", "import click, numpy"), "imports nothing heavy"),
        (("Example: vcell", ""), "shows an example"),
        (('summary="Greet."', "summary='two\\nlines'"), "has a one-line summary"),
        (("@configured(Greet)\n", ""), "settings round-trip through vcell.toml and have flags"),
    ],
)
def test_check_names_the_rule_that_a_plugin_breaks(vcell, tmp_path, change, rule):
    env = distribution(tmp_path / "site", "greet", GOOD.replace(*change))
    ran = vcell("plugins", "check", "greet", "--json", env=env)
    assert ran.code == 1
    assert [row["rule"] for row in ran.json["rules"] if not row["ok"]] == [rule]


# --- the plugin that docs/plugins.md prints, installed for real

_PRINTED = re.compile(r"^`([\w./]+)`, in full.*?^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def printed(repository: Path) -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(_PRINTED.findall((repository / "docs" / "plugins.md").read_text("utf-8")))


@pytest.fixture(scope="session")
def hello(tmp_path_factory, repository) -> dict[str, str]:
    """Type the page's files word for word, and install them as the page says."""
    source = tmp_path_factory.mktemp("hello")
    for name, text in printed(repository).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    site = tmp_path_factory.mktemp("hello-site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, source], check=True, capture_output=True)
    return {"PYTHONPATH": str(site)}


@pytest.fixture
def cells(tmp_path) -> Path:
    from vcell.data.simulate import simulate

    path = tmp_path / "cells.h5ad"
    simulate(cells=120, genes=60, perturbations=4, seed=1).write_h5ad(path)
    return path


def test_the_page_prints_the_example_whole(repository):
    example = repository / "examples" / "plugin-hello"
    names = ("pyproject.toml", "src/vcell_hello/__init__.py", "src/vcell_hello/work.py")
    assert printed(repository) == {name: (example / name).read_text("utf-8") for name in names}


def test_the_example_plugin_works_as_its_tutorial_says(vcell, hello, cells, tmp_path):
    assert vcell("plugins", "check", "hello", env=hello).code == 0
    ran = vcell("hello", "--cells", cells, "--most", "2", env=hello)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Hello, ")
    (tmp_path / "vcell.toml").write_text('[data]\ncells = "cells.h5ad"\n[hello]\ngreeting = "Hi"\n')
    from_file = vcell("hello", "--json", env=hello).json
    assert from_file["greeting"] == "Hi"
    assert len(from_file["perturbations"]) == 4


def test_the_example_plugin_explains_its_failures(vcell, hello, cells, tmp_path):
    nothing = vcell("hello", env=hello)
    assert (nothing.code, nothing.err.count("\n")) == (2, 2)
    assert "--cells" in nothing.err
    assert vcell("hello", "--cells", tmp_path / "absent.h5ad", env=hello).code == 2
    assert vcell("hello", "--cells", cells, "--most", "0", env=hello).code == 2
    column = vcell("hello", "--cells", cells, "--perturbation-column", "targt_gene", env=hello)
    assert column.code == 2
    assert "targt_gene" in column.err
    (tmp_path / "vcell.toml").write_text("[hello]\ngreting = 3\n")
    assert "did you mean greeting?" in vcell("hello", env=hello).err
