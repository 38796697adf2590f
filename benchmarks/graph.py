"""Neighbourhoods of genes: vcell, torch-geometric and plain scipy, in turns in one process.

    python benchmarks/graph.py                     # synthetic graphs of yeast's size
    python benchmarks/graph.py --graph A.tsv.gz --graph B.tsv.gz
    python benchmarks/graph.py --calibrate         # statistics the synthetic graphs are fitted to
    python benchmarks/graph.py --memory            # 20,000 genes, 20 million edges: peak memory
    python benchmarks/graph.py --read              # seconds to read an edge list of 2.5 M lines

Times are CPU seconds of this process on one thread, the fastest of the rounds. torch-geometric runs
if it is installed (`pip install torch-geometric` into a separate environment); otherwise the
references are a port of its algorithm, as the output says. Outputs are compared sample by sample.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the selected measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", action="append", type=Path, default=[])
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--read", action="store_true")
    asked = parser.parse_args()
    if asked.calibrate:
        calibrate()
    elif asked.memory:
        memory()
    elif asked.read:
        reading()
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Time node masks, CSR and pairs, alternating with both peers."""
    import torch
    from vcell_graph_profile import references, strategies

    from vcell.graph import Neighbourhoods, Rules, read
    from vcell.graph.synthetic import yeast_like

    torch.set_num_threads(1)
    graphs = read(asked.graph) if asked.graph else yeast_like(0)
    print("\n".join(graphs.notes))
    print(f"{graphs.n_genes:,} genes, {graphs.n_edges:,} edges; peer: {references.source()}")
    rng = np.random.default_rng(0)
    sets = np.stack([rng.choice(graphs.n_genes, 3, replace=False) for _ in range(asked.samples)])
    head = f"{'hops':>4} {'genes':>6} {'edges':>10} | peer ms: nodes, pairs | scipy ms | ours ms:"
    print(f"{head} nodes, CSR, pairs | times the peer: nodes, CSR, pairs | same")
    walk = peer_walk(graphs)
    for hops in (1, 2, 3):
        rules = Rules(hops)
        near = Neighbourhoods(graphs, rules)
        peer = references.make(f"khop{hops}-ref", graphs, Rules())
        scipy = references.make(f"khop{hops}-scipy", graphs, Rules())
        ours = strategies.make(f"khop{hops}", graphs, Rules())
        masks = near.masks(sets)
        for i, one in enumerate(sets):  # compile, warm up, and compare
            found = ours.sample(one)
            for other in (peer.sample(one), scipy.sample(one)):
                assert references.same(found, other, graphs)
            pairs = near.pairs(masks[i])
            assert all(
                (a == b.numpy()).all()
                for a, b in zip(pairs.edges, peer.sample(one).parts[1:], strict=True)
            )
            assert (walk(one, hops).numpy() == near.nodes(masks[i])).all()
        sizes = [len(ours.sample(one).parts[0]) for one in sets]
        edges = [ours.sample(one).n_edges for one in sets]
        work = {
            "peer nodes": (lambda h=hops: [walk(one, h) for one in sets], 1),
            "peer pairs": (lambda p=peer: [p.sample(one) for one in sets], 1),
            "scipy": (lambda p=scipy: [p.sample(one) for one in sets], 1),
            "nodes": (lambda n=near: n.masks(sets), 200),
            "csr": (lambda n=near: [n.csr(n.masks(one)[0], reuse=True) for one in sets], 5),
            "pairs": (lambda n=near: [n.pairs(n.masks(one)[0], reuse=True) for one in sets], 5),
        }
        best = dict.fromkeys(work, float("inf"))
        for _ in range(asked.rounds):
            for name, (do, often) in work.items():
                started = time.process_time()
                for _ in range(often):
                    do()
                spent = (time.process_time() - started) / often / len(sets)
                best[name] = min(best[name], 1000 * spent)
        b = best
        print(
            f"{hops:>4} {np.mean(sizes):>6,.0f} {np.mean(edges):>10,.0f} | {b['peer nodes']:.1f}, "
            f"{b['peer pairs']:.1f} | {b['scipy']:.1f} | {b['nodes']:.4f}, {b['csr']:.3f}, "
            f"{b['pairs']:.3f} | {b['peer nodes'] / b['nodes']:,.0f}, "
            f"{b['peer pairs'] / b['csr']:.1f}, {b['peer pairs'] / b['pairs']:.1f} | yes"
        )


def peer_walk(graphs):
    """Return the peer's function that finds only the genes of a neighbourhood."""
    import torch
    from vcell_graph_profile import references

    whole = [torch.from_numpy(relation.edge_index()) for relation in graphs]
    n = graphs.n_genes
    if references.installed():
        from torch_geometric.utils import k_hop_subgraph

        def one(seeds, hops, edges):
            return k_hop_subgraph(seeds, hops, edges, num_nodes=n)[0]
    else:

        def one(seeds, hops, edges):
            return references.k_hop_subgraph(seeds, hops, edges, n)

    def walk(genes, hops):
        seeds = torch.from_numpy(genes)
        return torch.unique(torch.cat([one(seeds, hops, edges) for edges in whole]))

    return walk


def calibrate() -> None:
    """Print statistics of neighbourhoods, and the recorded ones."""
    from vcell.graph import Neighbourhoods, Rules
    from vcell.graph.synthetic import RECORDED, yeast_like

    for seed in range(3):
        graphs = yeast_like(seed)
        rng = np.random.default_rng(1)
        seeds = np.stack([rng.choice(graphs.n_genes, 3, replace=False) for _ in range(400)])
        for hops, recorded in enumerate(RECORDED, 1):
            sizes = np.bitwise_count(Neighbourhoods(graphs, Rules(hops)).masks(seeds)).sum(1)
            print(f"seed {seed}: {graphs.n_edges:,} edges, {hops} hops one way: "
                  f"{sizes.mean():,.0f} genes, recorded {recorded:,}")  # fmt: skip


def memory() -> None:
    """Read, save, map and walk 20 million edges in a separate process."""
    code = """
import resource, sys, time
from pathlib import Path
import numpy as np
from vcell.graph import Neighbourhoods, Rules, read
folder = Path(sys.argv[1])
graphs = read([folder / "big.tsv"])
told = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(f"read {graphs.n_genes:,} genes, {graphs.n_edges:,} edges: {time.process_time():.0f} CPU s, "
      f"peak {told():.2f} GB", flush=True)
graphs.save(folder / "big.graphs")
graphs = read([folder / "big.graphs"])
near = Neighbourhoods(graphs, Rules(2))
mask = near.masks(np.array([1, 2, 3]))[0]
found = near.csr(mask)
print(f"saved, mapped, 2 hops: {len(found.nodes):,} genes, {found.n_edges:,} edges, "
      f"peak {told():.2f} GB", flush=True)
rewired = graphs.rewired(0)
print(f"{rewired.notes[0]}: peak {told():.2f} GB, {time.process_time():.0f} s in all")
"""
    n, edges = 20_000, 20_000_000
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        names = np.array([f"G{i:05d}" for i in range(n)])
        with (Path(folder) / "big.tsv").open("w") as file:
            file.write("gene_a\tgene_b\tscore\n")
            keys = np.unique(rng.integers(0, n * n, int(edges * 1.06)))
            keys = keys[keys // n != keys % n]
            keys = rng.permutation(keys)[:edges]
            for part in np.array_split(keys, 100):
                ends = zip(names[part // n], names[part % n], strict=True)
                file.writelines(f"{a}\t{b}\t0.5\n" for a, b in ends)
        del keys
        subprocess.run([sys.executable, "-c", code, folder], check=True, cwd=HERE)


def reading() -> None:
    """Time the reading of one edge list with the size of yeast's nine graphs."""
    from vcell.graph import read
    from vcell.graph.synthetic import yeast_like

    graphs = yeast_like(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.tsv"
        names = np.array(graphs.genes)
        with path.open("w") as file:
            file.write("gene_a\tgene_b\tscore\n")
            for relation in graphs:
                for s, t in zip(names[relation.indices], names[relation.targets], strict=True):
                    file.write(f"{s}\t{t}\t1\n")
        started = time.process_time()
        found = read([path])
        spent, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF)
        print(f"{found.counts['all'].lines:,} lines: {spent:.1f} CPU s, "
              f"peak {peak.ru_maxrss / 1e6:.2f} GB")  # fmt: skip


if __name__ == "__main__":
    main()
