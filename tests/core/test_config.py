"""vcell.toml: found upward, checked as a whole, and overruled in a stated order."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from vcell.config import DataOptions, configured, option, provenance, settings_of, toml
from vcell.config import check as checks
from vcell.config.write import schema, template
from vcell.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bake(DataOptions):
    """Settings of every type."""

    batch_size: int = option(64, help="How many at once.", minimum=1, maximum=4096)
    heat: float = option(180.0, help="How hot.", minimum=0)
    fan: bool = option(False, help="Whether air moves.")
    shape: Literal["round", "square"] = option("round", help="The form.")
    spices: tuple[str, ...] = option((), help="What to add.")
    tin: Path | None = option(None, help="What to bake in.")

    def __post_init__(self):
        if self.shape == "square" and self.heat > 250:
            raise ValueError('square tins burn above 250; lower heat or use shape = "round"')


def problems_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "vcell.toml"
    path.write_text(text)
    file = toml.read(path)
    found = checks.check_table_names(file, ["bake", "train-vcc"])
    found += checks.values_for(file, "bake", Bake)[1]
    return [str(p).replace(f"{toml.shown_path(path)}:", "") for p in found]


def test_good_values_arrive_in_their_types_and_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "vcell.toml"
    path.write_text(
        '[data]\ncontrol = "ctrl"\n'
        '[bake]\nbatch-size = 8\nheat = 200\nspices = ["a", "b"]\ntin = "t/x"\n'
    )
    values, problems = checks.values_for(toml.read(path), "bake", Bake)
    assert problems == []
    assert values == {
        "control": "ctrl",
        "batch_size": 8,
        "heat": 200.0,
        "spices": ("a", "b"),
        "tin": tmp_path / "t" / "x",
    }
    assert isinstance(values["heat"], float)


@pytest.mark.parametrize(
    ("words", "variable", "wanted"),
    [
        (["--spices", "a", "--spices", "b,c"], "z", ("a", "b", "c")),
        (["--spices", "a b"], None, ("a b",)),
        ([], "a b,c", ("a b", "c")),
        ([], None, ()),
    ],
)
def test_a_flag_given_twice_adds_up(monkeypatch, words, variable, wanted):
    if variable:
        monkeypatch.setenv("VCELL_BAKE_SPICES", variable)
    taken = []

    @click.command("bake")
    @configured(Bake)
    def bake(config):
        taken.append(config.spices)

    bake.main(words, standalone_mode=False, auto_envvar_prefix="VCELL_BAKE")
    assert taken == [wanted]


def test_a_commands_own_table_overrules_the_shared_one(tmp_path):
    path = tmp_path / "vcell.toml"
    path.write_text('[data]\ncontrol = "a"\n[bake]\ncontrol = "b"\n')
    assert checks.values_for(toml.read(path), "bake", Bake)[0] == {"control": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[bake]\nbatch-sise = 8",
            "2: [bake] batch-sise is not an option (did you mean batch-size?)",
        ),
        ("[bake]\n\nbatch-size = 0", "3: [bake] batch-size must be at least 1, not 0"),
        ("[bake]\nbatch-size = 5000", "2: [bake] batch-size must be at most 4096, not 5000"),
        ("[bake]\nbatch-size = true", "2: [bake] batch-size must be a whole number, not true"),
        ("[bake]\nbatch-size = 1.5", "2: [bake] batch-size must be a whole number, not 1.5"),
        ("[bake]\nfan = 1", "2: [bake] fan must be true or false, not 1"),
        ("[bake]\nheat = nan", "2: [bake] heat must be a finite number, not nan"),
        ("[bake]\nheat = 1e400", "2: [bake] heat must be a finite number, not inf"),
        (
            '[bake]\nshape = "rond"',
            '2: [bake] shape must be one of "round", "square", not \'rond\' (did you mean round?)',
        ),
        (
            '[bake]\nspices = "a"',
            "2: [bake] spices must be a list, each text in quotes, not 'a'",
        ),
        ("[bake]\ntin = 3", "2: [bake] tin must be a path in quotes, not 3"),
        (
            "[bake]\nbatch-size = 1\nbatch_size = 2",
            "3: [bake] batch_size is given twice, as batch-size and batch_size",
        ),
        (
            '[bake]\nshape = "square"\nheat = 300',
            '1: [bake] square tins burn above 250; lower heat or use shape = "round"',
        ),
        ("[bakke]\nx = 1", "1: [bakke] is not a table of vcell (did you mean bake?)"),
        ("fan = true\n[bake]", "1: fan stands outside any table"),
        ("bake = 3", "1: bake must be a table: write [bake] on a line of its own"),
        ("[data]\ncontol = 'x'", "2: [data] contol is not an option (did you mean control?)"),
        (
            '[bake]\nspices = [\n "a",\n 3\n]\nfan = true',
            "5: [bake] spices must be a list, each text in quotes, not 3",
        ),
        ("[bake.oven]\nx = 1", "1: [bake] oven is not an option"),
    ],
)
def test_each_mistake_is_one_line_with_its_place_and_its_mend(tmp_path, text, message):
    assert problems_of(tmp_path, text) == [message]


def test_all_mistakes_are_collected(tmp_path):
    text = '[bake]\nbatch-size = 0\nfan = "no"\n[trian-vcc]\n[data]\nbatch = 1\n'
    assert len(problems_of(tmp_path, text)) == 4


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"[bake\n", ":1:6:"),
        (b"[bake]\nfan = \n", ":2:7:"),
        (b'[bake]\nshape = "', ":2: Unterminated string"),
        (b"[bake]\n\xff\xfe", ":2:"),
        (b"[bake]\nfan = true\nfan = false\n", ":3:"),
        (b"a = " + b"[" * 5000, ":"),
        (b"a = " + b"9" * 5000, ":"),
        (b"#" * (1 << 21), ": is over 1 MiB"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_place(tmp_path, raw, place):
    path = tmp_path / "vcell.toml"
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        toml.read(path)
    assert f"vcell.toml{place}" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_nearest_file_upward_wins(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "vcell.toml").write_text("")
    (tmp_path / "a" / "vcell.toml").write_text("")
    assert toml.find(deep) == (tmp_path / "a" / "vcell.toml").resolve()


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        ("[a]\nx = 1\n[b]\nx = 2\n", ("b", "x"), 4),
        ("a.b = 1\n\na.c = 2\n", ("a", "c"), 3),
        ('[a]\nt = """\nx = 3\n"""\nx = 1\n', ("a", "x"), 5),
        ('[a]\n"b\\u0061d" = 1\nz = 2\n', ("a", "bad"), 2),
        ("[a]\r\nx = 1\r\ny = 2\r\n", ("a", "y"), 3),
        ("[a]\n", ("a", "x"), None),
    ],
)
def test_lines_are_found_exactly(text, keys, line):
    assert toml.line_of(text, keys) == line


keys = st.sampled_from(
    ["batch-size", "batch_size", "heat", "fan", "shape", "spices", "tin", "control", "x", '"é"']
)
values = st.sampled_from(
    ["1", "-1", "1.5", "nan", "inf", "true", '"round"', '""', "[]", '["a"]', "[1, true]", "{}"]
    + ["{a = 1}", "1979-05-27", "07:32:00", '"\\u0000"', "9" * 40, "1e400", '"' + "x" * 300 + '"']
)
lines = st.one_of(
    st.tuples(keys, values).map(" = ".join),
    st.sampled_from(["[bake]", "[data]", "[x]", "[[bake]]", "[bake.y]", "", "# c", "bake = 1"]),
    st.text(max_size=20),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(lines, max_size=8).map("\n".join), st.text(max_size=200)))
def test_no_file_whatsoever_ends_in_a_traceback(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        file = toml.read(path)
        found = checks.check_table_names(file, ["bake"])
        good, own = checks.values_for(file, "bake", Bake)
    except UserError as error:
        assert error.message.startswith(toml.shown_path(path))
        return
    assert all(str(p).startswith(toml.shown_path(path)) for p in found + own)
    if not own:
        Bake(**good)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_whatsoever_end_in_a_traceback(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "fuzzed-bytes.toml"
    path.write_bytes(raw)
    try:
        checks.values_for(toml.read(path), "bake", Bake)
    except UserError as error:
        assert error.message


def test_the_template_is_a_valid_file_that_changes_nothing(tmp_path):
    text = template({"bake": Bake})
    assert tomllib.loads(text) == {"data": {}, "bake": {}}
    uncommented = "\n".join(
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith("[") or (" = " in line and not line.endswith(" ="))
        if "Order:" not in line
    )
    (tmp_path / "vcell.toml").write_text(uncommented)
    values, problems = checks.values_for(toml.read(tmp_path / "vcell.toml"), "bake", Bake)
    assert problems == []
    assert Bake(**values) == Bake()


def test_the_schema_says_what_the_checks_say():
    table = schema({"bake": Bake})["properties"]["bake"]
    assert set(table["properties"]) == {setting.key for setting in settings_of(Bake)}
    assert table["properties"]["batch-size"] == {
        "description": "How many at once.",
        "type": "integer",
        "minimum": 1,
        "maximum": 4096,
        "default": 64,
    }
    assert table["properties"]["shape"]["enum"] == ["round", "square"]
    json.dumps(table)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A setting may be called as a word of Python is."""

    as_: str = option("text", help="How it is written.")
    other: int = option(1, help="Something else.")


@click.command("write")
@configured(Written, first=("as_",))
def write(config: Written) -> None:
    """Write it."""
    click.echo(f"{config.as_} {config.other} {provenance()['as_']}")


def test_a_setting_named_like_a_word_of_python_is_spelt_without_the_underscore(tmp_path):
    ran = CliRunner().invoke(write, ["--as", "html", "--other", "2"])
    assert ran.output == "html 2 command line\n"
    ran = CliRunner().invoke(
        write, [], auto_envvar_prefix="VCELL_WRITE", env={"VCELL_WRITE_AS": "x"}
    )
    assert ran.output.startswith("x 1")
    (tmp_path / "vcell.toml").write_text('[write]\nas = "pdf"\n')
    values, problems = checks.values_for(toml.read(tmp_path / "vcell.toml"), "write", Written)
    assert (values, problems) == ({"as_": "pdf"}, [])


def test_help_shows_the_first_options_and_help_all_shows_all():
    short, whole = (CliRunner().invoke(write, [flag]) for flag in ("--help", "--help-all"))
    assert "--as" in short.output
    assert "--other" not in short.output
    assert "Show all 2 options" in short.output
    assert "--other" in whole.output
    assert (short.exit_code, whole.exit_code) == (0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oven:
    """What a command inherits."""

    heading = "The oven"

    heat: int = option(180, help="How hot.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baked(Oven):
    """A command's own settings, one of them with another default."""

    heat: int = option(200, help="How hot.")
    cake: str = option("plain", help="Which.")
    flour: float = option(1.0, help="Weight of flour.", table="weights")


def test_help_all_groups_options_by_what_declares_them():
    @click.command()
    @configured(Baked, first=("cake",))
    def bake(config):
        """Bake."""

    text = CliRunner().invoke(bake, ["--help-all"]).output
    places = [text.index(f"\n{word}") for word in ("Options:", "Weights:", "The oven:")]
    flags = [text.index(flag) for flag in ("--cake", "--help-all", "--flour", "--heat")]
    assert places[0] < flags[0] < flags[1] < places[1] < flags[2] < places[2] < flags[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nested:
    """Some settings have a table of their own within the command's."""

    lr: float = option(0.1, help="How fast.")
    alpha: float = option(1.0, help="Weight of one loss.", minimum=0, table="losses")
    set_loss: float = option(0.0, help="Weight of another.", table="losses")


def nested(tmp_path, text):
    (tmp_path / "vcell.toml").write_text(text)
    file = toml.read(tmp_path / "vcell.toml")
    values, problems = checks.values_for(file, "bake", Nested)
    return values, [str(one).split("vcell.toml:")[1] for one in problems], file


@pytest.mark.parametrize(
    "text",
    [
        "[bake]\nlr = 2\n[bake.losses]\nalpha = 3\nset-loss = 4",
        "[bake]\nlr = 2\nlosses = {alpha = 3, set_loss = 4}",
        "[bake]\nlr = 2\nalpha = 3\nset-loss = 4",  # as before there were tables
    ],
)
def test_settings_of_a_kind_have_a_table_of_their_own(tmp_path, text):
    values, problems, _ = nested(tmp_path, text)
    assert (values, problems) == ({"lr": 2.0, "alpha": 3.0, "set_loss": 4.0}, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bake.losses]\nalpha = -1", "2: [bake.losses] alpha must be at least 0, not -1"),
        (
            "[bake.losses]\nalpah = 1",
            "2: [bake.losses] alpah is not an option (did you mean alpha?)",
        ),
        ("[bake.losses]\nlr = 1", "2: [bake.losses] lr is not an option"),
        ("[bake]\nlosses = 3", "2: [bake] losses is a table: write [bake.losses] on a line"),
        ("[bake]\nalpha = 1\nlosses.alpha = 2", "3: [bake.losses] alpha is given twice"),
    ],
)
def test_mistakes_in_such_a_table_are_told_with_their_place(tmp_path, text, said):
    _, (problem,), _ = nested(tmp_path, text)
    assert problem.startswith(said)


def test_the_template_and_the_schema_have_the_table(tmp_path):
    text = template({"bake": Nested})
    bare = "\n".join(
        line.removeprefix("# ")
        for line in text.splitlines()
        if " = " in line[:14] or line.startswith("[")
    )
    values, problems, file = nested(tmp_path, bare)
    assert (values, problems) == ({"lr": 0.1, "alpha": 1.0, "set_loss": 0.0}, [])
    assert file.tables["bake"]["losses"] == {"alpha": 1.0, "set-loss": 0.0}
    inner = schema({"bake": Nested})["properties"]["bake"]["properties"]["losses"]
    assert inner["properties"]["alpha"]["minimum"] == 0


def test_help_shows_an_empty_text_among_the_defaults(vcell):
    """Else a list that begins with one looks like a stray comma."""
    assert '("",nan,' in " ".join(vcell("train-gmvae", "--help-all").out.split())
