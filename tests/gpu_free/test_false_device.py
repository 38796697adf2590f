"""Every network, attention, precision and loss on a CUDA device that is not there.

Each part in a process of its own (`tests/fake_cuda/steps.py`): shapes, dtypes and devices of build,
forward, backward, fused AdamW, averaged weights, validation, checkpoint and resuming.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import fake_cuda

pytestmark = pytest.mark.skipif(
    torch.version.cuda is not None, reason="this torch is built for CUDA: pytest -m gpu tests more"
)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cuda.compiled(tmp_path_factory.mktemp("guard"))


def run(library: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {fake_cuda.LIBRARY: str(library), "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize(
    ("parts", "settings"),
    [(("networks", "precisions", "losses"), 26 + 16 + 26), (("fsdp",), 8)],
)
def test_the_networks_train_on_a_gpu_as_far_as_can_be_seen(
    library: Path, parts: tuple[str, ...], settings: int
) -> None:
    told = run(library, "-m", "tests.fake_cuda.steps", *parts)
    assert told.splitlines()[-1] == str(settings)


MIXED = """
from tests import fake_cuda
fake_cuda.load()
import torch
with fake_cuda.device():
    on_gpu = torch.ones(3, device="cuda")
    try:
        on_gpu + torch.ones(3)
    except RuntimeError as error:
        print("mixed devices:", "cuda" in str(error) and "cpu" in str(error))
    layer = torch.nn.Linear(3, 3).to("cuda")
    try:
        layer(torch.ones(3))
    except RuntimeError:
        print("mixed in a layer: True")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        print(layer(on_gpu).dtype)
"""


def test_the_false_device_does_see_what_is_wrong(library: Path) -> None:
    assert run(library, "-c", MIXED).splitlines() == [
        "mixed devices: True",
        "mixed in a layer: True",
        "torch.bfloat16",
    ]
