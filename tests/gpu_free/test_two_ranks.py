"""Two processes are one for every setting that changes which parameters take part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.gpu_free import two_ranks
from tests.support import PATIENCE
from vcell.train.task import Place


@pytest.mark.dist
def test_two_ranks_are_one_whatever_takes_part(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, two_ranks.__file__, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        check=False,
        timeout=PATIENCE,
    )
    said = "".join(path.read_text() for path in sorted(tmp_path.glob("stderr-*")))
    assert done.returncode == 0, said
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, (name, wanted) in enumerate(two_ranks.settings().items()):
            alone, told = two_ranks.train(Place(), wanted | {"parallel": "ddp"})
            both = load_file(tmp_path / f"{number}.safetensors")
            assert told == []
            assert both.keys() == alone.keys()
            assert torch.allclose(both["losses"], alone["losses"], rtol=1e-3), name
            apart = torch.cat(
                [(both[k] - alone[k]).abs().flatten() for k in alone if k != "losses"]
            )
            # AdamW makes whole steps of gradients that are zero but for rounding
            assert (apart > 1e-4).double().mean() < 1e-3, name
    finally:
        torch.set_num_threads(threads)
