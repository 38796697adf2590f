"""`vcell train-vcc --estimate`: the cost of a training step, before anything is loaded.

Parameters, FLOPs and memory are counted (`vcell.nn.estimate`). The time is measured with a few
steps of the same network with one and two of its layers (`vcell_train_vcc.network.rehearsal`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vcell import console
from vcell.data import labels, open_cells
from vcell.errors import UserError
from vcell.gpu.accelerator import OnPaper, standing_in
from vcell.gpu.published import ESTIMATED, Sheet, bill, seconds, sheet
from vcell.launch import Plan, make_plan
from vcell.models import read_genes
from vcell.nn.estimate import Besides, Estimate, estimate
from vcell.screen.design import Design
from vcell.train.left_open import Machine, machine_of
from vcell.train.precision import resolve
from vcell.train.threads import few_threads
from vcell_train_vcc import NETWORKS, TrainVcc
from vcell_train_vcc.network.defaults import Size
from vcell_train_vcc.network.losses import retrieval_bytes
from vcell_train_vcc.network.model import attention_of
from vcell_train_vcc.network.rehearsal import PERTURBATIONS, rehearse, without_time
from vcell_train_vcc.network.settle import applied
from vcell_train_vcc.network.shape import DEFAULT_TOKENS, NEAR, NetworkShape

if TYPE_CHECKING:
    from vcell.nn.presets import Preset

_MOVED = 40  # bytes per parameter that clipping, AdamW and averaging read and write


def report(cells: Path | None, config: TrainVcc) -> None:
    """Print the estimate as a table, or as JSON."""
    if config.model not in NETWORKS:
        raise UserError(
            f"--estimate is for networks: {config.model} takes no steps",
            hint=f"--model {' or '.join(NETWORKS)}",
        )
    card = sheet(config.gpu) if config.gpu else None
    if card is None:
        plan = make_plan(config)
        config, learned = _settled(cells, config, machine_of(plan))
        found, about = of(config, plan, learned=learned)
        console.result({"estimate": found.as_dict(), **about}, f"{_description(about)}\n\n{found}")
        return
    if config.device == "cpu":
        raise UserError(f"--gpu {config.gpu} and --device cpu contradict each other")
    plan = Plan("cuda", 1 if config.gpus == "auto" else int(config.gpus), config.nodes)
    paper = Machine(
        "cuda", card.name, int(1e9 * card.memory), card.capability >= (8, 0), plan.world
    )
    with standing_in(lambda device: OnPaper(device, card)):
        config, learned = _settled(cells, config, paper)
        found, about = of(config, plan, card, learned=learned)
    passes = math.ceil(math.ceil(config.batch_size / plan.world) / int(about["sets"]))
    passes *= config.max_steps
    least, most = seconds(card, found.flops, _MOVED * found.parameters, str(about["precision"]))
    used, there = found.memory_bytes / 1e9, card.memory
    total = {
        "steps": f"{config.max_steps:,} of {config.batch_size} sets",
        **bill(card, passes * least, passes * most, plan.world),
        "memory": f"{used:.1f} of {there:.0f} GB"
        + ("" if used <= there else ": too much; take a smaller --micro-batch"),
    }
    rows = [[name.replace("_", " "), value] for name, value in total.items()]
    table = console.table(rows, ["in all", "value"])
    text = f"{_description(about)}\n{ESTIMATED}\n\n{found}\n\n{table}"
    console.result({"estimate": found.as_dict(), **about, "from": ESTIMATED, "in_all": total}, text)


def _settled(cells: Path | None, config: TrainVcc, machine: Machine) -> tuple[TrainVcc, int]:
    """Return the settings that training would use, and the number of training perturbations."""
    if cells is None:
        if machine.kind == "cuda":
            console.say("without cells, steps and batch are not chosen by their number: name them")
        return config, PERTURBATIONS
    with open_cells(cells, config.layer, join=config.join) as source:
        design = Design.read(source, labels.find(source, config)).by_targets()
        counts = np.bincount(design.perturbation[design.perturbation >= 0])
        learned = (1 - config.test_share) * (1 - config.validation_share)
        counts = counts[counts >= config.min_cells]
        sets = learned * np.ceil(counts / config.set_size).sum()
        size = Size(
            int(learned * counts.sum()), int(sets), round(learned * len(counts)), source.n_genes
        )
    return applied(config, size, machine), size.perturbations


def of(
    config: TrainVcc, plan: Plan, card: Sheet | None = None, *, learned: int = PERTURBATIONS
) -> tuple[Estimate, dict[str, str | int]]:
    """Return the cost of a step on one device, in its largest phase, and a description of it.

    `learned` is the number of training perturbations. With a card, the time comes from its data
    sheet, and everything outside the encoder is counted on the CPU.
    """
    device = torch.device(plan.device)
    name = config.preset
    if name == "auto":
        name = "base" if plan.device == "cuda" else "tiny"
    tokens = _tokens(config, device)
    shape = NetworkShape(config.model, name, config.dropout, tokens, ((len(tokens), 0),))
    n_tokens = 2 + len(tokens)
    precision = resolve(config.precision, device)
    choice = attention_of(config, shape, device)
    if choice.name == "sparse" and not (config.graph and config.genes):
        config = replace(config, graph=())
        console.warn(
            f"sparse attention is estimated with {NEAR} pairs a gene drawn at random, which takes "
            "more than those of real genes; --graph and --genes say which there are"
        )
    share = -(-config.batch_size // plan.world)  # sets per device
    sets = min(config.micro_batch or share, share)
    batch = sets * config.pseudo if config.model == "transformer" else 1
    with few_threads(shape.sizes.d_model, device):
        if card is None:
            found = rehearse(shape, config, choice, device, share)
        else:
            found = without_time(shape, replace(config, precision="fp32"), choice)
    buffers, working = retrieval_bytes(config, sets, learned, len(tokens))
    cost = estimate(
        shape.sizes, n_tokens, batch, device=device, dtype=precision.dtype, attention=choice.name,
        pattern=found.pattern, checkpointing=config.checkpoint_activations, ema=config.ema > 0,
        besides=Besides(
            parameters=found.parameters,
            flops=flops(shape.sizes, n_tokens, batch),
            activations=round(sets * found.activations),
            buffers=buffers,
            working=working,
        ),
        step_seconds=found.seconds or 1.0,
    )  # fmt: skip
    if card is not None:
        least, most = seconds(card, cost.flops, _MOVED * cost.parameters, precision.name)
        cost = replace(cost, step_seconds=(least + most) / 2)
    about: dict[str, str | int] = {
        "model": config.model, "preset": name, "tokens": n_tokens, "sets": sets,
        "sequences": batch, "device": str(device) if card is None else card.name,
        "precision": precision.name, "attention": str(choice),
    }  # fmt: skip
    return cost, about


def _tokens(config: TrainVcc, device: torch.device) -> tuple[str, ...]:
    """Return the token genes of --genes, or placeholders for as many."""
    if config.genes is not None:
        return tuple(dict.fromkeys(read_genes(config.genes)))[: config.tokens]
    n = config.tokens or DEFAULT_TOKENS[device.type]
    return tuple(f"gene{i}" for i in range(n))


def flops(preset: Preset, n_tokens: int, batch: int) -> int:
    """Count the FLOPs of the transformer's embeddings and heads, forward and backward."""
    d = preset.d_model
    return 6 * batch * n_tokens * (3 * d + d * d + d)


def _description(about: dict[str, str | int]) -> str:
    return (
        f"{about['model']}, preset {about['preset']}: steps of {about['sets']} sets, "
        f"{about['sequences']} sequences of {about['tokens']:,} tokens at once on "
        f"{about['device']} in {about['precision']}\n{about['attention']}"
    )
