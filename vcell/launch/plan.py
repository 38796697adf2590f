"""Decide how many processes run where, and check it, before torch is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vcell import console
from vcell.errors import UserError
from vcell.gpu.agreement import checked
from vcell.gpu.nvml import Devices, devices

if TYPE_CHECKING:
    from vcell.launch.options import LaunchOptions

_FIRST_OF_LIST = re.compile(r"(?:[^\[,]+|\[[^\]]*\])+")  # up to a comma outside brackets
_RANGES = re.compile(r"\[(?P<first>\d+)[^\]]*\]")


@dataclass(frozen=True)
class Plan:
    """The devices and processes of a launch."""

    device: Literal["cpu", "cuda"]
    procs: int  # on each machine
    nodes: int = 1
    rdzv: str = "localhost:0"
    job: str | None = None
    leads: bool = True  # whether this machine makes the run directory

    @property
    def world(self) -> int:
        """Total number of processes."""
        return self.procs * self.nodes


def make_plan(
    options: LaunchOptions,
    environment: Mapping[str, str] = os.environ,
    seen: Devices | None = None,
) -> Plan:
    """Return the plan for this machine, or raise a UserError that says what it lacks.

    The driver is queried first, and torch only if GPUs are to be used; `seen` replaces the driver's
    answer.
    """
    if seen is None:
        seen = _usable(options)
    device, procs = _processes(options, seen)
    slurm = _whole(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    if options.launcher != "local" and "SLURM_STEP_ID" in environment:
        _refuse_several_tasks(environment)
    if options.launcher == "slurm" or (options.launcher == "auto" and slurm > 1):
        return _slurm(device, procs, environment)
    if options.nodes == 1:
        return Plan(device, procs)
    if not (options.rdzv and options.job):
        raise UserError(
            f"{options.nodes} machines need a rendezvous and a job name",
            hint="give --rdzv HOST:PORT and --job NAME, the same on every machine",
        )
    return Plan(device, procs, options.nodes, _endpoint(options.rdzv), options.job)


def _usable(options: LaunchOptions) -> Devices:
    """Return the GPUs that driver and torch agree on, unless the CPU is requested."""
    # number GPUs as nvidia-smi does, even if cards differ
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    seen = devices()
    for problem in seen.problems:
        if problem != seen.reason:
            console.warn(problem)
    n_gpus = 1 if options.gpus == "auto" else int(options.gpus)
    if options.device == "cpu" or options.procs is not None or n_gpus > max(len(seen.devices), 1):
        return seen
    return checked(seen)


def _processes(options: LaunchOptions, seen: Devices) -> tuple[Literal["cpu", "cuda"], int]:
    have = len(seen.devices)
    wanted = have if options.gpus == "auto" else int(options.gpus)
    if options.device == "cpu" or options.procs is not None:
        if wanted > 1 and options.gpus != "auto":
            raise UserError(
                f"--gpus {wanted} and the CPU contradict each other", hint="give --procs instead"
            )
        return "cpu", options.procs or 1
    if options.device == "auto" and have == 0 and wanted <= 1:
        if seen.remedy:
            console.warn(f"computing on the CPU: {seen.reason}; to use a GPU, {seen.remedy}")
        return "cpu", 1
    if wanted > have or have == 0:
        remedy = f"{seen.remedy}; or " if seen.remedy else ""
        hint = f"--gpus {have}" if have else f"{remedy}--device cpu, with --procs for several"
        raise too_few_gpus(wanted, have, hint, seen.reason)
    if have > wanted and options.gpus == "1":
        console.say(f"using 1 of {have} GPUs; --gpus auto uses all")
    return "cuda", wanted


def too_few_gpus(wanted: int, have: int, hint: str, reason: str = "") -> UserError:
    """Return the error for more GPUs than there are; `reason` says why none was found."""
    why = f" ({reason})" if reason else ""
    requested = console.count(max(wanted, 1), "GPU")
    return UserError(f"requested: {requested}; this machine has {have or 'none'}{why}", hint=hint)


def _refuse_several_tasks(environment: Mapping[str, str]) -> None:
    """Raise if Slurm starts vcell more than once on a machine: each would train everything."""
    tasks = _whole(environment, "SLURM_STEP_NUM_TASKS")
    nodes = _whole(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    if environment.get("SLURM_NTASKS_PER_NODE", "1") != "1" or tasks > nodes:
        raise UserError(
            "Slurm starts several tasks on each machine, and vcell starts its processes itself",
            hint="srun --ntasks-per-node=1 vcell ..., and --gpus auto for all GPUs of a machine",
        )


def _whole(environment: Mapping[str, str], *names: str) -> int:
    """Return the first of some variables that is a whole number, else 1."""
    found = (environment.get(name, "") for name in names)
    return next((int(text) for text in found if text.isdecimal()), 1)


def _slurm(device: Literal["cpu", "cuda"], procs: int, environment: Mapping[str, str]) -> Plan:
    """Read the machines from Slurm: one vcell per machine, which starts the processes itself.

    A step may have fewer machines than its job, and others than the job's first: use those of the
    step, as srun(1) of Slurm 22.05 documents under OUTPUT ENVIRONMENT VARIABLES; sbatch(1) has the
    number of restarts there.
    """
    needed = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NODEID", "SLURM_STEP_NODELIST")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    there = dict(environment) | ({"SLURM_STEP_NODELIST": nodes} if nodes else {})
    missing = [name for name in needed if name not in there]
    if missing:
        raise UserError(
            f"Slurm should start the machines, but the environment has no {', '.join(missing)}",
            hint="start vcell with srun inside a Slurm job, or give --launcher local",
        )
    job = environment["SLURM_JOB_ID"]
    step = environment["SLURM_STEP_ID"]
    # a job that is put back into the queue, as after a power failure, keeps its number
    times = environment.get("SLURM_RESTART_COUNT", "0")
    again = f"-restart{times}" if times.isdecimal() and int(times) else ""
    port = (
        20_000 + _whole(environment, "SLURM_JOB_ID") % 20_000
    )  # two jobs that share a head node do not collide
    return Plan(
        device,
        procs,
        _whole(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES"),
        f"{first_host(there['SLURM_STEP_NODELIST'])}:{port}",
        f"slurm-{job}-{step}{again}",
        environment["SLURM_NODEID"] == "0",
    )


def first_host(nodelist: str) -> str:
    """Return the first machine of Slurm's compressed list: gpu07 of ``gpu[07-09,12],x``."""
    first = _FIRST_OF_LIST.match(nodelist)
    if not first or not nodelist:
        raise UserError(f"Slurm's list of machines {nodelist!r} names none")
    return _RANGES.sub(lambda found: found["first"], first[0])


def _endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(
            f"--rdzv {text!r} is not of the form HOST:PORT", hint="for example head01:29500"
        )
    import socket

    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise UserError(
            f"--rdzv {text!r}: the host {host} is not known here ({error.strerror})",
            hint="name one of the machines by a name that all of them can resolve",
        ) from None
    return text
