"""One rule for whatever is announced: built-in things cannot be replaced by what comes later."""

from __future__ import annotations

from importlib import metadata

import pytest

from vcell import console, models
from vcell.plugin import announced


class Distribution:
    """The part of a distribution that discovery looks at."""

    version = "1"

    def __init__(self, name):
        self.name = name


def point(group, name, value, distribution):
    found = metadata.EntryPoint(name, value, group)
    vars(found)["dist"] = Distribution(distribution)
    return found


@pytest.fixture
def listed(monkeypatch):
    """Announce these entry points, and nothing else, in this order."""

    def install(group, *points):
        every = [point(group, *one) for one in points]
        monkeypatch.setattr(metadata, "entry_points", lambda *, group: every)

    return install


@pytest.mark.parametrize("group", ["vcell.plugins", "vcell.models", "vcell.gene_sets", "any.other"])
def test_what_is_built_in_counts_wherever_it_is_listed(listed, group):
    listed(group, ("a", "theirs:a", "aaa"), ("a", "ours:a", "vcell"), ("b", "theirs:b", "aaa"))
    every = announced(group)
    assert {name: found.target for name, found in every.found.items()} == {
        "a": "ours:a",
        "b": "theirs:b",
    }
    (problem,) = every.problems
    assert "'a' of aaa is ignored: vcell already has" in problem


def test_of_two_others_the_first_by_name_counts_and_the_same_thing_twice_is_no_problem(listed):
    listed("any.other", ("a", "z:a", "zzz"), ("a", "y:a", "yyy"), ("a", "y:a", "yyy"))
    every = announced("any.other")
    assert every.found["a"].target == "y:a"
    assert every.problems == ("entry point 'a' of zzz is ignored: yyy already has that name",)


def test_a_foreign_transformer_does_not_win_in_silence(listed, capsys, monkeypatch):
    monkeypatch.setattr(console, "settings", console.Settings())
    listed(
        "vcell.models",
        ("ridge", "nowhere:ridge", "aaa"),
        ("ridge", "vcell_train_vcc.closed.baselines:ridge", "vcell"),
    )
    assert "regression" in models.get("ridge").summary
    assert "model 'ridge' of aaa is ignored" in capsys.readouterr().err


def test_gene_sets_that_are_shipped_cannot_be_replaced_by_others(listed):
    from vcell.genes import shipped
    from vcell.genes.sets import announced as sets

    name = next(iter(shipped()))
    listed("vcell.gene_sets", ("mine", "tests.core.test_announced:own_sets", "aaa"))
    found, problems = sets()
    assert list(found) == ["mine"]
    assert problems == (
        f"the gene set {name!r} of aaa is ignored: there is one of that name already",
    )


def own_sets():
    from vcell.genes import GeneSet, shipped

    return [GeneSet(name, ("TP53",)) for name in (next(iter(shipped())), "mine")]
