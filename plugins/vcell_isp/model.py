"""Load the model of a command onto its device, with the requested layer and readout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError
from vcell.geneformer import checkpoint
from vcell.geneformer.checkpoint import Geneformer
from vcell.geneformer.shifts import Readout

if TYPE_CHECKING:
    import torch

    from vcell_isp import ModelOptions


@dataclass(frozen=True)
class ModelReader:
    """A model, and the layer and readout by which it embeds cells."""

    model: Geneformer
    n_layers: int
    readout: Readout

    @property
    def text(self) -> str:
        """A description of the model."""
        shape = self.model.shape
        how = "the mean of genes" if self.readout == "mean" else "<cls>"
        return (
            f"{self.model.name}: {self.n_layers} of {shape.n_layers} layers, {how}, "
            f"{self.model.bert.precision.name}; {self.model.note}"
        )


def require(config: ModelOptions) -> str:
    """Return the name of the model; refuse one that is not there, before anything is read."""
    if config.model is None:
        raise UserError(
            "no model is named",
            hint="add --model DIR (a folder with config.json and model.safetensors), or try "
            "--model synthetic:gf-6L-10M-i2048",
        )
    checkpoint.require(config.model)
    return config.model


def load(config: ModelOptions, device: torch.device) -> ModelReader:
    """Load the model, and print its description."""
    model = checkpoint.load(require(config), config.vocabulary, seed=config.seed)
    n_layers = layer_number(config.model_layer, model.shape.n_layers)
    readout = model.readout if config.readout == "auto" else config.readout
    if readout == "cls" and model.vocabulary.cls is None:
        raise UserError(
            f"{model.name} has no <cls> token: it is a model of V1", hint="leave out --readout cls"
        )
    model.bert.to(device)
    model.bert.set_precision(config.precision)
    if model.bert.precision.emulated:
        console.warn(
            f"{config.precision} is emulated on this CPU (rounded, then float32): it shows the "
            "noise of that precision and is slower than fp32"
        )
    found = ModelReader(model, n_layers, "cls" if readout == "cls" else "mean")
    if model.synthetic:
        console.warn(found.text)
    else:
        console.say(found.text)
    return found


def layer_number(name: str, n_layers: int) -> int:
    """Return the number of layers to run; 0 is the input of the first layer."""
    known = {"last": n_layers, "second-to-last": n_layers - 1}
    if name in known:
        return known[name]
    if name.isdecimal() and int(name) <= n_layers:
        return int(name)
    raise UserError(
        f"--model-layer is last, second-to-last or a number from 0 to {n_layers}, not {name!r}",
        hint="upstream's emb_layer -1 is second-to-last here, and 0 is last",
    )
