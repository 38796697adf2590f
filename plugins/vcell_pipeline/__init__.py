"""`vcell pipeline`: from cells of patients to a classifier, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import DataOptions, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Pipeline(DataOptions):
    """Settings of `vcell pipeline`, the [pipeline] table."""

    output: Path = option(Path("pipeline"), made="into", help="Folder for all outputs.", short="-o")
    patient_column: str = option("patient", help="The obs column that names each cell's patient.")
    outcome_column: str = option("outcome", help="The obs column with the patient's outcome.")
    pairs: Path | None = option(None, read=True, help="A CSV or TSV of ligands and receptors.")
    min_genes: int = option(200, help="QC: cells with fewer genes are left out.", minimum=0)
    max_mito: float = option(
        0.2, help="QC: cells with a larger mitochondrial share are left out.", minimum=0, maximum=1
    )
    min_patient_cells: int = option(
        20, help="QC: patients with fewer remaining cells are left out.", minimum=1
    )
    min_cells: int = option(2, help="Cell types of fewer cells count as unlabelled.", minimum=1)
    folds: int = option(5, help="Outer folds of patients; one GMVAE for each.", minimum=2)
    states: bool = option(default=True, help="Train a GMVAE for each fold, for cell-type states.")
    samples: int = option(10, help="Pseudobulks per patient; 0 for none.", minimum=0)
    sample_cells: int = option(500, help="Cells per pseudobulk.", minimum=1)
    ablate: bool = option(default=True, help="Measure what each part contributes.")
    seed: int = option(0, help="The seed of every stage.", minimum=0)


@click.command("pipeline")
@click.argument("what", type=click.Choice(["bulk", "status"]))
@configured(Pipeline)
def command(what: str, config: Pipeline) -> None:
    r"""Train a classifier of bulk expression from patients' single cells, from QC to figures.

    bulk runs the unfinished stages: QC, folds of patients, a GMVAE per fold, pseudobulks, the
    classifier, ablations, figures. If it is killed, start it again and it continues.
    status shows the state of the stages and changes nothing. The settings of each stage are in its
    own table of vcell.toml: [train-gmvae], [pseudobulk], [train-bulk].

    \b
    Example: vcell pipeline bulk --cells cells.h5ad --patient-column donor \
                 --outcome-column response --cell-type-column cell_type
             vcell pipeline status
    """
    from vcell_pipeline.work import bulk, status

    (bulk if what == "bulk" else status)(config)


plugin = Plugin(
    name="pipeline",
    summary="Analyse patients: QC, GMVAE, pseudobulk, classifier, ablation, figures.",
    command=command,
    config=Pipeline,
    needs=("torch", "scipy", "numba", "h5py"),
)
