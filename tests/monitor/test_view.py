"""What the monitor shows and what keys do, without a terminal."""

from __future__ import annotations

import os

import pytest

from tests.monitor import scene
from tests.monitor.conftest import BIG, SMALL, press, settle, shown
from vcell.monitor.keys import SCREENS


def row(page: str, run: str) -> str:
    return next(line for line in page.splitlines() if f"-{run} " in line)


def choose(view, run: str) -> None:
    view.selected = next(name for name in view.watch.runs if name.endswith(run))
    view.chosen = True
    settle(view)


# --- the list


def test_each_run_says_how_it_stands(view):
    page = shown(view)
    for run, words in {
        "80f1": ("running", "62%", "44.4"),
        "c2aa": ("running", "41%", "31%"),
        "77b0": ("paused", "80%"),
        "51d3": ("STALLED", "17%", "14 min"),
        "09ee": ("CRASHED", "55%", "3 h"),
        "4a12": ("FAILED", "2%", "4 h"),
        "1f00": ("done", "gp", "100%", "9 h"),
        "ab31": ("stopped", "71%"),
    }.items():
        assert all(word in row(page, run) for word in words), row(page, run)
    assert "2 running  1 paused  1 STALLED  1 CRASHED  1 FAILED  1 stopped  1 done" in page


def test_why_a_run_needs_a_person_is_said_in_the_line_below(view):
    choose(view, "09ee")
    assert "09ee: process 4194303 on" in shown(view)
    assert "is gone without a word: killed?" in shown(view)
    choose(view, "4a12")
    assert "4a12: ZeroDivisionError: float division by zero" in shown(view)
    choose(view, "51d3")
    assert "51d3: nothing for 14 min; process 3194 on n03 is out of sight" in shown(view)


def test_time_left_is_the_steps_left_at_the_present_speed(view):
    # 380 steps of 0.36 s
    assert "2 min" in row(shown(view), "80f1")
    one = next(one for name, one in view.watch.runs.items() if name.endswith("80f1"))
    assert one.overview.eta_s == pytest.approx(380 * 0.36, rel=1e-3)


def test_the_filter_takes_states_settings_metrics_and_names(view):
    def left(text: str) -> set[str]:
        view.filter = text
        return {run.short for run in view.listed()}

    assert left("status:running|paused") == {"80f1", "c2aa", "77b0"}
    assert left("lr>=2e-3") == {"c2aa"}
    assert left("status:running lr>=1e-3 -c2aa") == {"80f1"}
    assert left("dropout=0.3") == {"77b0"}
    assert left("model:gp") == {"1f00"}
    assert left("-model:transformer") == {"1f00"}
    assert left("gain>0.2") == {"80f1", "77b0"}
    assert left("wait>0.2 status!=done") == {"c2aa"}
    assert left("TRANSFORMER 51d3") == {"51d3"}
    assert left("nothing:here") == set()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lr>=", "lr>= lacks a value"),
        ("lr>=fast", "'fast' after >= is not a number"),
        ("status:runing", "no run can be 'runing' (did you mean running?)"),
        ("nobody", "no run fits the filter; / and Esc clears it"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_told_of_in_one_line(view, typed, said):
    press(view, "/", *typed, "enter")
    assert view.message[0] == said
    assert len(shown(view).splitlines()) == BIG[1]
    press(view, "/", "escape")
    assert len(view.listed()) == 8


def test_the_list_is_sorted_by_what_one_asks_for(view):
    orders = {}
    for _ in range(6):
        press(view, "o")
        title = next(part for part in shown(view).splitlines()[1].split("  ") if "by " in part)
        orders[title.strip()] = [run.short for run in view.listed()]
    assert orders["by state (o)"][:3] == ["80f1", "c2aa", "77b0"]
    assert orders["by best (o)"][0] == "77b0"
    assert orders["by loss (o)"][0] == "77b0"
    assert orders["by name (o)"][0] == "ab31"


def test_a_thousand_rows_scroll_with_the_selection_in_sight(open_view, tmp_path):
    for i in range(60):
        path = scene.make_run(tmp_path, f"run-{i:03d}", began=scene.NOON - i, status="done")
        os.utime(path / "run.json", (scene.NOON - i, scene.NOON - i))
    view = open_view(tmp_path)
    assert "more" in shown(view)
    press(view, "end")
    assert "run-059" in shown(view, SMALL)
    press(view, "pageup")
    assert view.selected in shown(view)
    press(view, "home")
    assert view.selected == "run-000"


# --- one run


def test_one_run_shows_curves_times_validation_and_what_happened(view):
    choose(view, "80f1")
    press(view, "enter")
    page = shown(view)
    for words in (
        "running on", "4 × NVIDIA H100 80GB HBM3, bf16, 12.4M parameters, seed 0",
        "step 620 of 1,000", "62%", "0.360 s/step", "44.4 ex/s", "2 min left (12:02)",
        "loss 1.3", "gain 0.2", "gradient norm", "learning rate",
        "backward        0.191 s   53%", "now / at the best", "delta_correlation",
        "step 250: gradients are not finite in encoder.1.ff; the step was skipped",
        "checkpoint at 600",
    ):  # fmt: skip
        assert words in page, words
    small = shown(view, SMALL)
    for words in ("620 of 1,000", "backward 53%", "gain 0.2", "gradients are not finite"):
        assert words in small, words


def test_waiting_for_data_is_said_where_it_is_much(view):
    choose(view, "c2aa")
    press(view, "enter")
    assert "31% of a step waits for data" in shown(view)


def test_keys_change_how_curves_are_drawn(view):
    choose(view, "80f1")
    press(view, "enter")
    assert "loss 1.332  mean of 6" in shown(view)
    press(view, "s", "s")
    assert "mean of 10" in shown(view)
    press(view, "y")
    assert "mean of 10, log" in shown(view)
    press(view, "x")
    assert "4 min" in shown(view)
    press(view, "x")
    assert "9,920" in shown(view)  # examples, 16 a step
    press(view, "x", "m")
    assert "▶ gain" in shown(view)
    press(view, "tab", "tab", "z")
    page = shown(view)
    assert "▶ gradient norm" in page
    assert "learning rate" not in page
    press(view, "escape")
    assert "learning rate" in shown(view)


def test_the_cursor_reads_values_and_zoom_shows_a_part(view):
    choose(view, "80f1")
    press(view, "enter", "s", "left", "left")
    history = view.one.history
    at = round(view.looks.cursor)
    value = history.series("loss").values[at - 1]
    assert f"at {at}: {value:.3f}" in shown(view)
    press(view, "+", "+")
    low, high = view.looks.window
    assert high - low == pytest.approx(619 / 4, rel=0.01)
    assert f"{low:,.0f}" in shown(view)
    press(view, "-", "-", "-")
    assert view.looks.window is None
    press(view, "0")
    assert view.looks.cursor is None


def test_a_run_without_steps_says_so(view):
    choose(view, "1f00")
    press(view, "enter")
    page = shown(view)
    assert "nothing measured yet" in page
    assert "not recorded" in page


# --- comparing


def test_marked_runs_are_compared_at_the_same_step(view):
    for run in ("80f1", "c2aa", "77b0"):
        choose(view, run)
        press(view, " ")
    press(view, "3")
    page = shown(view)
    for words in (
        "A 20261128-093112-train-vcc-80f1", "at the same step 410", "settings that differ",
        "lr                     0.001     0.002     0.001", "dropout",
        "in gain at step 410 (one run each: not conclusive)", "B waits for data 31% of a step",
    ):  # fmt: skip
        assert words in page, words
    gains = next(line for line in page.splitlines() if line.startswith(" gain"))
    for one, told in zip(view.compared(), gains.split()[1:4], strict=True):
        series = one.history.series("gain", "eval")
        known = [v for s, v in zip(series.steps, series.values, strict=True) if s <= 410]
        assert float(told) == pytest.approx(known[-1], abs=1e-4)
    press(view, "m")
    assert "pds (m)" in shown(view)
    press(view, "d")
    assert "settings that differ  4" in shown(view)
    press(view, "a")
    assert "all settings" in shown(view)
    press(view, "escape", "u")
    assert not view.marks


def test_curves_are_told_apart_without_colour(view):
    for run in ("80f1", "c2aa"):
        choose(view, run)
        press(view, " ")
    press(view, "3")
    chart = "\n".join(line[8:] for line in shown(view).splitlines()[3:18])
    assert {"A", "B"} <= set(chart)
    view.plain = True
    chart = "\n".join(line[8:] for line in shown(view).splitlines()[3:18])
    assert {"*", "o"} <= set(chart)
    assert chart.isascii()


# --- GPUs


def test_gpus_are_read_from_the_runs_own_samples(view):
    choose(view, "80f1")
    press(view, "4")
    page = shown(view)
    for words in (
        "H100 80GB HBM3", "/ 700 W", "HEAT", "71.2/80", "power (W)", "SM clock (MHz)",
        "GPU 3 is at 84 °C and slowed by heat since",
        "GPU 2 draws 301 W of 700 W at 99% busy: it waits for memory or data",
        "GPUs 0, 1 are held back by the power cap",
        "kWh so far", "J per example",
    ):  # fmt: skip
        assert words in page, words
    table = view.one.history.devices()
    joules = sum(t.columns["energy_j"][-1] - t.columns["energy_j"][0] for t in table.values())
    assert f"{joules / 3.6e6:.3g} kWh so far, {joules / (16 * 620):.0f} J per example" in page
    press(view, "x")
    assert "last hour" in shown(view)
    press(view, "u")
    assert "busy (%)" in shown(view)
    assert "HEAT" in shown(view, SMALL)


def test_a_run_without_gpus_says_so(view):
    choose(view, "77b0")
    press(view, "4")
    assert "77b0 runs without a GPU" in shown(view)
    assert "recorded no samples" in shown(view)


def test_a_run_on_a_processor_shows_what_its_processes_use(view):
    choose(view, "c2aa")
    press(view, "4")
    page = shown(view)
    assert "1.50         2.9" in page  # cores busy, GiB
    assert "memory (GiB)" in page


# --- logs


def test_the_log_joins_console_events_and_failures_by_time(view):
    choose(view, "80f1")
    press(view, "5")
    page = shown(view)
    places = [page.index(word) for word in ("illegal access", "run directory", "step 600", "0193")]
    assert places == sorted(places)
    assert "1 error (e) 1 warning" in page
    press(view, "e", "enter")
    assert 'File "losses.py", line 19, in f' in shown(view)
    press(view, "escape", "r")
    assert "[console]" in shown(view)
    press(view, "r")
    assert "[events]" in shown(view)
    assert "step 600: gain" in shown(view)


def test_the_log_is_searched_and_walked(view):
    choose(view, "80f1")
    press(view, "5", "/", *"checkpoint", "enter")
    page = shown(view)
    assert "search: checkpoint" in page
    assert "run directory" not in page
    press(view, "/", "escape", "up", "up")
    assert "holding (f follows)" in shown(view)
    press(view, "G")
    assert "following the end" in shown(view)


def test_a_run_that_said_nothing_has_an_empty_log(view):
    choose(view, "1f00")
    press(view, "5", "r")
    assert "no output yet" in shown(view) or "ended: done" in shown(view)
    press(view, "e")
    assert view.message[0] == "no problems here"


# --- asking runs


def test_a_run_is_asked_through_its_control_files_and_to_stop_only_when_asked_twice(view):
    choose(view, "80f1")
    control = view.one.run.path / "control"
    press(view, "c")
    assert [p.name for p in control.iterdir()] == ["checkpoint"]
    press(view, "p")
    assert (control / "pause").exists()
    press(view, "p")
    assert not (control / "pause").exists()
    assert view.message[0] == "80f1 goes on"
    press(view, "S")
    assert view.message[0] == "stop 80f1? S again: yes, any other key: no"
    assert not (control / "stop").exists()
    press(view, "down")
    assert view.message[0] == "nothing was stopped"
    choose(view, "80f1")
    press(view, "S")
    view.watch.clock.now += 60  # too late: asked anew
    press(view, "S")
    assert not (control / "stop").exists()
    press(view, "S")
    assert (control / "stop").exists()


def test_nobody_is_asked_where_nobody_listens(view):
    choose(view, "ab31")
    for key in ("c", "p", "S"):
        press(view, key)
        assert view.message[0] == "ab31 is stopped: it takes no requests"


def test_a_read_only_folder_refuses_in_one_line(view, monkeypatch):
    choose(view, "80f1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vcell.runs.run.Path.touch", refuse)
    monkeypatch.setattr("vcell.monitor.control.os.access", lambda *_: False)
    for key in ("c", "S"):
        press(view, key)
        assert "control cannot be written to: Permission denied" in view.message[0]
        assert len(shown(view).splitlines()) == BIG[1]


# --- every size


@pytest.mark.parametrize("size", [BIG, SMALL, (60, 20), (200, 60), (41, 13), (20, 5), (100, 12)])
@pytest.mark.parametrize("plain", [False, True])
def test_every_screen_fits_every_size(view, size, plain):
    view.plain = plain
    choose(view, "80f1")
    for screen in SCREENS:
        view.go(screen)
        settle(view)
        page = shown(view, size)
        assert len(page.splitlines()) <= size[1]
        if plain:
            assert page.replace("…", "").replace("°", "").replace("–", "").replace(
                "×", "").replace("←→", "").isascii()  # fmt: skip
    for overlay in ("help", "settings"):
        view.toggle(overlay)
        shown(view, size)


@pytest.mark.parametrize("screen", SCREENS)
def test_the_smallest_terminal_names_what_it_shows_and_cuts_nothing_in_silence(view, screen):
    place = SCREENS.index(screen) + 1
    press(view, str(place))
    small, large = shown(view, (40, 12)).splitlines(), shown(view, (200, 50))
    head = small[0]
    assert f"[{place} {screen}]" in head
    assert all(f"{i} " in head for i in range(1, 6))
    assert head.rstrip()[-3] == ":"  # the time is whole
    last = [line.split()[-1] for line in small[1:] if len(line) == 40]
    assert all(f"{word} " in large for word in last if word.isascii() and word.isalpha())
