"""The page of every command in a real browser: a phone and a desk, light and dark, awkward names.

`MAKERS` has whoever writes pages; a plugin that begins to write one has to be added.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from vcell_gpu_tune import find
from vcell_gpu_tune.search import phases, search
from vcell_train_graph.planted import planted

from tests.gmvae.conftest import planted as planted_cells
from tests.gpu_tune.test_search import LIMITS, Simulated
from tests.isp.made_up import run_of, shifts_of
from tests.train_graph.conftest import written
from vcell.geneformer import checkpoint
from vcell.nn.bert import Bert, BertShape
from vcell.patients.simulate import PatientDesign, write

if TYPE_CHECKING:
    from tests.browser import Browser

HARD = ("<script>alert(1)</script> & \"q\" 'r'", "häßliches Gen 遺伝子", "n" * 80)


def screen(path: Path, targets: tuple[str, ...], *, genes: int = 60, seed: int = 0) -> Path:
    """Write 40 control cells and 30 of each target, which halves its own gene."""
    rng = np.random.default_rng(seed)
    names = [*targets, *(f"GENE{i}" for i in range(genes - len(targets)))][:genes]
    labels = np.repeat(["non-targeting", *targets], [40, *(30 for _ in targets)])
    counts = rng.poisson(rng.gamma(2.0, 2.0, genes), (len(labels), genes))
    for i, target in enumerate(targets[:genes]):
        counts[labels == target, i] //= 4
    obs = pd.DataFrame({"target_gene": labels, "cell_type": HARD[1]})
    obs.index = obs.index.map("cell{}".format)
    cells = anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names)
    )
    cells.write_h5ad(path)
    return path


def inspect(vcell, folder: Path) -> list[Path]:
    """Three awkward names; one perturbation of one gene; types only; negative values."""
    pages = []
    typed = planted_cells(40, 1)
    typed.obs["cell_type"] = [HARD[i % 3] for i in range(40)]
    typed.obsm["X_umap"] = np.random.default_rng(0).normal(size=(40, 2))
    typed.write_h5ad(folder / "types.h5ad")
    typed.X = np.asarray(typed.X.todense() if sparse.issparse(typed.X) else typed.X) - 1.5
    typed.obsm = {"nnls": np.random.default_rng(0).dirichlet([1, 1, 1], 40)}
    typed.obs = typed.obs[[]]
    typed.write_h5ad(folder / "centred.h5ad")
    for name, cells in (
        ("centred", folder / "centred.h5ad"),
        ("hard", screen(folder / "hard.h5ad", HARD)),
        ("one", screen(folder / "one.h5ad", ("A",), genes=1)),
        ("types", folder / "types.h5ad"),
    ):
        pages.append(folder / f"{name}.html")
        ran = vcell("inspect", cells, "--html", pages[-1])
        assert ran.code == 0, ran.err
    words = pages[0].read_text()
    assert "Some values are negative" in words
    assert "<h3>nnls</h3>" not in words  # fractions are no places
    assert "Largest groups of cell_type" in pages[-1].read_text()
    return pages


def isp(vcell, folder: Path) -> list[Path]:
    """Both operations, and one gene without nulls."""
    rng = np.random.default_rng(5)
    both = []
    for how, sign in (("delete", 1), ("overexpress", -1)):
        frame = shifts_of(rng, 30, 30, effect={10: sign * 8e-2, 11: 5e-3})
        symbols = dict(zip(["G10", "G11", "G12"], HARD, strict=True))
        frame["symbol"] = frame["symbol"].replace(symbols)
        both.append(run_of(folder, frame, operation=how, missing={HARD[0]: "no token"}))
    pages = []
    for name, runs in (("both", both), ("one", [run_of(folder, shifts_of(rng, 1, 12))])):
        ran = vcell("isp", "stats", *(run.path for run in runs), "-o", f"{name}.csv")
        assert ran.code == 0, ran.err
        pages.append(folder / f"{name}.html")
    assert "stand out at an FDR" in pages[0].read_text()
    assert "No gene could be tested" in pages[1].read_text()
    return pages


def evaluate(vcell, folder: Path) -> list[Path]:
    """Three perturbations with awkward names, a single one, which has no PDS, many, and both."""
    pages = []
    many = tuple(f"T{i}" for i in range(70))
    for name, targets in (("hard", HARD), ("one", HARD[:1]), ("many", many)):
        real = screen(folder / f"{name}.h5ad", targets, genes=90)
        said = screen(folder / f"{name}-said.h5ad", targets, genes=90, seed=1)
        if name != "many":
            for side, cells in (("real", real), ("said", said)):
                (folder / side).mkdir(exist_ok=True)
                shutil.copy(cells, folder / side / f"{name}.h5ad")
        ran = vcell("evaluate", said, real, "-o", folder / name)
        assert ran.code == 0, ran.err
        pages.append(folder / name / "index.html")
    assert "MAE: the 20 worst" in pages[-1].read_text()
    assert "only <script>" not in pages[1].read_text()
    assert "the overall score mean nothing" in pages[1].read_text()
    ran = vcell("evaluate", folder / "said", folder / "real", "-o", folder / "both")
    assert ran.code == 0, ran.err
    pages.append(folder / "both" / "index.html")
    assert "mean of 2 contexts" in pages[-1].read_text()
    assert "the 20 worst" not in pages[0].read_text()
    return pages


def select_genes(vcell, folder: Path) -> list[Path]:
    """Genes of a small screen."""
    cells = screen(folder / "hard.h5ad", HARD)
    ran = vcell("select-genes", cells, "--n-genes", "20", "-o", folder / "genes")
    assert ran.code == 0, ran.err
    return [folder / "genes" / "coverage.html"]


def graph_profile(vcell, folder: Path) -> list[Path]:
    """Synthetic graphs, all strategies and references."""
    ran = vcell(
        "graph-profile", "--scale", "0.05", "--batch-size", "2", "--steps", "1", "--seconds", "0",
        "--strategy", "all", "-o", folder / "page.html",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return [folder / "page.html"]


def isp_bench(vcell, folder: Path) -> list[Path]:
    """A benchmark of a tiny model whose cells have awkward labels, and one of a single method."""
    size = BertShape(n_layers=2, d_model=32, n_heads=4, d_ff=48, n_positions=64, n_tokens=60)
    model = Bert(size)
    checkpoint.made_up(model, 0)
    checkpoint.save(model, folder / "model")
    genes = [f"ENSG{i:011d}" for i in range(2, size.n_tokens)]
    lines = [f"{gene}\t{i}\t1.5\tG{i}" for i, gene in enumerate(genes, 2)]
    heads = ["token\tid\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    (folder / "own.tsv").write_text("\n".join([*heads, *lines]) + "\n")
    cells = anndata.AnnData(
        sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, (18, len(genes)))).astype("f4"),
        obs=pd.DataFrame({"label": HARD * 6}, index=[f"c{i}" for i in range(18)]),
        var=pd.DataFrame(index=genes),
    )
    cells.write_h5ad(folder / "cells.h5ad")
    same = ("isp-bench", "cells.h5ad", "--model", "model", "--vocabulary", "own.tsv",
            "--threads", "1", "--device", "cpu")  # fmt: skip
    for words in (
        ("--repeats", "2", "--method", "original", "--method", "packed", "--method",
         "mixed_precision", "--label", "label", "--control", HARD[1], "-o", "labels.html"),
        ("--repeats", "1", "--method", "packed", "--max-cells", "2", "-o", "two.html"),
    ):  # fmt: skip
        ran = vcell(*same, *words)
        assert ran.code == 0, ran.err
    return [folder / "labels.html", folder / "two.html"]


def gpu_tune(_vcell, folder: Path) -> list[Path]:
    """What a search on a simulated card found."""
    found = search(Simulated(), phases(LIMITS, 6), repeats=3, seed=0)
    page = find.page("NVIDIA H100 80GB HBM3", HARD[2], found, found.best(0.03), 0.03)
    page.write(folder / "best.html")
    return [folder / "best.html"]


def predict(vcell, folder: Path) -> list[Path]:
    """What a run with awkward names predicts, what it rests on, and the reports of two runs."""
    names = ("A", "B", "C", "D", "E", "F", "G", "H", *HARD)
    screen(folder / "cells.h5ad", names)
    train = ("train-vcc", "cells.h5ad", "--model", "mean")
    for words in (
        (*train, "--seed", "0"), (*train, "--seed", "1"),
        ("predict", "latest", "--unknown", "mean", "--explain", "why", "-o", "said.h5ad"),
        ("report", "latest", "-o", "report.html"),
    ):  # fmt: skip
        ran = vcell(*words)
        assert ran.code == 0, ran.err
    runs = sorted((folder / "runs").iterdir())
    assert vcell("report", *runs, "-o", "both.html").code == 0
    return [folder / name for name in ("said.html", "why/index.html", "report.html", "both.html")]


def train_graph(vcell, folder: Path) -> list[Path]:
    """Graphs against rewired ones: the report of the run of folds."""
    written(folder, planted(n_genes=40, n_queries=20, per_query=6, n_decoys=1, seed=1))
    graphs = "relation_0.tsv,relation_1.tsv"
    for words in (
        ("train-graph", "tau.tsv", "--graph", graphs, "--model", "graph-gp", "--control", "rewired",
         "--folds", "2", "--seeds", "1"),
        ("report", "latest", "-o", "report.html"),
    ):  # fmt: skip
        ran = vcell(*words)
        assert ran.code == 0, ran.err
    return [folder / "report.html"]


def demo(vcell, folder: Path) -> list[Path]:
    """The hub and all that it links to."""
    ran = vcell("demo", "--n-cells", "900", "--genes", "150", "--perturbations", "12",
                "--select", "60")  # fmt: skip
    assert ran.code == 0, ran.err
    pages = sorted((folder / "vcell-demo").rglob("*.html"))
    assert len(pages) >= 6
    hub = (folder / "vcell-demo" / "report.html").read_text()
    linked = set(re.findall(r'href="([^"]+\.html)"', hub))
    assert linked | {"report.html"} == {
        str(page.relative_to(folder / "vcell-demo")) for page in pages
    }
    for shown in ("<h3>Loss</h3>", "<h3>Every held-out perturbation</h3>",
                  "A model can exceed a replicate"):  # fmt: skip
        assert shown in hub
    return pages


def train_bulk(vcell, folder: Path) -> list[Path]:
    """Patients, an ablation, the figures, and the run's report."""
    few = PatientDesign(patients=18, cells=30, types=3, genes=90, pairs=4, library=300.0)
    write(few, folder / "cells.h5ad", folder / "pairs.csv")
    for words in (
        ("train-bulk", "cells.h5ad", "--pairs", "pairs.csv", "--cell-type-column", "cell_type",
         "--steps", "10", "--axes", "4", "--members", "1", "--folds", "3", "--inner-folds", "2"),
        ("ablate", "latest"), ("figures", "all", "latest", "-o", "figures"),
        ("report", "latest", "-o", "report.html"),
    ):  # fmt: skip
        ran = vcell(*words)
        assert ran.code == 0, ran.err
    drawn = sorted((folder / "figures").glob("*.svg"))
    assert {"roc", "ablation"} <= {path.stem for path in drawn}
    return [*(folder / "runs").glob("*/index.html"), folder / "report.html", *drawn]


def train_gmvae(vcell, folder: Path) -> list[Path]:
    """A few steps on labels with awkward names, with the run's report."""
    cells = planted_cells(240, 1)
    cells.obs["kind"] = [(*HARD, "type")[int(k[-1])] for k in cells.obs["kind"]]
    cells.write_h5ad(folder / "cells.h5ad")
    for words in (
        ("train-gmvae", "cells.h5ad", "--labels", "kind", "--max-steps", "20"),
        ("report", "latest", "-o", "report.html"),
    ):
        ran = vcell(*words)
        assert ran.code == 0, ran.err
    return [*(folder / "runs").glob("*/index.html"), folder / "report.html"]


QUICK = (inspect, isp, gpu_tune)
SLOW = (
    evaluate, select_genes, graph_profile, isp_bench, predict, train_graph, demo, train_bulk,
    train_gmvae,
)  # fmt: skip
MAKERS = (*QUICK, *SLOW)


@pytest.mark.parametrize(
    "made", [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_pages_have_no_layout_problems(typed, tmp_path, browser: Browser, made) -> None:
    pages = made(typed, tmp_path)
    assert pages
    for page in pages:
        for width, scheme in ((390, "light"), (390, "dark"), (800, "dark"), (1200, "light")):
            browser.open(page, width, scheme=scheme)
            assert browser.objections() == [], (page, width, scheme)
        assert browser.requests() == []


def test_no_plugin_writes_a_page_that_is_not_looked_at(repository: Path) -> None:
    writing = {
        path.parent.name.removeprefix("vcell_")
        for path in (repository / "plugins").glob("*/*.py")
        if re.search(r"\bPage\(", path.read_text(encoding="utf-8"))
    }
    assert writing - {made.__name__ for made in MAKERS} == {"report"}  # it is in several of them
