"""The Triton kernels: values by Triton's interpreter, and that they compile for real cards.

There is no GPU here. Values are checked on CPU tensors in a process with TRITON_INTERPRET=1;
the code for sm_80, sm_90 and sm_100 is made ahead of time, and what it needs is read from it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, clean_environment

triton = pytest.importorskip("triton", reason="Triton is for Linux on x86-64")

INTERPRETED = """
import sys
import numpy as np
import torch
from scipy import sparse
from tests.kernels import count_reference
from tests.nn.compressed_rows import draw_counts, rows_of
from vcell.nn.likelihood_types import Work
from vcell.nn.triton_likelihoods import on_cuda

seed, dtype = int(sys.argv[1]), getattr(torch, sys.argv[2])
rng = np.random.default_rng(seed)
counts = draw_counts(seed, cells=37, genes=1500)
counts[7, :40] = 32 + np.arange(40)
whole = rows_of(counts)
rows, counts = whole[3:], counts[3:]          # rows that do not begin at zero
logits = torch.from_numpy(rng.normal(0, 1.5, counts.shape)).to(dtype)
pi = torch.from_numpy(rng.uniform(-30, 30, counts.shape)).to(dtype)
theta = np.exp(rng.uniform(np.log(1e-6), np.log(1e6), counts.shape[1])).astype(np.float32)
full = counts.sum(1) > 0
x, library = counts[full].astype(float), counts[full].sum(1).astype(float)
l, p, t = logits.double().numpy()[full], pi.double().numpy()[full], theta.astype(float)
tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # bf16: the interpreter cuts digits off
sizes = count_reference.sizes(l, x, library, t)


def near(found, exact, size=0.0, limit=tolerance):
    assert np.isfinite(found).all()
    worst = (np.abs(found - exact) / np.maximum(np.maximum(np.abs(exact), size), 1e-30)).max()
    assert worst < limit, worst


for kind in ("nb", "zinb"):
    grad, grad_pi = logits.clone(), pi.clone() if kind == "zinb" else None
    work = Work(kind, rows, torch.from_numpy(theta), torch.ones(len(rows)))
    found = on_cuda(work, grad, grad_pi)
    assert not found.loss[~torch.from_numpy(full)].any()
    assert not grad[~torch.from_numpy(full)].any()
    if kind == "nb":
        loss, by_logits, by_theta = count_reference.negative_binomial(l, x, library, t)
    else:
        loss, by_logits, by_pi, by_theta = count_reference.zero_inflated(l, p, x, library, t)
        near(grad_pi.double().numpy()[full], by_pi, 1e-12)
    near(found.loss.numpy()[full], loss, limit=1e-5)
    near(grad.double().numpy()[full], by_logits, sizes)
    parts = [
        np.abs(count_reference.negative_binomial(l[i:i+1], x[i:i+1], library[i:i+1], t)[2])
        for i in range(len(x))
    ]
    near(found.by_theta.numpy(), by_theta, np.sum(parts, 0), limit=1e-5)
"""


@pytest.mark.parametrize(
    ("seed", "dtype"),
    [
        (0, "float32"),
        pytest.param(1, "float32", marks=pytest.mark.slow),
        pytest.param(2, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_interpreted_values_equal_float64(seed, dtype, repository):
    environment = clean_environment() | {
        "TRITON_INTERPRET": "1", "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(seed), dtype],
        env=environment, cwd=repository, capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


_CSR = {"begin_i64": "*i64", "indices_i32": "*i32", "counts": "*fp32"}


def _signature(function, constants):
    kinds = {"n_genes": "i32", "n_rows": "i32", "first": "i32"} | _CSR
    half = {"logits", "pi", "grad", "grad_pi"}
    return {
        name: "constexpr" if name in constants
        else kinds.get(name, "*bf16" if name in half else "*fp32")
        for name in function.arg_names
    }  # fmt: skip


@pytest.mark.parametrize(
    ("capability", "zero"),
    [
        (90, True),
        *(
            pytest.param(capability, zero, marks=pytest.mark.slow)
            for capability, zero in [
                (80, True),
                (100, True),
                (80, False),
                (90, False),
                (100, False),
            ]
        ),
    ],
)
def test_kernels_compile_without_spilling(capability, zero, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vcell.nn import triton_kernels, triton_likelihoods

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    dump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    sizes = {"BLOCK": triton_likelihoods.BLOCK}
    counts = {"BLOCK": triton_likelihoods.COUNTS}
    for name, constants in {
        "row_sums": sizes,
        "at_counts": counts | {"TABLE": triton_likelihoods.TABLE, "ZERO": zero},
        "dense_sums": sizes | {"ZERO": zero, "ROWS": triton_likelihoods.ROWS},
        "gradients": sizes | {"ZERO": zero},
        "scatter": counts | {"ZERO": zero},
    }.items():
        function = getattr(triton_kernels, name)
        source = ASTSource(fn=function, signature=_signature(function, constants),
                           constexprs=constants)  # fmt: skip
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32),
                              options={"num_warps": 4})  # fmt: skip
        cubin = tmp_path / f"{name}.cubin"
        cubin.write_bytes(made.asm["cubin"])
        usage = subprocess.run(
            [dump, "-res-usage", cubin], capture_output=True, text=True, check=True,
            env=dict(os.environ),
        ).stdout  # fmt: skip
        registers, stack = (int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK"))
        assert stack <= 64, (name, usage)
        assert registers <= 224, (name, usage)
