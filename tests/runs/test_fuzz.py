"""Whatever stands in run.json and events.jsonl, the commands answer with a table or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcell import cli, console

if TYPE_CHECKING:
    import pytest

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["running", "done", "2026-01-01", "2026-01-01T00:00:00+00:00"])
)
KEYS = st.sampled_from(["pid", "host", "started", "boot", "lr"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    *("status", "process", "config", "created", "summary", "provenance", "argv", "git"),
    *("command", "ended", "seed", "data", "machine"),
)
METAS = st.fixed_dictionaries({"schema": st.just(1)}, optional=dict.fromkeys(FIELDS, VALUES))
EVENTS = st.sampled_from(
    [
        b"",
        b'{"t":1,"kind":"metric","step":3,"loss":[1]}\n',
        b'{"t":1,"kind":"eval","step":true,"x":{"a":1}}\n',
        b'{"t":1,"kind":"metric","step":1e400}\n{"t":1,"kind":"resume","step":-5}\n',
        b'{"t":1e400,"kind":"metric","step":"x","loss":NaN}\n\xff\n',
    ]
)
COMMANDS = (
    *(["list"], ["show"], ["show", "one"], ["compare", "one", "two"]),
    *(["list", "--json"], ["show", "one", "--json"], ["compare", "one", "two", "--json"]),
    ["rm", "one"],
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(meta=METAS, events=EVENTS)
def test_no_run_ends_a_command_in_a_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    meta: dict[str, object],
    events: bytes,
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "run.json").write_text(json.dumps(meta))
        (tmp_path / name / "events.jsonl").write_bytes(events)
    for words in COMMANDS:
        monkeypatch.setattr(console.settings, "json", False)
        code = cli.run(["runs", *words, "--runs-dir", str(tmp_path)])
        said = capsys.readouterr()
        assert code in (0, 2), said.err
        assert "Traceback" not in said.err
        if "--json" in words and code == 0:
            json.loads(said.out)
