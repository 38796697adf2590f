"""The graph loss and the wild-type head, against naive versions of both.

    python benchmarks/graph_net.py head          # a minute on one core
    python benchmarks/graph_net.py loss --heads 3   # dense needs about 1.2 GB a head
    python benchmarks/graph_net.py loss          # nine heads, nine graphs: 11 GB for the dense form
    python benchmarks/graph_net.py planted --to FOLDER [--null]   # a table and its graphs
    python benchmarks/graph_net.py ceiling       # the best possible r on the planted table
    python benchmarks/graph_net.py sets --sets 90000 --genes 700   # the process on many sets
    python benchmarks/graph_net.py step          # a training step of both networks, B = 4,096

Seconds are CPU time (user + system) of a separate process on one thread. Peak memory is what the
process adds to its memory before. Both versions alternate in the same call.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np

N, EDGES = 6_607, 2_495_908  # genes, and edges of all nine relations


def peak() -> int:
    """Return the peak of this process's memory in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def cpu() -> float:
    """Return CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def graph(seed: int, edges: int):
    """Return the CSR arrays of a random graph with hubs."""
    rng = np.random.default_rng(seed)
    chance = rng.lognormal(0, 0.75, N)
    chance /= chance.sum()
    pairs = np.unique(rng.choice(N, (2, edges), p=chance), axis=1)
    order = np.lexsort(pairs[::-1])
    pairs = pairs[:, order]
    return np.searchsorted(pairs[0], np.arange(N + 1)), pairs[1]


# --- in the child -----------------------------------------------------------------------------


def loss(form: str, heads: int) -> dict[str, float]:
    """One layer's attention and the graph loss, forward and backward."""
    import torch

    from vcell.nn.graph_loss import GraphLoss, RowGraph, attend_apart

    torch.manual_seed(0)
    width, genes = 20, slice(1, N + 1)
    q, k, v = (torch.randn(1, heads, N + 1, width, requires_grad=True) for _ in range(3))
    made = [graph(i, EDGES // 9) for i in range(heads)]
    if form == "dense":
        wanted = torch.zeros(heads, N, N)
        for h, (indptr, indices) in enumerate(made):
            row = np.repeat(np.arange(N), np.diff(indptr))
            wanted[h, row, indices] = torch.from_numpy(1 / np.diff(indptr)[row]).float()
        rows = wanted.sum(-1) > 0
    else:
        ours = GraphLoss({str(h): RowGraph.of(*one) for h, one in enumerate(made)}, 1.0)
    few = torch.randn(1, 1, 9, width, requires_grad=True)  # loads libraries before measuring
    small, lse = attend_apart(few, few, few, slice(1, 9))
    one = GraphLoss({"g": RowGraph.of(range(9), [0] * 8)}, 1.0)
    (one(few[:, :, 1:], few[:, :, 1:], lse[:, :, 1:]).total + small.sum()).backward()
    held, begun = peak(), cpu()
    if form == "dense":  # as in torchcell: every weight of every head, then the logarithms
        weight = torch.softmax(q @ k.transpose(-2, -1) / width**0.5, -1)
        out = weight @ v
        part = weight[0, :, genes, genes]
        part = part / part.sum(-1, keepdim=True)
        each = torch.nn.functional.kl_div((part + 1e-12).log(), wanted, reduction="none").sum(-1)
        total = ((each * rows).sum(-1) / rows.sum(-1)).sum()
    else:
        out, lse = attend_apart(q, k, v, genes)
        total = ours(q[:, :, genes], k[:, :, genes], lse[:, :, genes]).total
    (out.square().mean() + total).backward()
    return {
        "cpu_s": cpu() - begun, "bytes": peak() - held, "loss": total.item(),
        "grad": float(q.grad.square().sum().sqrt()),
    }  # fmt: skip


def head(form: str, batch: int) -> dict[str, float]:
    """Run the perturbation head, forward and backward, d = 180."""
    import torch

    from vcell.nn.wildtype import PerturbationHead

    torch.manual_seed(0)
    width = 180
    module = PerturbationHead(width)
    states = torch.randn(N, width, requires_grad=True)
    genes = torch.stack([torch.randperm(N)[:3] for _ in range(batch)])
    kinds = torch.ones_like(genes)

    def run() -> None:
        if form == "ours":
            module(states, genes, kinds).square().mean().backward()
            return
        for own in genes:  # one set at a time, since all at once would not fit
            kind = torch.zeros(N, dtype=torch.long)
            kind[own] = 1
            pooled = module.pool(states[own] + module.kind(kind[own])).mean(0)
            beta = torch.softmax(module.key(states) @ module.query(pooled) / width**0.5, 0)
            (beta @ module.phi(states, kind)).square().mean().backward()

    run()
    held, begun = peak(), cpu()
    run()
    return {"cpu_s": cpu() - begun, "ms_a_sample": (cpu() - begun) / batch * 1e3,
            "bytes": peak() - held}  # fmt: skip


def step(form: str, batch: int) -> dict[str, float]:
    """Run a training step of a network of train-graph, d = 64, with nine graphs."""
    import torch
    from vcell_train_graph import TrainGraph, registry
    from vcell_train_graph.problem import GraphProblem

    from vcell.graph import GeneGraphs, Relation

    made = []
    for i in range(9):
        indptr, indices = graph(i, EDGES // 18)
        row = np.repeat(np.arange(N), np.diff(indptr))
        made.append(Relation.from_edges(str(i), indices, row, N)[0])
    names = tuple(f"g{i}" for i in range(N))
    rng = np.random.default_rng(0)
    members = np.stack([rng.choice(N, 3, replace=False) for _ in range(batch)])
    nothing = np.zeros(batch, np.int64)
    problem = GraphProblem(
        names, members, rng.normal(size=batch), nothing, np.arange(batch), nothing.astype(np.int8),
        GeneGraphs(names, tuple(made), {}), np.zeros((N, 0)), N,
    )  # fmt: skip
    config = TrainGraph(width=72, heads=9, layers=2, dropout=0.0)
    network = registry.get(form).build(problem, config)
    update = torch.optim.AdamW(network.parameters())
    sets, left = torch.from_numpy(members), torch.randn(batch)
    times, held = [], peak()
    for _ in range(2):
        begun = cpu()
        found = network(sets)
        total = (found["added"] - left).square().mean()
        if "graphs" in found:
            total = total + found["graphs"].sum()
        update.zero_grad()
        total.backward()
        update.step()
        times.append(cpu() - begun)
    return {"cpu_s": min(times), "bytes": peak() - held, "samples_s": batch / min(times)}


def ceiling() -> None:
    """Print r on unseen query pairs of the noiseless values, and of the true kernel."""
    from vcell_train_graph.kernels import SetBlock
    from vcell_train_graph.planted import planted

    from vcell.graph.diffusion import kernels

    made = planted(seed=1)
    n, sets, values = len(made.graphs.genes), made.members, made.values
    far = kernels(made.graphs.relations[0], np.arange(n))[1]
    total = np.zeros((len(sets), len(sets)))
    for kernel, kind, weight in ((None, "linear", 0.04), (far, "pair", 1.0), (far, "linear", 0.16)):
        one = SetBlock("", kind, kernel)(sets, sets, n)
        total += weight * one / np.diag(one).mean()
    noise = 0.5625 * 1.2
    query = np.unique(sets[:, :2], axis=0, return_inverse=True)[1].ravel()
    order = np.random.default_rng(0).permutation(query.max() + 1)
    found = []
    for fold in range(5):
        out = np.isin(query, order[fold::5])
        matrix = total[np.ix_(~out, ~out)] + noise * np.eye(int((~out).sum()))
        about = values - values[~out].mean()
        said = total[np.ix_(out, ~out)] @ np.linalg.solve(matrix, about[~out])
        found.append([np.corrcoef(x, values[out])[0, 1] for x in (made.noiseless[out], said)])
    (exact, process), spread = np.mean(found, 0), np.std(found, 0, ddof=1)
    print(f"without noise: r {exact:.3f} ± {spread[0]:.3f}")
    print(f"process with the true kernel and weights: r {process:.3f} ± {spread[1]:.3f}")


def many(n_sets: int, n_genes: int) -> None:
    """Solve the process on many sets, a fifth of the query pairs held out."""
    from vcell_train_graph.planted import planted
    from vcell_train_graph.problem import GraphProblem
    from vcell_train_graph.process import process

    from vcell.screen.split import TEST, TRAIN

    queries = 182  # as in Kuzmin et al.; nearly all have the same genes
    made = planted(
        n_genes=n_genes, n_queries=queries, per_query=n_sets // queries, n_decoys=1, seed=1
    )
    group = np.unique(made.members[:, :2], axis=0, return_inverse=True)[1].ravel()
    part = np.where(group % 5 == 0, TEST, TRAIN).astype(np.int8)
    problem = GraphProblem(
        made.graphs.genes, made.members, made.values, group, np.arange(len(group)), part,
        made.graphs,
        np.zeros((n_genes, 0)), n_genes,
    )  # fmt: skip
    begun, test = cpu(), part == TEST
    said, _ = process(problem, group)
    r = np.corrcoef(said[test], made.values[test])[0, 1]
    print(f"{len(group):,} sets of {n_genes:,} genes: {cpu() - begun:.0f} CPU s, r {r:.4f}; "
          f"peak {peak() / 2**20:,.0f} MB")  # fmt: skip


# --- in the parent ----------------------------------------------------------------------------


def child(*words: object) -> dict[str, float]:
    """Measure in a separate process."""
    command = [sys.executable, __file__, "--child", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def told(name: str, ours: list[dict[str, float]], naive: list[dict[str, float]]) -> None:
    """Print the medians, and their ratio."""
    a, b = (float(np.median([x["cpu_s"] for x in xs])) for xs in (ours, naive))
    m, w = (max(x["bytes"] for x in xs) for xs in (ours, naive))
    print(f"{name}: ours {a:.2f} s, naive {b:.2f} s, {b / a:.1f} times", end="")
    print(f"; memory {m / 2**20:,.0f} MB against {w / 2**20:,.0f}, {w / max(m, 1):.1f} times")


def main() -> None:
    """Run the selected measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["loss", "head", "step", "planted", "ceiling", "sets"])
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path("planted"))
    parser.add_argument("--sets", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=400)
    parser.add_argument("--null", action="store_true")
    args = parser.parse_args()
    begun = time.time()
    if args.what == "planted":
        from vcell_train_graph.planted import planted

        made = planted(seed=1, null=args.null)
        args.to.mkdir(parents=True, exist_ok=True)
        for name, lines in {"tau": made.rows(), **made.edges()}.items():
            (args.to / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        return
    if args.what == "sets":
        many(args.sets, args.genes)
        return
    if args.what == "ceiling":
        ceiling()
        return
    if args.what == "step":
        found = {name: child("step", name, 4096) for name in ("transformer", "dango")}
        for name, one in found.items():
            print(f"{name}: {one['samples_s']:,.0f} samples/s, {one['bytes'] / 2**20:,.0f} MB")
        return
    ours, naive = [], []
    for _ in range(args.rounds):
        if args.what == "loss":
            ours.append(child("loss", "ours", args.heads))
            naive.append(child("loss", "dense", args.heads))
        else:
            one, other = child("head", "ours", args.batch), child("head", "naive", 12)
            print(f"  {one['ms_a_sample']:.3f} ms a sample at B = {args.batch}")
            other["cpu_s"] *= args.batch / 12
            ours.append(one)
            naive.append(other)
    if args.what == "loss":
        for key in ("loss", "grad"):
            print(f"  {key}: {ours[0][key]:.7g} and {naive[0][key]:.7g}")
    told(args.what, ours, naive)
    print(f"  ({time.time() - begun:.0f} s, load {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        what, form, size = sys.argv[2:]
        print(json.dumps({"loss": loss, "head": head, "step": step}[what](form, int(size))))
    else:
        main()
