"""A CUDA device without a GPU: fake tensors on a device that torch believes in.

    from tests import fake_cuda
    with fake_cuda.device() as folder: ...

Import it first in a process of its own: it loads `guard.cpp` before torch. Inside `device()` every
tensor is fake: it has a shape, a dtype and a device, and no values. Mixed devices, dtypes and
shapes that do not fit raise as on a GPU; what kernels do, and when, is not seen.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCE = Path(__file__).with_name("guard.cpp")
LIBRARY = "VCELL_FAKE_CUDA_LIBRARY"


def compiled(folder: Path) -> Path:
    """Compile the guard against the installed torch, once for a session of tests."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch = Path(spec.origin).parent
    target = folder / "libfakeguard.so"
    words = ["g++", "-O0", "-std=c++20", "-shared", "-fPIC", f"-I{torch}/include"]
    words += [f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", str(SOURCE), "-o", str(target)]
    subprocess.run([*words, "-lc10", "-ltorch_cpu"], check=True)
    return target


def load() -> None:
    """Have torch believe in a device; torch must not have been imported yet."""
    assert "torch" not in sys.modules
    faulthandler.dump_traceback_later(240, exit=True)  # a version of ShapeEnv hung
    library = os.environ.get(LIBRARY) or str(compiled(Path(tempfile.mkdtemp())))
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


@contextmanager
def device() -> Iterator[None]:
    """Make all tensors fake, `.to("cuda")` work on modules, and numbers read from tensors 1."""
    import numpy as np
    import torch
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensorMode

    from vcell.gpu import accelerator

    torch.cuda.amp.common.amp_definitely_not_available = lambda: False  # else autocast is off
    aten = torch.ops.aten

    class Mode(FakeTensorMode):
        """Fake tensors whose values, where somebody asks for one, are 1."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func is aten._local_scalar_dense.default:
                return {torch.bool: True}.get(args[0].dtype, 1 if _whole(args[0]) else 1.0)
            if func is aten._unique2.default:
                x = args[0]
                return x.new_empty(1), torch.zeros_like(x), x.new_empty(1)
            return super().__torch_dispatch__(func, types, args, kwargs or {})

    def _whole(x: Any) -> bool:
        return not (x.dtype.is_floating_point or x.dtype.is_complex)

    class FakeCuda(accelerator.Accelerator):
        kind, has_queue = "cuda", True
        name, bf16, capability = "a false H100", True, (9, 0)

        def random_state(self) -> Any:
            return torch.zeros(16, dtype=torch.uint8)

    class Queue:
        """A stream or an event, of which FSDP2 has several."""

        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: Any) -> None: ...
        def wait_stream(self, _: Any) -> None: ...
        def wait_event(self, _: Any) -> None: ...
        def synchronize(self) -> None: ...
        def record(self, *_: Any) -> None: ...
        def wait(self, *_: Any) -> None: ...
        def record_event(self, *_: Any) -> Queue:
            return self

    real_to = nn.Module.to

    def to(self: Any, *words: Any, **named: Any) -> Any:
        if not words or torch.device(words[0]).type != "cuda":
            return real_to(self, *words, **named)
        known: dict[int, Any] = {}

        def moved(x: Any) -> Any:
            if id(x) not in known:
                empty = torch.empty(x.shape, dtype=x.dtype, device="cuda")
                grad = x.requires_grad
                known[id(x)] = (
                    nn.Parameter(empty, requires_grad=grad)
                    if isinstance(x, nn.Parameter)
                    else empty
                )
            return known[id(x)]

        for module in self.modules():
            for held in (module._parameters, module._buffers):
                for name, x in held.items():
                    held[name] = None if x is None else moved(x)
        return self

    patches = [
        (accelerator.KINDS, "cuda", FakeCuda),
        (nn.Module, "to", to),
        (torch.cuda, "is_bf16_supported", lambda *_: True),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "Stream", Queue),
        (torch.cuda, "Event", Queue),
        (torch.cuda, "stream", Queue),
        (torch.cuda, "current_stream", Queue),
        (torch.Tensor, "tolist", lambda self: np.ones(tuple(self.shape)).tolist()),
        (torch.Tensor, "numpy", lambda self, **_: np.zeros(tuple(self.shape), np.float32)),
    ]
    before = []
    for owner, name, value in patches:
        if isinstance(owner, dict):
            before.append((owner, name, owner[name]))
            owner[name] = value
        else:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
    try:
        with Mode(allow_non_fake_inputs=True):
            yield
    finally:
        for owner, name, value in before:
            if isinstance(owner, dict):
                owner[name] = value
            else:
                setattr(owner, name, value)


def flash_attn() -> ModuleType:
    """A module in the place of flash-attn, which does nothing but shapes."""
    import torch

    def dense(q: Any, k: Any, v: Any, *, deterministic: bool = False) -> Any:
        assert q.dtype in (torch.float16, torch.bfloat16), q.dtype
        assert q.device.type == "cuda"
        assert deterministic is torch.are_deterministic_algorithms_enabled()
        return torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v))
        ).transpose(1, 2)

    module = ModuleType("flash_attn")
    module.flash_attn_func = module.flash_attn_varlen_func = dense  # type: ignore[attr-defined]
    module.__spec__ = importlib.util.spec_from_loader("flash_attn", None)
    return module
