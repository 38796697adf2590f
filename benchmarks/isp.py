"""All measurements in docs/isp.md, in one process, in CPU seconds.

Run: python benchmarks/isp.py [--only encoder,delete,...]
The encoder row needs transformers, from a separate environment if necessary:
PYTHONPATH=.:plugins PEERS/bin/python benchmarks/isp.py --only encoder

vcell and the peers alternate, on one thread unless stated; the best of the repeats counts. A busy
machine inflates the CPU seconds of both, so read the ratios.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from vcell.geneformer import checkpoint, perturbation
from vcell.geneformer.reference import PaddedReference
from vcell.geneformer.shifts import ShiftEngine
from vcell.metrics.rankings import overlap, spearman
from vcell.nn.bert import Lengths

MODEL = "synthetic:gf-6L-10M-i2048"
TURNS = 4
#: Lengths of 8 cells. The longer they are, the smaller the share of the peer's head.
MIXES = {
    "short": [96, 180, 260, 340, 420, 520, 640, 800],
    "mixed": [352, 1630, 520, 911, 777, 1204, 640, 966],
    "long": [1200, 1400, 1600, 1700, 1800, 1900, 2048, 2048],
}


def cpu(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the least CPU seconds of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def cell_of(length: int, seed: int = 0) -> np.ndarray:
    """Return a cell of random genes."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.arange(2, 25_426), length, replace=False).astype(np.int32)


def encoder() -> None:
    """Mixes of lengths on one thread, against padded batches of 8 and against single cells.

    Cells are timed one by one, alternating with the peer's, and the best time of each cell counts:
    disturbances of a busy machine are shorter than the whole mix. The padded batch is timed at
    once.
    """
    torch.set_num_threads(1)
    model = checkpoint.load(MODEL)
    reference = PaddedReference(model.bert)
    print(f"encoder, 8 cells, one thread; peer: {reference.name}")
    for name, lengths in MIXES.items():
        cells = [torch.from_numpy(cell_of(n, i).astype(np.int64)) for i, n in enumerate(lengths)]
        best = {"one": np.full(8, np.inf), "all layers": np.full(8, np.inf),
                "second to last": np.full(8, np.inf), "eight": np.full(1, np.inf)}  # fmt: skip
        with torch.inference_mode():
            for turn in range(TURNS):
                for i, cell in enumerate(cells):
                    shape = Lengths((len(cell),))
                    for way, work in {
                        "one": lambda c=cell: reference.hidden([c], 6),
                        "all layers": lambda c=cell, s=shape: model.bert.encode(c, s, 6),
                        "second to last": lambda c=cell, s=shape: model.bert.encode(c, s, 5),
                    }.items():
                        best[way][i] = min(best[way][i], cpu(work, 1))
                if turn < 2:
                    best["eight"][0] = min(
                        best["eight"][0], cpu(lambda c=cells: reference.hidden(c, 6), 1)
                    )
            whole = model.bert.encode(torch.cat(cells), Lengths.of(lengths), 6)
            gap = (torch.cat(reference.hidden(cells, 6)) - whole).abs().max()
        spent = {way: float(each.sum()) for way, each in best.items()}
        work = sum(model.shape.flops(n) for n in lengths) / 1e9
        print(f"  {name}, {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all")
        for ours in ("all layers", "second to last"):
            print(
                f"    {ours:<15} {spent[ours]:.3f} s: {spent['eight'] / spent[ours]:.1f} times "
                f"padded 8 ({spent['eight']:.2f} s), {spent['one'] / spent[ours]:.2f} times single "
                f"({spent['one']:.2f} s)"
            )
        print(f"    {work / spent['all layers']:.0f} GFLOP/s; largest difference {float(gap):.1e}")


def delete() -> None:
    """Delete every gene, V1 shape, second-to-last layer: cells per two CPU seconds."""
    torch.set_num_threads(1)
    model = checkpoint.load(MODEL)
    states = {"goal": np.random.default_rng(0).normal(size=256)}
    for length, n in ((512, 64), (2048, 16)):
        cell = cell_of(length)
        for shared in (True, False):
            engine = ShiftEngine(model, 5, "mean", states, shared=shared)
            places = np.arange(length // 3, length // 3 + n)
            copies = perturbation.single("delete", length, places, engine.frame)
            spent = cpu(lambda e=engine, c=cell, k=copies, m=length: e.shifts(c, m, k), 2)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            how = "first layer shared" if shared else "nothing shared"
            print(
                f"delete, {length} tokens, {how}: {2 * n / spent:.1f} perturbed cells per two CPU "
                f"seconds; memory {peak:.2f} GiB"
            )


def tokeniser() -> None:
    """Rank value encoding of 58,000 columns with 2,500 genes a cell, one thread."""
    from vcell.data import Block
    from vcell.geneformer import tokens, vocabulary

    rng = np.random.default_rng(4)
    for version in ("V1", "V2"):
        known = vocabulary.shipped(version)
        n_cells, n_genes = 2000, 58_000
        first = known.n_special + 2
        token_of = np.full(n_genes, -1, np.int32)
        places = rng.choice(n_genes, len(known) - first, replace=False)
        token_of[places] = np.arange(first, len(known))
        columns = [np.sort(rng.choice(n_genes, 2500, replace=False)) for _ in range(n_cells)]
        block = Block(
            0, np.arange(n_cells), np.arange(n_cells + 1) * 2500,
            np.concatenate(columns).astype(np.int32),
            rng.geometric(0.4, n_cells * 2500).astype(np.float32), n_genes,
        )  # fmt: skip
        spent = cpu(lambda b=block, t=token_of, k=known: tokens.encode_block(b, t, k, 2048), 4)
        print(f"tokeniser, {version}: {n_cells / spent:,.0f} cells per CPU second")


def statistics() -> None:
    """goal_state_shift of 11,000 genes x 1,500 cells."""
    import pandas as pd
    from vcell_isp import tables

    n_genes, n_cells = 11_000, 1_500
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "gene": np.tile(np.arange(n_genes), n_cells),
            "cell": np.repeat(np.arange(n_cells), n_genes),
            "symbol": "", "ensembl_id": "",
            "shift_goal": rng.normal(size=n_genes * n_cells),
        }
    )  # fmt: skip
    started = time.process_time()
    data = tables.GeneValues.of(frame, ["shift_goal"])
    tables.goal_state_shift(data, "goal", ())
    print(f"statistics, 11,000 genes x 1,500 cells: {time.process_time() - started:.1f} CPU s")


def precision() -> None:
    """Shifts of deletions in emulated half precision, against float32, 512 tokens."""
    torch.set_num_threads(1)
    model = checkpoint.load(MODEL)
    cell, length = cell_of(512), 512
    states = {"goal": np.random.default_rng(0).normal(size=256)}
    found = {}
    for name in ("fp32", "fp16", "bf16"):
        model.bert.set_precision(name)
        engine = ShiftEngine(model, 5, "mean", states)
        copies = perturbation.single("delete", length, np.arange(0, 512, 4), engine.frame)
        found[name] = engine.shifts(cell, length, copies).to_state["goal"]
    exact = found["fp32"]
    for name in ("fp16", "bf16"):
        floor = np.abs(found[name] - exact).max()
        flips = (np.sign(found[name]) != np.sign(exact)) & (np.abs(exact) > 3 * floor)
        print(
            f"precision {name}: Spearman {spearman(found[name], exact):.4f}, shared top 20 "
            f"{overlap(found[name], exact, 20)}, flips above three floors {int(flips.sum())}, "
            f"floor {floor:.1e}, median size {np.median(np.abs(exact)):.1e}"
        )


def screening() -> None:
    """First-order screen of all deletions of a cell with 512 tokens."""
    from torch.utils.flop_counter import FlopCounterMode
    from vcell_isp.firstorder import estimate

    torch.set_num_threads(1)
    length = 512
    for smooth in (True, False):
        model = checkpoint.load(MODEL)
        checkpoint.made_up(model.bert, 0, smooth=smooth)
        rng = np.random.default_rng(0)
        engine = ShiftEngine(model, 5, "mean", {"goal": rng.normal(size=256)})
        cell = cell_of(length)
        places = np.arange(0, length, 2)
        copies = perturbation.single("delete", length, places, engine.frame)
        with FlopCounterMode(display=False) as counter:
            guess = estimate(engine, cell)[places]
        ratio = length * model.shape.flops(length - 1, 5) / counter.get_total_flops()
        exact = engine.shifts(cell, length, copies).to_state["goal"]
        tenth, fifth = len(places) // 10, len(places) // 5
        best = set(np.argsort(-np.abs(exact))[:tenth].tolist())
        kept = set(np.argsort(-np.abs(guess))[:fifth].tolist())
        print(
            f"screening, {'smooth' if smooth else 'random'} positions: {ratio:.0f} times fewer "
            f"FLOPs, Spearman {spearman(guess, exact):.3f}, recall of the top tenth "
            f"{len(best & kept) / tenth:.2f}"
        )


PARTS = {
    part.__name__: part for part in (encoder, delete, tokeniser, statistics, precision, screening)
}


def main() -> None:
    """Run the selected measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(PARTS))
    for name in parser.parse_args().only.split(","):
        PARTS[name]()


if __name__ == "__main__":
    main()
