"""Documentation that says what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.support import clean_environment
from vcell import cli
from vcell.plugin import CORE_COMMANDS, discover

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "plugins").glob("*/README.md")),
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELLS = ("", "console", "bash", "sh")
_COMMAND = re.compile(r"^\s*(?:\$ )?(vcell (?!COMMAND|\[).+)$", re.MULTILINE)
_TAIL = re.compile(r"\s[|>#&;]")  # a pipe, a redirection or a comment


def commands_of(page: Path) -> list[str]:
    """The lines inside code blocks that run vcell, without comments and redirections."""
    found = _BLOCK.findall(page.read_text())
    blocks = "\n".join(text for language, text in found if language in _SHELLS)
    blocks = blocks.replace("\\\n", " ")
    return [_TAIL.split(line)[0].strip() for line in _COMMAND.findall(blocks)]


EXAMPLES = [(page, line) for page in PAGES for line in commands_of(page) if page.name != "cli.md"]


@pytest.mark.parametrize(
    ("page", "line"), EXAMPLES, ids=[f"{page.name}: {line}" for page, line in EXAMPLES]
)
def test_every_command_shown_is_one_that_vcell_understands(page, line):
    words = shlex.split(line.replace("[", "").replace("]", ""))[1:]
    if words[0] in ("hello", "train-squeeze"):
        pytest.skip("a tutorial's own command; a test of its own runs it")
    context = click.Context(cli.cli, info_name="vcell")
    command: click.Command | None = cli.cli
    while isinstance(command, click.Group):
        while words and words[0].startswith("-"):
            words.pop(0)
        if not words:
            return
        name = words.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"{page.name} shows {line!r}, and there is no {name!r}"
    parser = command.make_parser(click.Context(command, info_name="x", resilient_parsing=True))
    try:
        parser.parse_args(args=[word for word in words if word != "--help"])
    except click.UsageError as error:
        pytest.fail(f"{page.name} shows {line!r}: {error.format_message()}")


def test_the_command_reference_is_current():
    script = REPOSITORY / "docs" / "make_cli_reference.py"
    done = subprocess.run(
        [sys.executable, script, "--check"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*CORE_COMMANDS, *discover().plugins])
def test_the_readme_or_a_page_shows_every_command(name):
    assert any(line.split()[1:2] == [name] for _, line in EXAMPLES), f"no page shows vcell {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_every_folder_of_the_core():
    folders = {path.parent.name for path in REPOSITORY.glob("vcell/*/__init__.py")}
    layout = (REPOSITORY / "README.md").read_text().split("## Repository layout")[1].split("```")[1]
    starts = re.findall(r"^  (.{20})", layout, re.MULTILINE)  # what follows says what it holds
    assert folders == {name for line in starts for name in re.findall(r"(\w+)/", line)}
