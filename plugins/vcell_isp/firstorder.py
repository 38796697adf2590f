"""First-order screening: all deletions of a cell from one forward and one backward pass.

Deleting gene i removes its key from every query and its token from the mean, and moves all tokens
behind it up by one position. To first order the shift towards a state s changes by ::

    est_i = - ds/db_i + sum over j > i of < ds/dx_j, x(token_j, j - 1) - x(token_j, j) >

with b_i added to the logarithm of key i's weight in every layer (and of the token's weight in the
mean) and x_j the input of the first layer at j. The estimate is good only if position embeddings
are smooth, so every screen is checked: the genes with the largest estimates and a random sample are
computed exactly. If too many of the sample's top genes are missed, everything is computed exactly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F

from vcell import console
from vcell.metrics.rankings import spearman
from vcell_isp import shards

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vcell.geneformer.shifts import ShiftEngine
    from vcell.runs import Run
    from vcell_isp import IspRun
    from vcell_isp.design import IspDesign

ESTIMATES = "estimates.npz"
RECALL = 0.95  # of the exact top tenth in the estimated top fifth; below it, compute all


def estimate(engine: ShiftEngine, tokens: NDArray[np.int32], state: int = 0) -> NDArray[np.float64]:
    """Estimate the shift towards a state for the deletion of each gene, in order of rank."""
    bert, frame = engine.bert, engine.frame
    given = torch.from_numpy(tokens.astype(np.int64)).to(engine.device)
    length = len(given)
    place = torch.arange(length, device=engine.device)
    with torch.enable_grad():
        x0 = bert.embed(given, place).detach().requires_grad_()
        bias = torch.zeros(length, device=engine.device, requires_grad=True)
        x = x0
        for number in range(engine.n_layers):
            x = torch.utils.checkpoint.checkpoint(
                _biased_layer, engine, number, x, bias, use_reentrant=False
            )
        genes = slice(frame.first, length - frame.last)
        if engine.readout == "cls":
            pooled = x[0]
        else:
            weights = bias[genes].exp()
            pooled = (weights[:, None] * x[genes]).sum(0) / weights.sum()
        shift = F.normalize(pooled.double(), dim=0) @ engine.states[state]
        on_bias, on_x = torch.autograd.grad(shift, (bias, x0))
    with torch.no_grad():
        before = bert.embed(given, (place - 1).clamp(min=0))
        moved = ((before - x0) * on_x).sum(1).double()
        behind = moved.flip(0).cumsum(0).flip(0) - moved  # sum over the tokens after each one
        out: NDArray[np.float64] = (behind - on_bias.double())[genes].cpu().numpy()
    return out


def _biased_layer(engine: ShiftEngine, number: int, x: Tensor, bias: Tensor) -> Tensor:
    """Run one layer on one cell, with `bias` added to the attention scores of the keys."""
    bert, block = engine.bert, engine.bert.block(number)
    q, k, v = bert.heads(block, x).permute(1, 2, 0, 3).float().unbind(0)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(x.shape)
    attended = block.norm_attention(x + bert.linear(block.out, mixed).float())
    inner = F.relu(bert.linear(block.up, attended))
    out: Tensor = block.norm_output(attended + bert.linear(block.down, inner).float())
    return out


def stages(
    run: Run, config: IspRun, design: IspDesign, engine: ShiftEngine, *, leads: bool
) -> Iterator[tuple[str, IspDesign]]:
    """Yield the genes to compute exactly, then all others if the sample shows that it is needed."""
    path = run.path / ESTIMATES
    if not path.is_file() and leads:
        _estimate_all(run, design, engine)
    while not path.is_file():
        time.sleep(0.2)
    with np.load(path, allow_pickle=False) as arrays:
        genes, means = arrays["genes"], arrays["means"]
    top, sample = _chosen(genes, means, config)
    chosen = np.union1d(top, sample)
    yield "", replace(design, genes=replace(design.genes, chosen=tuple(chosen.tolist())))
    found = _recall(run, genes, means, sample, engine.names[0])
    if leads:
        run.save_file("screen.json", json.dumps(found, indent=1) + "\n")
        console.say(_words(found, len(chosen), len(genes)))
    if found["recall"] < RECALL:
        if leads:
            console.warn(
                f"the first-order screen misses too much (recall {found['recall']:.2f}, "
                f"{RECALL} is needed): all genes are computed exactly"
            )
        others = np.setdiff1d(genes, chosen)
        yield "-rest", replace(design, genes=replace(design.genes, chosen=tuple(others.tolist())))


def _estimate_all(run: Run, design: IspDesign, engine: ShiftEngine) -> None:
    """Estimate every deletion in every cell, and save the mean of each gene."""
    n = int(design.cells.tokens.max(initial=0)) + 1
    sums, seen = np.zeros(n), np.zeros(n, np.int64)
    with console.progress("screening", len(design.order)) as bar:
        for cell in design.order:
            tokens = design.cells[int(cell)]
            own = tokens[design.frame.first : len(tokens) - design.frame.last]
            sums[own] += estimate(engine, tokens)
            seen[own] += 1
            bar.advance()
    genes = np.flatnonzero(seen)
    means = sums[genes] / seen[genes]

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, genes=genes, means=means, cells=seen[genes])

    run.save_file(ESTIMATES, write)


def _chosen(
    genes: NDArray[np.int64], means: NDArray[np.float64], config: IspRun
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the genes with the largest estimates, and a random sample of all."""
    top = genes[np.argsort(-np.abs(means), kind="stable")[: config.exact_top]]
    rng = np.random.default_rng(config.seed)
    n = min(config.exact_random, len(genes))
    return top, np.sort(rng.choice(genes, n, replace=False))


def _recall(
    run: Run,
    genes: NDArray[np.int64],
    means: NDArray[np.float64],
    sample: NDArray[np.int64],
    goal: str,
) -> dict[str, Any]:
    """Compare estimates with exact shifts on the random sample, as the top genes are not random."""
    columns = ["gene", f"shift_{goal}"]
    files = sorted((run.path / shards.FOLDER).glob("*.parquet"))
    lines = pa.concat_tables([pq.read_table(file, columns=columns) for file in files]).to_pandas()
    exact = lines.groupby("gene")[f"shift_{goal}"].mean()
    sample = sample[np.isin(sample, exact.index)]
    true = exact.loc[sample].to_numpy(np.float64)
    guess = means[np.searchsorted(genes, sample)]
    tenth, fifth = max(1, round(len(sample) / 10)), max(1, round(len(sample) / 5))
    best = set(np.argsort(-np.abs(true), kind="stable")[:tenth].tolist())
    top = set(np.argsort(-np.abs(guess), kind="stable")[:fifth].tolist())
    slope = float((guess @ true) / max(float(guess @ guess), 1e-300))
    return {
        "sample": len(sample), "recall": len(best & top) / tenth,
        "spearman": spearman(guess, true), "slope": slope,
    }  # fmt: skip


def _words(found: dict[str, Any], n: int, of: int) -> str:
    rho = "–" if found["spearman"] is None else f"{found['spearman']:.3f}"
    return (
        f"first-order screen: {n:,} of {of:,} genes computed exactly; in a random sample of "
        f"{found['sample']:,} the estimated top fifth holds {found['recall']:.0%} of the exact top "
        f"tenth (Spearman {rho}, slope {found['slope']:.2f})"
    )
