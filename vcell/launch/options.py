"""The settings of a launch, shared by every command that trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vcell.config.fields import option


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """The devices and machines on which a command runs. A trainer's config class inherits them."""

    heading = "Machines"

    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", help="Device to use; auto uses GPUs if there are any."
    )
    gpus: str = option("1", help="How many GPUs of this machine to use: a number, or auto for all.")
    procs: int | None = option(
        None,
        help="Number of processes on this machine, with --device cpu.",
        minimum=1,
        maximum=1024,
    )
    launcher: Literal["auto", "local", "slurm"] = option(
        "auto",
        help="What starts the job on each machine; auto uses Slurm where its environment "
        "is present.",
    )
    nodes: int = option(1, help="Number of machines that take part.", minimum=1)
    rdzv: str | None = option(None, help="HOST:PORT of the rendezvous; the same on all machines.")
    job: str | None = option(None, help="A name for this job, the same on all machines.")

    def __post_init__(self) -> None:
        if self.gpus != "auto" and not (self.gpus.isdecimal() and int(self.gpus) > 0):
            raise ValueError(f"gpus must be 1, 2, ... or auto, not {self.gpus!r}")
        if self.procs is not None and self.device == "cuda":
            raise ValueError("procs is for the CPU; on GPUs there is one process for each of gpus")
        if self.nodes > 1 and self.launcher == "local" and not (self.rdzv and self.job):
            raise ValueError("several nodes need rdzv (HOST:PORT) and job, the same on all of them")
