"""Implementation of `vcell prepare`: turn settings into a recipe, and print a summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.config import project_folder
from vcell.errors import UserError
from vcell.store import Recipe, prepare
from vcell.store.build.pipeline import in_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.store.build.pipeline import Prepared
    from vcell_prepare import Prepare


def run(files: tuple[Path, ...], config: Prepare) -> None:
    """Build the store and print a summary."""
    inputs = list(files) or ([config.cells] if config.cells else [])
    if not inputs:
        raise UserError("no input file", hint="vcell prepare FILE -o STORE")
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path} does not exist")
    recipe = _recipe(config)
    target = config.output or _default(inputs, recipe)
    done = prepare(inputs, target, recipe, overwrite=config.overwrite)
    console.result(_summary(done), _text(done))


def _recipe(config: Prepare) -> Recipe:
    return Recipe(
        min_genes=config.min_genes,
        min_counts=config.min_counts,
        max_mito=config.max_mito,
        mito_prefix=config.mito_prefix,
        min_cells=config.min_cells,
        doublet_column=config.doublet_column,
        genes=None if config.genes is None else read_genes(config.genes, config.n_genes),
        target_sum=config.target_sum,
        group_by=config.group_by,
        codec=config.codec,
        seed=config.seed,
        layer=config.layer,
        join=config.join,
    )


def _default(inputs: Sequence[Path], recipe: Recipe) -> Path:
    """Choose the path of the store; never next to the data, whose folder may not be the user's."""
    project = project_folder()
    if project is None:
        target = in_cache(inputs, recipe)
        console.say(f"the store goes to the cache: {target} (-o names another place)")
        return target
    name = inputs[0].resolve().name.removesuffix(".h5ad").removesuffix(".zarr")
    target = project / f"{name}.store.zarr"
    console.say(f"the store goes to the project's folder: {target} (-o names another place)")
    return target


def read_genes(path: Path, first: int | None) -> tuple[str, ...]:
    """Read gene names: the column `gene` of a CSV file, or one name per line.

    Raises
    ------
    UserError
        If the file can't be read, is empty, or lists a gene twice.
    """
    from vcell.screen import read_genes as listed

    genes = listed(path)[:first]
    seen: set[str] = set()
    for gene in genes:
        if gene in seen:
            raise UserError(f"{path} names {gene} twice")
        seen.add(gene)
    return tuple(genes)


def _summary(done: Prepared) -> dict[str, Any]:
    keys = ("n_cells", "n_genes", "nnz", "counts", "target_sum", "removed", "key")
    return {
        "store": str(done.path),
        "reused": done.reused,
        "bytes": _size(done.path),
        **{key: done.manifest[key] for key in keys},
    }


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _text(done: Prepared) -> str:
    made = done.manifest
    removed = made["removed"]
    verb = "is there already" if done.reused else "is ready"
    size = f"{console.count(made['n_cells'], 'cell')} x {console.count(made['n_genes'], 'gene')}"
    kind = f"counts, target sum {made['target_sum']:,.0f}" if made["counts"] else "not counts"
    lines = [
        f"{done.path} {verb}: {size}, {console.bytes_text(_size(done.path))}",
        f"values: {kind}; {made['nnz']:,} non-zeros",
    ]
    if removed["cells"] or removed["genes"]:
        why = ", ".join(
            f"{name.replace('_', '-')} {n:,}"
            for name, n in removed.items()
            if name not in ("cells", "genes")
        )
        lines.append(
            f"left out: {console.count(removed['cells'], 'cell')} ({why}), "
            f"{console.count(removed['genes'], 'gene')}"
        )
    return "\n".join(lines)
