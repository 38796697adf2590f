"""`vcell train-vcc --estimate`: what a step would cost here, before anything is loaded.

Parameters, FLOPs and memory are counted (`vcell.nn.estimate`); the time is that of a few real steps
of the same network with one and two of its layers (`vcell_train_vcc.network.rehearsal`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vcell import console
from vcell.errors import UserError
from vcell.launch import make_plan
from vcell.models import read_genes
from vcell.nn.estimate import Besides, Estimate, estimate
from vcell.train.precision import resolve
from vcell_train_vcc.network.model import attention_of
from vcell_train_vcc.network.rehearsal import rehearse
from vcell_train_vcc.network.shape import DEFAULT_TOKENS, NEAR, Shape, few_threads

if TYPE_CHECKING:
    from vcell.nn.presets import Preset
    from vcell_train_vcc import TrainVcc

_NETWORKS = ("transformer", "shared-encoder")


def tell(config: TrainVcc) -> None:
    """Print the estimate as a table, or as JSON."""
    if config.model not in _NETWORKS:
        raise UserError(
            f"--estimate is for networks: {config.model} takes no steps",
            hint=f"--model {' or '.join(_NETWORKS)}",
        )
    found, about = of(config)
    console.result({"estimate": found.as_dict(), **about}, f"{_words(about)}\n\n{found}")


def of(config: TrainVcc) -> tuple[Estimate, dict[str, str | int]]:
    """Return the cost of a step, and of what: one device's share, in its largest phase."""
    plan = make_plan(config)
    device = torch.device(plan.device)
    name = config.preset
    if name == "auto":
        name = "base" if plan.device == "cuda" else "tiny"
    tokens = _tokens(config, device)
    shape = Shape(config.model, name, config.dropout, tokens, ((len(tokens), 0),))
    n_tokens = 2 + len(tokens)
    precision = resolve(config.precision, device).name
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    choice = attention_of(config, shape, device)
    if choice.name == "sparse" and not (config.graph and config.genes):
        config = replace(config, graph=None)
        console.warn(
            f"sparse attention is estimated with {NEAR} pairs a gene drawn at random, which takes "
            "more than those of real genes; --graph and --genes say which there are"
        )
    share = -(-config.batch_size // plan.world)  # sets
    sets = min(config.micro_batch or share, share)
    batch = sets * config.pseudo if config.model == "transformer" else 1
    with few_threads(shape.sizes.d_model, device):
        found = rehearse(shape, config, choice, device, share)
    cost = estimate(
        shape.sizes, n_tokens, batch, device=device, dtype=dtype, attention=choice.name,
        pattern=found.pattern, checkpointing=config.checkpoint_activations, ema=config.ema > 0,
        besides=Besides(
            parameters=found.parameters,
            flops=flops(shape.sizes, n_tokens, batch),
            activations=round(sets * found.activations),
        ),
        step_seconds=found.seconds,
    )  # fmt: skip
    about: dict[str, str | int] = {
        "model": config.model, "preset": name, "tokens": n_tokens, "sets": share,
        "sequences": batch, "device": str(device), "precision": precision,
        "attention": str(choice),
    }  # fmt: skip
    return cost, about


def _tokens(config: TrainVcc, device: torch.device) -> tuple[str, ...]:
    """Return the token genes: those of --genes, or as many that have no names yet."""
    if config.genes is not None:
        return tuple(dict.fromkeys(read_genes(config.genes)))[: config.tokens]
    n = config.tokens or DEFAULT_TOKENS[device.type]
    return tuple(f"gene{i}" for i in range(n))


def flops(preset: Preset, n_tokens: int, batch: int) -> int:
    """Count the FLOPs of embeddings and heads of the transformer, forward and backward."""
    d = preset.d_model
    return 6 * batch * n_tokens * (3 * d + d * d + d)


def _words(about: dict[str, str | int]) -> str:
    return (
        f"{about['model']}, preset {about['preset']}: steps of {about['sets']} sets, "
        f"{about['sequences']} sequences of {about['tokens']:,} tokens at once on "
        f"{about['device']} in {about['precision']}\n{about['attention']}"
    )
