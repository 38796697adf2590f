"""Load Geneformer from a folder, or make a random model of a real shape.

``load("models/gf-12L-38M-i4096")`` reads config.json and model.safetensors or pytorch_model.bin
(with `weights_only`: no code in it is executed). ``load("synthetic:gf-6L-10M-i2048")`` has random
weights in the shape of a real model, for tests, trials of the command line, and timing. Its results
have no meaning.


"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vcell import console
from vcell.errors import UserError
from vcell.geneformer.shapes import PUBLISHED, SHAPES
from vcell.geneformer.vocabulary import SIZES, Vocabulary, read, shipped
from vcell.nn.bert import Bert, BertShape
from vcell.runs.files import checksum
from vcell.suggest import did_you_mean

SYNTHETIC = "synthetic:"
#: Names of a block's parts there and here; query, key and value are combined.
_PARTS = {
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm_output",
}


@dataclass(frozen=True)
class Geneformer:
    """A loaded model."""

    name: str
    bert: Bert
    vocabulary: Vocabulary
    synthetic: bool
    checksum: str
    note: str

    @property
    def shape(self) -> BertShape:
        """The sizes of the model."""
        return self.bert.shape

    @property
    def readout(self) -> str:
        """Upstream's way of embedding a cell: the mean of its genes in V1, <cls> in V2."""
        return "mean" if self.vocabulary.cls is None else "cls"


def load(name: str, vocabulary: Path | None = None, *, seed: int = 0) -> Geneformer:
    """Load a model from a folder, or by a synthetic name.

    Raises
    ------
    UserError
        If it is not a Geneformer, is damaged, or has other tokens than the vocabulary.
    """
    require(name)
    if name.startswith(SYNTHETIC):
        return _synthetic(name, vocabulary, seed)
    folder = Path(name)
    shape = _shape(folder)
    known = _vocabulary(vocabulary, shape.n_tokens, str(folder))
    path = _weights_file(folder)
    bert = Bert(shape)
    _fill(bert, _read(path), path)
    digest, note = _recognised(path)
    bert.eval().requires_grad_(requires_grad=False)
    return Geneformer(folder.name, bert, known, synthetic=False, checksum=digest, note=note)


def require(name: str) -> None:
    """Refuse what is neither a model's folder nor a synthetic name, before anything is read.

    Raises
    ------
    UserError
        With the reason.
    """
    if name.startswith(SYNTHETIC):
        wanted = name.removeprefix(SYNTHETIC)
        if wanted not in SHAPES:
            raise UserError(
                f"there is no {name}{did_you_mean(wanted, SHAPES)}",
                hint=f"made-up weights come as {', '.join(SHAPES)}",
            )
        return
    folder = Path(name)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(
            f"{folder} {what}",
            hint="--model takes a folder with config.json and model.safetensors, or "
            f"{SYNTHETIC}gf-6L-10M-i2048 for made-up weights",
        )
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} holds a LoRA adapter, which is not a whole model",
            hint="merge it into its base model (peft: merge_and_unload) and save that",
        )


def _synthetic(name: str, vocabulary: Path | None, seed: int) -> Geneformer:
    """Make random weights: BERT's initial scale (0.02), smooth positions like trained ones."""
    wanted = name.removeprefix(SYNTHETIC)
    shape = SHAPES[wanted]
    bert = Bert(shape)
    made_up(bert, seed)
    known = _vocabulary(vocabulary, shape.n_tokens, name)
    bert.eval().requires_grad_(requires_grad=False)
    note = f"made-up weights (seed {seed}): good for trials and timing, not for biology"
    return Geneformer(wanted, bert, known, synthetic=True, checksum=f"seed-{seed}", note=note)


@torch.no_grad()
def made_up(bert: Bert, seed: int, *, smooth: bool = True) -> None:
    """Fill a model with random weights; neighbouring positions are similar if `smooth`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    for module in bert.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.copy_(normal(*module.weight.shape) / math.sqrt(module.in_features))
            module.bias.copy_(0.02 * normal(*module.bias.shape))
        elif isinstance(module, torch.nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
    shape = bert.shape
    bert.tokens.weight.copy_(normal(shape.n_tokens, shape.d_model))
    if smooth:
        waves = 16
        place = torch.arange(shape.n_positions)[:, None] / shape.n_positions
        turns = torch.arange(1, waves + 1)[None, :] * math.pi * place
        basis = torch.cat([turns.cos(), turns.sin()], 1) / math.sqrt(waves)
        bert.positions.weight.copy_(0.5 * basis @ normal(2 * waves, shape.d_model))
    else:
        bert.positions.weight.copy_(0.5 * normal(shape.n_positions, shape.d_model))


def _vocabulary(path: Path | None, n_tokens: int, model: str) -> Vocabulary:
    if path is not None:
        known = read(path)
        if len(known) != n_tokens:
            raise UserError(
                f"{model} has {n_tokens:,} tokens, the vocabulary {path} {len(known):,}",
                hint="give the vocabulary that the model was trained with",
            )
        return known
    for version, size in SIZES.items():
        if size == n_tokens:
            return shipped(version)
    sizes = " and ".join(f"{size:,} ({version})" for version, size in SIZES.items())
    raise UserError(
        f"{model} has {n_tokens:,} tokens; Geneformer's vocabularies have {sizes}",
        hint="another model of this form needs its own table: --vocabulary FILE",
    )


def _shape(folder: Path) -> BertShape:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
        sizes = {
            "n_layers": "num_hidden_layers", "d_model": "hidden_size",
            "n_heads": "num_attention_heads", "d_ff": "intermediate_size",
            "n_positions": "max_position_embeddings", "n_tokens": "vocab_size",
        }  # fmt: skip
        found = {ours: int(config[theirs]) for ours, theirs in sizes.items()}
        eps = float(config.get("layer_norm_eps", 1e-12))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no config.json, so it is not a folder of a model",
            hint="name the folder that holds config.json and model.safetensors",
        ) from None
    except KeyError as error:
        raise UserError(f"{path} lacks {error}: it is not the configuration of a BERT") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    _check_kind(config, path)
    if min(found.values()) < 1 or found["d_model"] % found["n_heads"]:
        raise UserError(f"{path} is damaged: its sizes {found} are impossible")
    return BertShape(**found, eps=eps)


def _check_kind(config: dict[str, Any], path: Path) -> None:
    kind = config.get("model_type", "bert")
    if kind != "bert":
        raise UserError(f"{path} describes a {kind}, and Geneformer is a bert")
    if (act := config.get("hidden_act", "relu")) != "relu":
        raise UserError(f"{path} has hidden_act {act!r}, and Geneformer has relu")
    if (where := config.get("position_embedding_type", "absolute")) != "absolute":
        raise UserError(f"{path} has {where!r} positions, and Geneformer has absolute ones")


def _weights_file(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin",
        hint="a checkout from Hugging Face needs git lfs pull to fetch them",
    )


def _read(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise UserError(f"{path} is a Git LFS pointer, not the weights", hint="git lfs pull")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, ValueError) as error:
            size = path.stat().st_size
            raise UserError(f"{path} ({size:,} bytes) is truncated or damaged: {error}") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds of errors for damaged or unsafe files
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is damaged, or holds more than weights: {first}",
            hint="save the model as safetensors (save_pretrained does)",
        ) from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds a {type(loaded).__name__}, not weights by name")
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}


def _fill(bert: Bert, weights: dict[str, Tensor], path: Path) -> None:
    """Copy weights by their Hugging Face names, with or without ``bert.``; without heads."""
    named = {_plain(name): value for name, value in weights.items()}
    wanted = _wanted(bert)
    missing = [name for name in wanted if name not in named]
    if missing:
        lora = any("lora_" in name for name in named)
        raise UserError(
            f"{path} lacks {missing[0]} (and {len(missing) - 1:,} more of {len(wanted):,} weights)",
            hint="it holds a LoRA adapter: merge it into its base model first" if lora
            else "it is not a BERT as transformers saves it",
        )  # fmt: skip
    with torch.no_grad():
        for name, target in wanted.items():
            value = named[name]
            if value.shape != target.shape:
                raise UserError(
                    f"{path}: {name} is {tuple(value.shape)}, "
                    f"config.json says {tuple(target.shape)}"
                )
            target.copy_(value)
        types = named.get("embeddings.token_type_embeddings.weight")
        if types is not None:  # type 0 is added to every token: folded into positions
            bert.positions.weight += types[0]
    if not all(bool(torch.isfinite(p).all()) for p in bert.parameters()):
        raise UserError(f"{path} holds weights that are NaN or infinite")


def _plain(name: str) -> str:
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _wanted(bert: Bert) -> dict[str, Tensor]:
    """Return the tensors to fill, by Hugging Face's names; projections are views of one tensor."""
    wanted = {
        "embeddings.word_embeddings.weight": bert.tokens.weight,
        "embeddings.position_embeddings.weight": bert.positions.weight,
        "embeddings.LayerNorm.weight": bert.norm.weight,
        "embeddings.LayerNorm.bias": bert.norm.bias,
    }
    for i in range(bert.shape.n_layers):
        block, at = bert.block(i), f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            thirds = getattr(block.qkv, kind).chunk(3)
            for part, third in zip(("query", "key", "value"), thirds, strict=True):
                wanted[f"{at}.attention.self.{part}.{kind}"] = third
            for theirs, ours in _PARTS.items():
                wanted[f"{at}.{theirs}.{kind}"] = getattr(getattr(block, ours), kind)
    return wanted


def _recognised(path: Path) -> tuple[str, str]:
    """Return the file's SHA-256, and a note on which published file it is."""
    digest = checksum(path)
    known = PUBLISHED.get(path.stat().st_size)
    if known is None:
        return digest, "no published file of this size: fine-tuned, or made elsewhere"
    start, name = known
    if digest.startswith(start):
        return digest, f"the published {name}, checksum as published"
    console.warn(f"{path} is as large as the published {name}, but its content differs")
    return digest, f"as large as the published {name}, with other content"


def to_hugging_face(bert: Bert) -> dict[str, Tensor]:
    """Return the weights by Hugging Face's names."""
    named = {f"bert.{name}": value.detach().clone() for name, value in _wanted(bert).items()}
    named["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(2, bert.shape.d_model)
    return named


def save(bert: Bert, folder: Path) -> None:
    """Write a model in transformers' format: config.json and model.safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shape = bert.shape
    config = {
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_act": "relu",
        "num_hidden_layers": shape.n_layers, "hidden_size": shape.d_model,
        "num_attention_heads": shape.n_heads, "intermediate_size": shape.d_ff,
        "max_position_embeddings": shape.n_positions, "vocab_size": shape.n_tokens,
        "layer_norm_eps": shape.eps, "pad_token_id": 0, "type_vocab_size": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(to_hugging_face(bert), folder / "model.safetensors", metadata={"format": "pt"})
