"""The settings of training, declared once for every trainer. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from vcell.config import ManyFiles, Ranges, option
from vcell.launch import LaunchOptions


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The settings of training, which every trainer's config class inherits.

    A step is one update of the weights from one global batch of `batch_size` examples, however
    many processes share it and however many pieces of `micro_batch` examples each one cuts its
    share into: neither changes the result beyond rounding.
    """

    heading = "Training"

    batch_size: int = option(64, help="Examples per step, over all devices.", minimum=1)
    micro_batch: int | None = option(
        None,
        help="Maximum number of examples on a device at once; gradients add up to batch-size "
        "(default: all, halved whenever memory runs out).",
        minimum=1,
    )
    max_steps: int = option(2000, help="How many steps to train.", minimum=1)
    lr: float = option(3e-4, help="Peak learning rate.", minimum=0)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = option(
        "cosine", help="Learning rate after warm-up; wsd holds, then decays over the last fifth."
    )
    warmup: float = option(
        0.02, help="Share of the steps over which the learning rate rises.", minimum=0, maximum=1
    )
    final_lr: float = option(
        0.0, help="Learning rate at the end, as a share of the peak.", minimum=0, maximum=1
    )
    weight_decay: float = option(0.01, help="AdamW's decay of weight matrices.", minimum=0)
    clip_norm: float = option(1.0, help="Largest gradient norm; 0 never clips.", minimum=0)
    ema: float = option(
        0.0,
        help="Decay of averaged weights, such as 0.999; 0: no averaging.",
        minimum=0,
        maximum=0.999999,
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = option(
        "auto", help="Arithmetic; auto uses bf16 on a GPU that supports it, else fp32."
    )
    compile: bool = option(default=False, help="Compile the model with torch.compile.")
    checkpoint_activations: bool = option(
        default=False,
        help="Recompute activations in the backward pass: less memory, a third more time.",
    )
    parallel: Literal["ddp", "fsdp"] = option(
        "ddp", help="Several devices: whole model on each (ddp) or sharded over them (fsdp)."
    )
    validate_every: int = option(
        200, help="Steps between validations; 0 validates only at the end.", minimum=0
    )
    checkpoint_every: int = option(
        200, help="Steps between checkpoints; 0 writes only the best and the last.", minimum=0
    )
    patience: int = option(
        0, help="Stop after this many validations without improvement; 0: never.", minimum=0
    )
    seed: int = option(0, help="Seed of every random choice.", minimum=0, maximum=2**32 - 1)
    deterministic: bool = option(
        default=False, help="On a GPU, use reproducible algorithms even if they are slower."
    )
    memory_share: float | None = option(
        None, help="Maximum share of a GPU's memory to use.", minimum=0.05, maximum=1
    )
    empty_cache_every: int = option(
        0,
        help="Steps between releases of unused GPU memory, against fragmentation; 0: never.",
        minimum=0,
    )
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (), help="Also send the metrics to: tensorboard, wandb."
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run directory is, and whether to go on with one."""

    heading = "Runs, folds and sweeps"

    runs: Path = option(Path("runs"), help="Folder for the run directory.")
    resume: str | None = option(None, help="Resume this run: its name, its path or `latest`.")
    gpu_profile: str | None = option(
        None, help="Set the GPUs as `vcell gpu-tune find-optimal` chose, and restore them after."
    )


# settings of the data, the machine, the validation data and of runs: not searched by a sweep
NOT_SEARCHED = (
    *(field.name for one in (ManyFiles, LaunchOptions, RunOptions) for field in fields(one)),
    *("fold", "folds", "seed", "sweep"),
)


@dataclass(frozen=True, kw_only=True)
class ManyOptions(RunOptions):
    """Settings of folds and sweeps for any command that trains; see `vcell.train.many`."""

    fold: str | None = option(
        None, help="Hold out one of several equal parts, such as 2/5 for the second of five."
    )
    folds: int | None = option(
        None,
        help="Hold out this many equal parts in turn, one run each, and compare in one table.",
        minimum=2,
    )
    sweep: int | None = option(
        None, help="Train this many times to find the best settings in --sweep-over.", minimum=1
    )
    sweep_over: Ranges | None = option(
        None,
        help="What to search, preferably as the table [COMMAND.sweep-over] of the project file: "
        'lr = {low = 1e-4, high = 1e-2, log = true}, preset = ["tiny", "small"].',
        apart=NOT_SEARCHED,
    )
