"""A worker that joins its peers and then does what its run's config says."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.runs import Run


def work(run: Run) -> None:
    mode = run.meta["config"]["mode"]
    if mode == "train":
        from tests.train.toy import fit

        fit(run, {"max_steps": 60, "checkpoint_every": 4}, dropout=0.0, slow=0.05)
        return
    if mode in ("joined", "stuck"):
        return _join(mode, run.meta["device"])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        total = torch.tensor([rank + 1])
        dist.all_reduce(total)
        run.rank_log(rank).log("sum", value=int(total))
    console.say(f"rank {rank} speaks")
    if mode == "wait":
        _wait_for_a_signal(run, rank)
    elif mode == "sleep":
        run.rank_log(rank).log("ready")
        time.sleep(3600)
    elif rank == world - 1:
        _fail(mode)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def _join(mode: str, device: str) -> None:
    """Join as training does; where leaving the group would hang, fail on one rank."""
    import torch.distributed as dist

    from vcell.train import parallel

    if mode == "stuck":
        dist.destroy_process_group = lambda: time.sleep(3600)
    with parallel.joined(device) as place:
        if mode == "stuck" and place.rank == 1:
            raise UserError("the gene XYZ is unknown", hint="check the spelling")
        if mode == "stuck":
            parallel.agree([1])


def _wait_for_a_signal(run: Run, rank: int) -> None:
    got: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    run.rank_log(rank).log("ready")
    while not got:
        time.sleep(0.02)
    if rank == 0:
        run.save_checkpoint(1, lambda folder: (folder / "x").write_text("x"))
        run.finish("interrupted")


def _fail(mode: str) -> None:
    if mode == "raise":
        raise ZeroDivisionError("by nothing")
    if mode == "user":
        raise UserError("the gene XYZ is unknown", hint="check the spelling")
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
