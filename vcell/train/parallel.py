"""Several processes as one: joining, sharing the model, agreeing, gathering.

Collectives on the CPU use gloo even if the model is on GPUs, so that agreeing on a count or a
request never waits for the GPU.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vcell.errors import UserError
from vcell.train.task import Place

#: Longest wait for other processes, which may still validate, write or compile.
_PATIENCE = timedelta(minutes=30)
_BUCKET = 1 << 24  # elements all-reduced at once


@contextmanager
def joined(device: str = "auto") -> Iterator[Place]:
    """Join the process group that the launcher described in the environment; leave it at the end.

    Parameters
    ----------
    device
        ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available() if device == "auto" else device == "cuda"
    where = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
    if gpu:
        _take(where)
    starts = world > 1 and not dist.is_initialized()
    if starts:
        dist.init_process_group(**group_settings(where))
    yield Place(int(os.environ.get("RANK", "0")), world, where)
    # Only after a good end. After an exception, leaving could wait for peers, on NCCL until the
    # timeout; the process must instead report its error and end.
    if starts:
        dist.destroy_process_group()


def group_settings(device: torch.device) -> dict[str, Any]:
    """Return the arguments of `torch.distributed.init_process_group` for a device."""
    if device.type != "cuda":
        return {"backend": "gloo", "timeout": _PATIENCE}
    # naming the device connects NCCL at once, so errors appear here, and only on that device
    return {"backend": "cpu:gloo,cuda:nccl", "timeout": _PATIENCE, "device_id": device}


def _take(device: torch.device) -> None:
    """Initialise a GPU, or raise an error that says why it cannot be used."""
    try:
        torch.cuda.set_device(device)
    except (RuntimeError, AssertionError, AttributeError) as error:  # the last: a build for CPUs
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"GPU {device.index} cannot be used: {reason}",
            hint="vcell doctor says more; --device cpu does without",
        ) from None


def agree(values: Sequence[int]) -> list[int]:
    """Return the sums of `values` over all processes."""
    if not _many():
        return list(values)
    sums = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(sums)
    return [int(value) for value in sums]


def gather_texts(text: str) -> list[str]:
    """Return every process's text in order of rank, on every process."""
    if not _many():
        return [text]
    own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(own)]))
    longest = max(int(length) for length in lengths)
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(own)] = own
    parts = [torch.zeros_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [bytes(p[: int(n)].tolist()).decode() for p, n in zip(parts, lengths, strict=True)]


def blocks(model: nn.Module) -> list[nn.Module]:
    """List the repeated blocks: the members of the outermost `nn.ModuleList`s."""
    found: list[nn.Module] = []
    for child in model.children():
        found.extend(child if isinstance(child, nn.ModuleList) else blocks(child))
    return found


def shared(model: nn.Module, strategy: Literal["ddp", "fsdp"], place: Place) -> nn.Module:
    """Return this process's model: unwrapped if it is alone, a DDP replica, or an FSDP2 shard."""
    if place.world_size == 1:
        return model
    if strategy == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(place.device.type, (place.world_size,))
        for block in blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    devices = [place.device.index] if place.device.type == "cuda" else None
    # Buffers are not broadcast in each forward: a piece repeated after running out of memory
    # must not wait for the other processes. torch 2.13 renamed the switch.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    switch = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in known)
    keywords: dict[str, Any] = {switch: False}
    return DistributedDataParallel(model, device_ids=devices, **keywords)


def forget_gathered(model: nn.Module) -> None:
    """Make fsdp gather its weights again: it keeps the root's after a forward pass alone.

    Without this, the averaged weights of a validation would serve the next training step.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def without_sync(model: nn.Module, *, silent: bool) -> AbstractContextManager[None]:
    """Return the context of a backward pass; `silent` keeps DDP from communicating in it."""
    if silent and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


@torch.no_grad()
def average_gradients(model: nn.Module) -> list[str]:
    """Average gradients over processes in a few large messages, as DDP does itself if not silent.

    Returns
    -------
    list of str
        The parameters without a gradient on some process, for which DDP would wait forever.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    took_part = agree([p.grad is not None for _, p in trained])
    for (_, parameter), times in zip(trained, took_part, strict=True):
        if times and parameter.grad is None:  # another process has a gradient
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for _, p in trained if p.grad is not None]
    start = 0
    while start < len(gradients):
        stop, size = start, 0
        while stop < len(gradients) and (size == 0 or size + gradients[stop].numel() <= _BUCKET):
            size += gradients[stop].numel()
            stop += 1
        group = gradients[start:stop]
        flat = torch.cat([gradient.flatten() for gradient in group])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(
            group, torch.split(flat, [g.numel() for g in group]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))
        start = stop
    everywhere = dist.get_world_size()
    return [name for (name, _), n in zip(trained, took_part, strict=True) if n < everywhere]


def summed(values: Tensor) -> Tensor:
    """Add up a tensor over all processes, on its own device."""
    if _many():
        dist.all_reduce(values)
    return values


def _many() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1
