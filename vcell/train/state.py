"""The contents of a checkpoint, collected from all processes and restored: no pickle anywhere.

A checkpoint folder: ``model.safetensors`` (the weights as trained), ``ema.safetensors`` (averaged
weights, if any), ``optim.safetensors`` (AdamW's moments), ``rng.json`` (generators of each rank),
``state.json`` (step, position in the data, best metric, loss scale, options ...). Tensors are whole
whether sharded or not, so that a run can be resumed on another number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vcell.errors import UserError
from vcell.runs.tensors import writing_tensors
from vcell.train import parallel, rng
from vcell.train.optim import Averaged

if TYPE_CHECKING:
    from vcell.train.task import Place

FORMAT = 1


@dataclass
class Learner:
    """The tensors that training changes."""

    model: nn.Module  # never a wrapper: names are the task's own
    optimizer: torch.optim.Optimizer
    averaged: Averaged | None = None


@dataclass
class Snapshot:
    """A checkpoint in the memory of rank 0; on other ranks the tensors are left out."""

    tensors: dict[str, dict[str, Tensor]]  # file stem -> name -> whole tensor on the CPU
    rng: list[str]
    state: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write the files of a checkpoint into an empty folder."""
        for stem, tensors in self.tensors.items():
            path = folder / f"{stem}.safetensors"
            with writing_tensors(path):
                save_file(tensors, path)
        (folder / "rng.json").write_text("[" + ",\n".join(self.rng) + "]\n")
        (folder / "state.json").write_text(json.dumps(self.state, indent=1) + "\n")


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, tied ones once under their first name."""
    names: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            names[name] = tensor
    return names


def snapshot(
    learner: Learner, state: Mapping[str, Any], device: torch.device, *, keep: bool
) -> Snapshot:
    """Gather a checkpoint; every process must call this, and those that write it pass `keep`."""
    files = {"model": named_tensors(learner.model)}
    files["optim"] = dict(_optimizer_tensors(learner))
    if learner.averaged is not None:
        files["ema"] = _averaged_tensors(learner)
    tensors: dict[str, dict[str, Tensor]] = {stem: {} for stem in files}
    for stem, named in files.items():
        for name, tensor in named.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if keep:
                tensors[stem][name] = whole.detach().cpu().contiguous()
    everyones_rng = parallel.gather_texts(rng.encode(rng.capture(device)))
    return Snapshot(tensors, everyones_rng, {"format": FORMAT, **state})


def restore(learner: Learner, folder: Path, place: Place) -> str:
    """Restore a checkpoint's tensors and generators; return a message if it lacks generators."""
    _fill(named_tensors(learner.model), load_file(folder / "model.safetensors"), folder)
    if learner.averaged is not None:
        ema = folder / "ema.safetensors"
        source = ema if ema.exists() else folder / "model.safetensors"
        _fill(_averaged_tensors(learner), load_file(source), folder)
    _restore_optimizer(learner, load_file(folder / "optim.safetensors"))
    everyones_rng = json.loads((folder / "rng.json").read_text())
    if place.rank >= len(everyones_rng):
        return f"rank {place.rank} is new to this run: its random numbers are newly seeded"
    whole = rng.restore(rng.decode(json.dumps(everyones_rng[place.rank])), place.device)
    if not whole:
        return "the checkpoint was written on a CPU: the random numbers of the GPU are newly seeded"
    return ""


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the weights to predict with, averaged ones if there are any, from a checkpoint."""
    ema = folder / "ema.safetensors"
    saved = load_file(folder / "model.safetensors")
    if ema.exists():
        saved |= load_file(ema)
    _fill(named_tensors(model), saved, folder)


def _averaged_tensors(learner: Learner) -> dict[str, Tensor]:
    """Return the averages by parameter name, with the current buffers."""
    assert learner.averaged is not None
    shadows = {
        id(parameter): shadow
        for parameter, shadow in zip(learner.averaged.source, learner.averaged.shadow, strict=True)
    }
    names = named_tensors(learner.model)
    return {name: shadows.get(id(tensor), tensor) for name, tensor in names.items()}


def _optimizer_tensors(learner: Learner) -> Iterable[tuple[str, Tensor]]:
    """Yield AdamW's state as ``exp_avg:encoder.weight`` and the like."""
    for name, parameter in learner.model.named_parameters():
        for key, value in learner.optimizer.state.get(parameter, {}).items():
            yield f"{key}:{name}", value


def _restore_optimizer(learner: Learner, saved: Mapping[str, Tensor]) -> None:
    parameters = dict(learner.model.named_parameters())
    state: dict[str, dict[str, Tensor]] = {}
    for key_and_name, tensor in saved.items():
        key, name = key_and_name.split(":", 1)
        like = parameters[name]
        whole = not isinstance(like, DTensor) or tensor.ndim == 0  # the step count
        state.setdefault(name, {})[key] = tensor if whole else _sharded(tensor, like)
    order = {id(parameter): name for name, parameter in parameters.items()}
    groups = learner.optimizer.param_groups
    names = [order[id(parameter)] for group in groups for parameter in group["params"]]
    packed = learner.optimizer.state_dict()
    packed["state"] = {i: state[name] for i, name in enumerate(names) if name in state}
    learner.optimizer.load_state_dict(packed)


def _sharded(whole: Tensor, like: Tensor) -> Tensor:
    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


@torch.no_grad()
def _fill(into: Mapping[str, Tensor], saved: Mapping[str, Tensor], folder: Path) -> None:
    """Copy saved tensors into a model's, which must be the same by name and shape."""
    for name in [*into, *saved]:
        ours = tuple(into[name].shape) if name in into else None
        theirs = tuple(saved[name].shape) if name in saved else None
        if ours != theirs:
            raise UserError(
                f"{folder.name}: the model changed: {name} has shape {theirs or 'none'} in the "
                f"checkpoint and {ours or 'none'} now",
                hint="resume with the model's settings as they were, or start a new run",
            )
    for name, tensor in into.items():
        whole = saved[name].to(tensor.dtype)
        tensor.copy_(_sharded(whole, tensor) if isinstance(tensor, DTensor) else whole)
