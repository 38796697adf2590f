"""Fixtures shared by tests of train-vcc."""

from __future__ import annotations

import pytest
from vcell_train_vcc import report


@pytest.fixture
def second_interrupted(monkeypatch):
    """Interrupt the scoring of the second run from now on; return the runs' names."""

    def begin():
        calm, names = report.scored, []

        def interrupted(*given):
            names.append(given[0].name)
            if len(names) == 2:
                raise KeyboardInterrupt
            return calm(*given)

        monkeypatch.setattr(report, "scored", interrupted)
        return names

    return begin
