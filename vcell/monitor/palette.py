"""The entries of the command palette: names of the keys' commands."""

from __future__ import annotations

COMMANDS = (
    ("Runs", "the list of runs", "1"),
    ("Run", "curves and times of the selected run", "2"),
    ("Compare", "marked runs over each other", "3"),
    ("GPUs", "power, clocks and heat", "4"),
    ("Logs", "the run's log", "5"),
    ("Help", "all keys", "?"),
    ("Settings", "settings of the run, or how marked runs differ", "d"),
    ("Mark", "mark the run for comparing", " "),
    ("Filter", "choose runs, or search the log", "/"),
    ("Sort", "another order of the list", "o"),
    ("Smoothing", "smooth curves more or less", "s"),
    ("Logarithmic", "logarithmic y axis, or linear", "y"),
    ("X axis", "by step, hours or examples; time window of the GPUs", "x"),
    ("Metric", "another curve in the chart", "m"),
    ("Large", "the chart alone", "z"),
    ("Zoom in", "less of the x axis", "+"),
    ("Zoom out", "more of the x axis", "-"),
    ("Whole axis", "all of the x axis", "0"),
    ("Next problem", "of the log", "e"),
    ("Checkpoint", "ask the run for a checkpoint", "c"),
    ("Pause", "ask the run to pause, or to go on", "p"),
    ("Stop", "ask the run to stop; asks you once more", "S"),
    ("Quit", "the run goes on", "q"),
)
