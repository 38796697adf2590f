"""Checks of a run against null models, before its results are trusted.

A sample of events is computed again: without any change (which must give 0), in exact float32 by
other code (the noise floor), with shuffled weights, with the embedding layer alone, and from
expression alone. If one of these reproduces the ranking, it is not due to the trained model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vcell import console
from vcell.geneformer.perturbation import Copies
from vcell.geneformer.shifts import ShiftEngine
from vcell.metrics.rankings import spearman
from vcell_isp.controls import profile
from vcell_isp.design import CellEvents

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.runs import Run
    from vcell_isp import IspRun
    from vcell_isp.design import IspDesign
    from vcell_isp.model import ModelReader

CELLS, EVENTS, STATE_CELLS = 6, 24, 24
_SEPARATED = 0.1  # separation below which the states hardly differ
_EXPLAINED = 0.5  # size of Spearman's correlation above which a null model explains the ranking


@dataclass(frozen=True)
class GateSample:
    """A random sample of events."""

    events: tuple[CellEvents, ...]
    genes: NDArray[np.int64]
    ranks: NDArray[np.float64]

    @classmethod
    def of(cls, design: IspDesign, seed: int) -> GateSample:
        """Choose cells, and events of each."""
        rng = np.random.default_rng(seed)
        cells = rng.permutation(design.order)
        chosen, genes, ranks = [], [], []
        for cell in cells:
            events = design.events(int(cell))
            if not len(events):
                continue
            parts = []
            for copies, tokens in events.parts:
                first = int(rng.integers(max(len(tokens) - EVENTS, 0) + 1))
                some = np.arange(first, min(first + EVENTS, len(tokens)))  # as in a run
                parts.append(
                    (replace(copies, at=copies.at[some], to=copies.to[some]), tokens[some])
                )
                genes.append(tokens[some])
                ranks.append(copies.at[some] / events.length)
            chosen.append(replace(events, parts=tuple(parts)))
            if len(chosen) == CELLS:
                break
        return cls(tuple(chosen), np.concatenate(genes), np.concatenate(ranks))

    def measure(self, engine: ShiftEngine) -> NDArray[np.float64]:
        """Return each event's shift towards the goal, or its distance if there is no goal."""
        out = []
        for events in self.events:
            for copies, _ in events.parts:
                found = engine.shifts(events.tokens, events.length, copies)
                out.append(found.to_state[engine.names[0]] if engine.names else found.distance)
        return np.concatenate(out)


def check(
    run: Run, config: IspRun, design: IspDesign, engine: ShiftEngine, reader: ModelReader
) -> dict[str, Any]:
    """Run all checks and return their results by name."""
    console.say("checking the screen against nulls of its model")
    sample = GateSample.of(design, config.seed)
    actual = sample.measure(engine)
    found: dict[str, Any] = {"events": len(actual), "no_op": _no_op(engine, sample)}
    exact = _exact(engine, reader, config, sample)
    floor = float(np.abs(actual - exact).max())
    found |= {
        "noise_floor": floor,
        "median_size": float(np.median(np.abs(actual))),
        "above_floor": float((np.abs(actual) > 3 * floor).mean()),
        "spearman_exact": spearman(actual, exact),
        "sign_flips_above_floor": int(
            ((np.sign(actual) != np.sign(exact)) & (np.abs(exact) > 3 * floor)).sum()
        ),
        "shuffled_weights": spearman(actual, _with(_shuffled(reader, config), design, sample)),
        "embedding_alone": spearman(actual, _with(replace(reader, n_layers=0), design, sample)),
        "expression_alone": spearman(actual, _expression(design, sample)),
        "separation": separation(run.path),
    }
    found["problems"] = _problems(found)
    return found


def _no_op(engine: ShiftEngine, sample: GateSample) -> float:
    """Return the largest shift of a copy that changes nothing; it must be 0."""
    worst = 0.0
    for events in sample.events:
        none = np.zeros(2, np.int64)
        same = Copies("whole", np.arange(events.length), none, none, (), events.length)
        found = engine.shifts(events.tokens, events.length, same)
        values = [found.distance, *found.to_state.values()]
        worst = max(worst, *(float(np.abs(value).max()) for value in values))
    return worst


def _exact(
    engine: ShiftEngine, reader: ModelReader, config: IspRun, sample: GateSample
) -> NDArray[np.float64]:
    """Compute the sample in float32 with torch, one copy at a time, without shared work."""
    bert = reader.model.bert
    bert.set_precision("fp32")
    bert.numpy_products = False
    try:
        states = dict(zip(engine.names, engine.states.cpu().numpy(), strict=True))
        plain = ShiftEngine(
            reader.model, reader.n_layers, reader.readout, states, budget=1, shared=False
        )
        return sample.measure(plain)
    finally:
        bert.set_precision(config.precision)
        bert.numpy_products = True


def _shuffled(reader: ModelReader, config: IspRun) -> ModelReader:
    """Return the model with the entries of every weight matrix permuted."""
    generator = torch.Generator().manual_seed(config.seed)
    bert = copy.deepcopy(reader.model.bert)
    with torch.no_grad():
        for weights in bert.parameters():
            order = torch.randperm(weights.numel(), generator=generator)
            weights.copy_(weights.flatten().cpu()[order].view(weights.shape))
    bert.set_precision(config.precision)
    return replace(reader, model=replace(reader.model, bert=bert))


def _with(reader: ModelReader, design: IspDesign, sample: GateSample) -> NDArray[np.float64]:
    """Compute the sample with another model, including its own states."""
    plain = ShiftEngine(reader.model, reader.n_layers, reader.readout)
    if reader.readout == "cls" and reader.n_layers == 0:
        plain = ShiftEngine(reader.model, 0, "mean")
    states: dict[str, NDArray[np.float64]] = {}
    for name in design.targets[:1]:
        cells = np.flatnonzero(design.state == design.states.index(name))[:STATE_CELLS]
        embedded = [plain.embed(design.cells[int(cell)]) for cell in cells]
        states[name] = np.asarray(np.mean(embedded, 0, dtype=np.float64))
    return sample.measure(ShiftEngine(reader.model, plain.n_layers, plain.readout, states))


def _expression(design: IspDesign, sample: GateSample) -> NDArray[np.float64]:
    """Predict shifts without a model: genes more frequent in the goal pull towards it."""
    if not design.targets:
        return -sample.ranks
    n = int(design.cells.tokens.max(initial=0)) + 1
    goal = np.flatnonzero(design.state == design.states.index(design.targets[0]))
    there, _ = profile(design.cells.take(goal), n)
    here, _ = profile(design.cells.take(np.flatnonzero(design.start)), n)
    more = np.concatenate([there - here, np.zeros(1)])
    genes = np.where((sample.genes < 0) | (sample.genes >= n), n, sample.genes)
    sign = 1 if design.operation in ("overexpress", "activate") else -1
    return sign * more[genes]


def separation(run: Path) -> float | None:
    """Return the cosine distance between states divided by that within states."""
    path = run / "states.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        cells, state = arrays["cells"].astype(np.float64), arrays["state"]
    units = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    means = [units[state == s].mean(0) for s in np.unique(state)]
    if len(means) < 2:
        return None
    within = np.mean([1 - (units[state == s] @ m).mean() / np.linalg.norm(m)
                      for s, m in zip(np.unique(state), means, strict=True)])  # fmt: skip
    unit = [m / np.linalg.norm(m) for m in means]
    between = np.mean([1 - a @ b for i, a in enumerate(unit) for b in unit[i + 1 :]])
    return float(between / within) if within > 0 else None


def _problems(found: dict[str, Any]) -> list[str]:
    problems = []
    if found["no_op"] > 1e-6:
        problems.append(
            f"a copy that changes nothing moves by {found['no_op']:.2g}: numerical trouble"
        )
    if found["above_floor"] < 0.5:
        problems.append(
            f"only {found['above_floor']:.0%} of the sampled shifts exceed three times the noise "
            "floor: take fp32"
        )
    nulls = {
        "shuffled_weights": "shuffled weights give",
        "embedding_alone": "the embedding layer alone gives",
        "expression_alone": "expression alone gives",
    }
    problems += [
        f"{text} nearly the same ranking{', reversed' if found[name] < 0 else ''} (Spearman "
        f"{found[name]:.2f}): it is not what the model learnt"
        for name, text in nulls.items()
        if found[name] is not None and abs(found[name]) > _EXPLAINED
    ]
    return problems + close(found["separation"])


def close(separation: float | None) -> list[str]:
    """Warn of states that hardly differ."""
    if separation is None or separation >= _SEPARATED:
        return []
    gap = f"between/within {separation:.2g}"
    return [f"the states lie close together ({gap}): shifts between them mean little"]


def text(found: dict[str, Any]) -> str:
    """Format the checks."""
    rows = [
        ("a copy that changes nothing", f"{found['no_op']:.2g}", "must be 0"),
        ("noise floor", f"{found['noise_floor']:.2g}", f"median size {found['median_size']:.2g}"),
        ("above three floors", f"{found['above_floor']:.0%}", "of the sample"),
        ("Spearman with exact float32", _number(found["spearman_exact"]), "should be 1"),
        ("Spearman, shuffled weights", _number(found["shuffled_weights"]), "should be 0"),
        ("Spearman, embedding alone", _number(found["embedding_alone"]), "should be 0"),
        ("Spearman, expression alone", _number(found["expression_alone"]), "should be 0"),
        ("separation of the states", _number(found["separation"]), "between / within"),
    ]
    lines = [console.table(rows, ["check", "value", ""])]
    return "\n".join([*lines, *(f"! {problem}" for problem in found["problems"])])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
