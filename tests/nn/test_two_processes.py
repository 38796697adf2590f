"""The encoder under DDP and FSDP2, with recomputed activations: two processes are one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.nn import two
from tests.support import PATIENCE
from vcell.runs import Run


@pytest.mark.dist
def test_two_processes_equal_one(tmp_path: Path) -> None:
    runs = {name: Run.create(tmp_path / name, "train-toy") for name in ("ddp", "fsdp", "alone")}
    words = [word for name in ("ddp", "fsdp") for word in (str(runs[name].path), name)]
    subprocess.run(
        [sys.executable, "-W", "error", two.__file__, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        check=True,
        timeout=PATIENCE,
    )
    two.train(runs["alone"], "ddp")
    weights = {}
    for name, run in runs.items():
        files = sorted(run.checkpoint().path.glob("*.safetensors"))
        weights[name] = {f"{f.stem}:{key}": t for f in files for key, t in load_file(f).items()}
    assert len(weights["alone"]) > 10
    for name in ("ddp", "fsdp"):
        assert weights[name].keys() == weights["alone"].keys()
        for key, tensor in weights["alone"].items():
            assert torch.allclose(weights[name][key], tensor, atol=1e-5), (name, key)
