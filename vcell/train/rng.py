"""The state of every random generator a process uses, as JSON: python, numpy, torch, CUDA."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import numpy as np
import torch

from vcell.gpu.accelerator import accelerator


def seed_all(seed: int) -> None:
    """Seed every generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(device: torch.device) -> dict[str, Any]:
    """Return the state of all generators used on a device; cheap enough for each step."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
    state["torch"] = torch.get_rng_state()
    own = accelerator(device).random_state()
    if own is not None:
        state["cuda"] = own
    return state


def restore(state: dict[str, Any], device: torch.device) -> bool:
    """Set all generators to a captured state; return whether the state had one for the device."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    it = accelerator(device)
    if "cuda" not in state:
        return it.random_state() is None
    it.set_random_state(state["cuda"])
    return True


def encode(state: dict[str, Any]) -> str:
    """Write a captured state as JSON."""
    numpy = dict(state["numpy"])
    numpy["state"] = {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]}
    plain = {"python": state["python"], "numpy": numpy}
    for name in ("torch", "cuda"):
        if name in state:
            plain[name] = base64.b64encode(state[name].numpy().tobytes()).decode()
    return json.dumps(plain)


def decode(text: str) -> dict[str, Any]:
    """Read what `encode` wrote."""
    plain = json.loads(text)
    version, internal, gauss = plain["python"]
    state: dict[str, Any] = {"python": (version, tuple(internal), gauss)}
    state["numpy"] = plain["numpy"]
    state["numpy"]["state"]["key"] = np.array(plain["numpy"]["state"]["key"], np.uint32)
    for name in ("torch", "cuda"):
        if name in plain:
            data = bytearray(base64.b64decode(plain[name]))
            state[name] = torch.frombuffer(data, dtype=torch.uint8)
    return state


def mixed(*numbers: int) -> int:
    """Hash several numbers into one seed; similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
