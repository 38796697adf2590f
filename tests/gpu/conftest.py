"""Tests that need a CUDA device: `make test-gpu`. docs/gpus.md says on which they have run."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """The first GPU, empty."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    torch.cuda.empty_cache()
    return torch.device("cuda", 0)
