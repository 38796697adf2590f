"""What several specifications of train-vcc share."""

from __future__ import annotations

import pytest
from vcell_train_vcc import report


@pytest.fixture
def second_interrupted(monkeypatch):
    """From its call on, the second run is interrupted when it is scored; gives the runs' names."""

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
