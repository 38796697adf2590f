"""A loader as a stream: endless, and resumed by the number of its last step."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest

from vcell.errors import UserError
from vcell.store import Loader, Shuffled
from vcell.store.stream import LoaderStream

if TYPE_CHECKING:
    from conftest import Screen


def stream(screen: Screen) -> LoaderStream:
    return LoaderStream(Loader(screen.x, Shuffled(batch_size=200, seed=3)), {"cells": 900})


def rows(batches: LoaderStream, n: int) -> list[list[int]]:
    return [batch.rows.tolist() for batch in islice(batches, n)]


def test_it_goes_on_from_epoch_to_epoch(screen: Screen) -> None:
    batches = stream(screen)
    n = len(batches.loader)
    one, two = (sum(rows(batches, n), []) for _ in range(2))  # noqa: RUF017 - short
    assert one != two
    assert len(set(one)) == len(one)
    batches.close()


@pytest.mark.parametrize("seen", [0, 2, 4, 5, 13])
def test_it_goes_on_where_it_stopped(screen: Screen, seen: int) -> None:
    whole = stream(screen)
    rows(whole, seen)
    state = whole.state_dict()
    resumed = stream(screen)
    rows(resumed, 3)
    resumed.load_state_dict(state)
    assert rows(resumed, 6) == rows(whole, 6)
    assert resumed.state_dict() == whole.state_dict() == {"step": seen + 6, "cells": 900}
    whole.close()
    resumed.close()


def test_a_position_in_other_cells_is_refused(screen: Screen) -> None:
    batches = stream(screen)
    with pytest.raises(UserError, match="other cells"):
        batches.load_state_dict({"step": 3, "cells": 901})
    batches.close()
