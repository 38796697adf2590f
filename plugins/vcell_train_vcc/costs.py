"""`vcell train-vcc --estimate`: what a step would cost here, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from vcell import console
from vcell.errors import UserError
from vcell.nn.attention import choose
from vcell.nn.estimate import Besides, Estimate, estimate
from vcell.nn.presets import PRESETS, Preset
from vcell.train.precision import resolve
from vcell_train_vcc.shape import DEFAULT_TOKENS

if TYPE_CHECKING:
    from vcell_train_vcc import TrainVcc

_FEATURES = 64  # of a gene, about: the network's share of them is small


def tell(config: TrainVcc) -> None:
    """Print the estimate as a table, or as JSON."""
    found, about = of(config)
    console.result({"estimate": found.as_dict(), **about}, f"{_words(about)}\n\n{found}")


def of(config: TrainVcc) -> tuple[Estimate, dict[str, str | int]]:
    """Return the cost of a step, and of what: one device's share at once, in its largest phase."""
    gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    name = config.preset if config.preset != "auto" else ("base" if gpu else "tiny")
    preset = Preset(**asdict(PRESETS[name]) | {"dropout": config.dropout})
    n_tokens = 2 + (config.tokens or DEFAULT_TOKENS[device.type])
    precision = resolve(config.precision, device).name
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    choice = choose(config.attention, device, dtype, n_tokens=n_tokens, head_dim=preset.head_dim)
    if choice.name in ("sparse", "local"):
        raise UserError(
            f"--estimate knows no pattern of attention {choice.name} before the genes are read",
            hint="estimate with --attention auto, which takes more",
        )
    sets = min(config.micro_batch or config.batch_size, config.batch_size)
    batch = sets * config.pseudo if config.model == "transformer" else 1
    found = estimate(
        preset, n_tokens, batch, device=device, dtype=dtype, attention=choice.name,
        checkpointing=config.checkpoint_activations, ema=config.ema > 0,
        besides=besides(preset, n_tokens, batch),
    )  # fmt: skip
    about: dict[str, str | int] = {
        "model": config.model, "preset": name, "tokens": n_tokens, "sequences": batch,
        "device": str(device), "precision": precision, "attention": str(choice),
    }  # fmt: skip
    return found, about


def besides(preset: Preset, n_tokens: int, batch: int) -> Besides:
    """Count embeddings and heads of the transformer."""
    d = preset.d_model
    value = 3 * d + d * d  # two numbers to d, d to d
    pert = _FEATURES * d + d + d * d
    return Besides(
        parameters=n_tokens * d + value + pert + 2 * d * d + 3 * d,
        flops=6 * batch * n_tokens * (value + d),
        activations=4 * batch * n_tokens * (5 * d + 8),
    )


def _words(about: dict[str, str | int]) -> str:
    return (
        f"{about['model']}, preset {about['preset']}, {about['sequences']} sequences of "
        f"{about['tokens']:,} tokens at once on {about['device']} in {about['precision']}\n"
        f"{about['attention']}"
    )
