"""Slurm's environment, with the values that its documentation gives, and some it warns of."""

from __future__ import annotations

import pytest

from vcell.errors import UserError
from vcell.gpu.nvml import Device, Devices
from vcell.launch import LaunchOptions, make_plan
from vcell.launch.plan import first_host

FOUR = Devices(tuple(Device(i, "H100", 80 << 30, f"GPU-{i}") for i in range(4)))

# srun --nodes=2 --ntasks-per-node=1 --gpus-per-node=4: what a step's task finds. Names and formats
# are those of srun(1) of Slurm 22.05.8 (Debian's slurm-client), OUTPUT ENVIRONMENT VARIABLES; also
# https://slurm.schedmd.com/srun.html.
STEP = {
    "SLURM_CLUSTER_NAME": "cluster",
    "SLURM_CPUS_ON_NODE": "64",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_JOBID": "8412077",
    "SLURM_JOB_ID": "8412077",
    "SLURM_JOB_NODELIST": "gpu-a[003,017]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_LAUNCH_NODE_IPADDR": "10.1.0.3",
    "SLURM_LOCALID": "0",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "gpu-a[003,017]",
    "SLURM_NPROCS": "2",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu-a[003,017]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_TASKS_PER_NODE": "1(x2)",
    "SLURM_TOPOLOGY_ADDR": "gpu-a003",
    "SLURMD_NODENAME": "gpu-a003",
}
ON_ALL = LaunchOptions(gpus="auto")


def test_a_step_of_two_nodes() -> None:
    first = make_plan(ON_ALL, STEP, FOUR)
    second = make_plan(
        ON_ALL, STEP | {"SLURM_NODEID": "1", "SLURM_PROCID": "1", "SLURMD_NODENAME": "x"}, FOUR
    )
    assert (first.device, first.procs, first.nodes, first.world) == ("cuda", 4, 2, 8)
    assert (first.rdzv, first.job, first.leads) == ("gpu-a003:32077", "slurm-8412077-0", True)
    assert (second.rdzv, second.job, second.leads) == (first.rdzv, first.job, False)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ("SLURM_STEP_ID", "SLURM_STEP_ID"),  # sbatch without srun
        ("SLURM_NODEID", "SLURM_NODEID"),
    ],
)
def test_what_is_missing_is_named(words: str, missing: str) -> None:
    less = {name: value for name, value in STEP.items() if name != words}
    with pytest.raises(UserError, match=missing) as caught:
        make_plan(ON_ALL, less, FOUR)
    assert "srun" in (caught.value.hint or "")


def test_without_any_list_of_nodes_it_is_named() -> None:
    less = {name: value for name, value in STEP.items() if "NODELIST" not in name}
    with pytest.raises(UserError, match="SLURM_STEP_NODELIST"):
        make_plan(ON_ALL, less, FOUR)


def test_a_step_on_some_nodes_of_a_job_meets_on_its_own_first_node() -> None:
    """srun --relative=2 --nodes=2 in a job of four: the job's first node takes no part."""
    job = STEP | {
        "SLURM_NNODES": "4",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_JOB_NODELIST": "gpu-a[003,017,021,030]",
        "SLURM_STEP_NODELIST": "gpu-a[021,030]",
    }
    plan = make_plan(ON_ALL, job, FOUR)
    assert (plan.nodes, plan.rdzv) == (2, "gpu-a021:32077")
    one = make_plan(ON_ALL, job | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1"}, FOUR)
    assert (one.nodes, one.job) == (1, None)


def test_before_steps_had_names_of_their_own_the_jobs_are_taken() -> None:
    old = {k: v for k, v in STEP.items() if not k.startswith("SLURM_STEP_N")}
    assert make_plan(ON_ALL, old, FOUR).rdzv == "gpu-a003:32077"


@pytest.mark.parametrize("odd", ["", "two", "-1", "2(x3)"])
def test_odd_numbers_are_no_traceback(odd: str) -> None:
    environment = STEP | {"SLURM_STEP_NUM_NODES": odd, "SLURM_STEP_NUM_TASKS": odd}
    assert make_plan(ON_ALL, environment, FOUR).nodes == 2


def test_several_tasks_on_a_node_are_refused_however_they_were_asked_for() -> None:
    for more in ({"SLURM_NTASKS_PER_NODE": "4"}, {"SLURM_STEP_NUM_TASKS": "8"}):
        less = {k: v for k, v in STEP.items() if k not in more}
        with pytest.raises(UserError, match="several tasks") as caught:
            make_plan(ON_ALL, less | more, FOUR)
        assert "--ntasks-per-node=1" in (caught.value.hint or "")


def test_one_node_needs_nothing_of_slurm() -> None:
    alone = STEP | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}
    plan = make_plan(ON_ALL, alone, FOUR)
    assert (plan.nodes, plan.job) == (1, None)


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [
        ("gpu-a[003,017]", "gpu-a003"),
        ("gpu-a[003-009,017]", "gpu-a003"),
        ("node12", "node12"),
        ("a1,b[2-3]", "a1"),
        ("rack[1-2]node[5-6]", "rack1node5"),
        ("cn[001]-ib", "cn001-ib"),
    ],
)
def test_the_first_of_a_list_of_nodes(nodelist: str, first: str) -> None:
    assert first_host(nodelist) == first
