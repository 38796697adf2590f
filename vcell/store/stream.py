"""A loader as an endless, resumable stream of batches, as `vcell.train` needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcell.store.batch import Batch
    from vcell.store.loader import Loader


class LoaderStream:
    """Batches of a loader, epoch after epoch; the position is one number.

    Parameters
    ----------
    loader
        Its order must have the same number of batches per epoch for any number of processes, so
        that the position has the same meaning.
    identity
        What the position depends on, in plain JSON types: a saved position with another identity is
        refused.
    """

    def __init__(self, loader: Loader, identity: Mapping[str, Any]) -> None:
        self.loader, self.identity = loader, dict(identity)
        self.step = 0  # batches returned since the beginning
        self._epoch = iter(loader)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """Return this process's share of the next step."""
        batch = next(self._epoch, None)
        while batch is None:
            self._epoch = iter(self.loader)
            batch = next(self._epoch, None)
        self.step += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps returned, and the identity."""
        return {"step": self.step, **self.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the steps already returned, on any number of processes."""
        if any(state[key] != mine for key, mine in self.identity.items()):
            raise UserError(
                "the run was trained on other cells than there are now",
                hint="resume with the same data and split, or start a new run",
            )
        self.step = int(state["step"])
        epoch, batch = divmod(self.step, len(self.loader))
        self.loader.load_state_dict(self.loader.state_dict() | {"epoch": epoch, "batch": batch})
        self._epoch = iter(self.loader)

    def close(self) -> None:
        """End the loader's threads."""
        self.loader.close()
