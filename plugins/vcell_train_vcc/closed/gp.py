"""A Gaussian process over sets of target genes, in closed form: the prior of the networks.

The effects of two perturbations S and T are as alike as

    k(S, T) = c + z |S| |T| + sum over i in S, j in T of [ a (i = j) + b f(i, j) ]

with f the similarity of the genes' features (`kernel`): a sum over blocks, such as expression, GO
and Reactome, each weighted by how well it predicts perturbations left out; graphs of genes are
blocks too, used only if they improve these predictions.
Its limits are the mean effect, ridge regression on the features, and the additive rule for pairs.
Leave-one-out predictions come in closed form, and judge the settings: those that are best by error,
correlation and discrimination together are averaged, since the data seldom tell which one is right.
A perturbation is left out in all contexts at once. The mean effect, and the prediction beyond it,
are trusted only if left-out effects show that they pay, possibly not at all.
A target among the measured genes changes by the same share as training targets did.
A set of targets that were all measured alone is predicted from those (`interactions`).
P perturbations, G target genes, N genes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcell.models.belief import believed, drawn
from vcell.models.left_out import mean_of_others, missed, numbered
from vcell.models.own_change import OwnChange
from vcell.models.scoring import Judge
from vcell.models.transfer import Transfer
from vcell.screen.split import TRAIN
from vcell_train_vcc.closed.chosen import kept
from vcell_train_vcc.closed.interactions import Interactions
from vcell_train_vcc.closed.kernel import WIDTHS, Kernel, KernelSettings, noisy_inverse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen
    from vcell.runs import Run

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

_GRID = tuple(
    setting
    for setting in itertools.product(
        range(len(WIDTHS)), (0.0, 0.3), (0.0, 0.3), (0.0, 0.3, 1.0), (0.0, 0.3, 1.0, 3.0),
        (0.03, 0.1, 0.3, 1.0), (False, True),
    )
    if setting[3] + setting[4] > 0 and (setting[4] > 0 or setting[0] == 0)  # no width of nothing
)  # fmt: skip
_COARSE = tuple(  # by which blocks are weighed against each other
    itertools.product((0, 1), (0.3,), (0.0,), (0.0, 0.3), (0.3, 1.0, 3.0), (0.1, 0.3, 1.0), (True,))
)
# where each perturbation has one target of its own, sizes and own targets say nothing more
_SINGLE = tuple(one for one in _GRID if one[2] == 0 and one[3] == (0.0 if one[4] else 0.3))
_MIXES = 2  # weights of blocks, best by the coarse settings, that all settings are tried with
_JUDGED = 60  # settings, best by error and correlation, that discrimination is computed for
_AVERAGED = 20
_GENES = 1000  # most variable genes, by which settings are judged
_MOST = 250  # perturbations by which they are judged
_PAIRED = 5  # blocks, of more of which pairs are not tried
_SOLVED = 10_000  # perturbations times settings: of more perturbations, fewer are averaged


class GaussianProcess:
    """Fitted to the training perturbations of a screen.

    Settings are chosen, a matter of seconds, or those that `run` keeps of an earlier choice.
    """

    def __init__(self, screen: Screen, run: Run | None = None) -> None:
        self.targets = screen
        self.learned = screen.rows(TRAIN)
        self.names = [str(name) for name in screen.perturbations[self.learned]]
        self.together = numbered(self.names)
        self.transfer = Transfer(screen)
        told = self.transfer.of(self.names)
        self.delta = screen.denoised(self.learned)
        self.delta -= told  # the process learns what is left
        self.mean = self.delta.mean(axis=0)
        self.own = OwnChange(screen)
        self.settings = kept(run, screen, self._chosen)
        self.kernel = Kernel(screen, self.names)
        self.fits = [(setting, *self._solved(setting)) for setting in self.settings]
        self.common = self.mean + told.mean(axis=0)
        self.beyond, self.belief = self._believed(told)
        apart = self._left_out(self.together)
        apart += told
        apart = self._tempered(apart, mean_of_others(self.delta + told, self.together))
        self._each_left_out = self.own.put_in(apart, self.names)
        self.sets = Interactions(
            self.names, self.delta + told, self._each_left_out.astype(np.float64, copy=False)
        )
        if self.sets.shrinkage is not None:
            self._each_left_out[self.sets.rows] = self.sets.left_out(self.sets.shrinkage)

    @property
    def blocks(self) -> dict[str, float]:
        """How much each source of features tells of an effect, beside what all share."""
        found = dict.fromkeys(self.kernel.blocks, 0.0)
        for setting in self.settings:
            for name, weight in zip(found, self.kernel.mix(setting), strict=True):
                found[name] += float(setting.features * weight / len(self.settings))
        return found

    def loo(self) -> NDArray[np.float32]:
        """Return (P, N): each training perturbation predicted from the others."""
        return self._each_left_out.copy()

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return effects (Q, N), the same in every context; NaN where nothing is known."""
        del contexts
        known = self.targets.known(perturbations)
        effect = np.full((len(perturbations), self.delta.shape[1]), np.nan, np.float32)
        names = [name for name, has in zip(perturbations, known, strict=True) if has]
        if names:
            total = np.zeros((len(names), self.delta.shape[1]))
            for setting, weights, _ in self.fits:
                total += self._centre(setting) + self.kernel.across(names, setting)[0] @ weights
            total = total / len(self.fits) + self.transfer.of(names)
            effect[known] = self.own.put_in(self._tempered(total, self.common), names)
        together = self.sets.covers(perturbations)
        effect[together] = self.sets.predict([*itertools.compress(perturbations, together)])
        return effect

    def std(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return (Q, N): how far effects may lie from the prediction.

        Larger effects are missed by more: the process's own doubt, which knows of none of them, is
        raised by sqrt((1 + r^2) / 2), r the effect's size relative to those left out.
        """
        del contexts
        known = self.targets.known(perturbations)
        spread = np.full((len(perturbations), self.delta.shape[1]), np.nan, np.float32)
        names = [name for name, has in zip(perturbations, known, strict=True) if has]
        if not names:
            return spread
        left = np.square(self.delta + self.transfer.of(self.names) - self.loo()).mean(axis=0)
        share = []
        for setting, _, inverse in self.fits:
            across, alone = self.kernel.across(names, setting)
            variance = alone - ((across @ inverse) * across).sum(axis=1) + setting.noise
            share.append(variance * np.diag(inverse).mean())  # 1 at the average left-out one
        size = np.square(self.predict(names), dtype=np.float64).mean(axis=1)
        usual = max(float(np.square(self.loo(), dtype=np.float64).mean(axis=1).mean()), 1e-12)
        scale = np.sqrt(np.maximum(np.mean(share, axis=0), 0) * (1 + size / usual) / 2)
        spread[known] = scale[:, None] * np.sqrt(left)
        return spread

    def _centre(self, setting: KernelSettings) -> Array:
        return self.mean if setting.centred else np.zeros_like(self.mean)

    def _solved(self, setting: KernelSettings) -> tuple[Array, Array]:
        """Return the weights (P, N) and the inverse (P, P) of the noisy kernel."""
        inverse = noisy_inverse(self.kernel.of(setting), setting.noise)
        weights: Array = inverse @ (self.delta - self._centre(setting))
        return weights, inverse

    def _left_out(self, number: Numbers, rows: Numbers | None = None) -> Array:
        """Return what is said of some rows (all) without their groups, which have a number each."""
        about = self.delta - self.mean
        found = np.array(self.delta if rows is None else self.delta[rows])
        for setting, weights, inverse in self.fits:
            mean = about if setting.centred else None
            off = missed(inverse, weights, number, about=mean, rows=rows)
            off /= len(self.fits)
            found -= off
        return found

    def _tempered(self, effect: Array, common: Array) -> Array:
        """Return effects (Q, N) as far as they are believed: beyond what all share, and at all."""
        effect *= self.belief * self.beyond
        effect += self.belief * (1 - self.beyond) * common
        return effect

    def _believed(self, told: Array) -> tuple[float, float]:
        """Return the shares of `believed`: over the mean effect, and that over no change."""
        rows, fold = drawn(self.together)
        guess = self._left_out(fold, rows) + told[rows]
        real = self.delta[rows] + told[rows]
        mean = mean_of_others(self.delta + told, fold, rows)
        names = [self.names[row] for row in rows]
        context = self.targets.context[self.learned[rows]]
        return believed(real, mean, guess, fold, context, self.own, names)

    def _chosen(self) -> list[KernelSettings]:
        """Rank the settings by what they say of perturbations left out."""
        judge = _Settings(self.targets, self.delta, self.names)
        n_blocks = len(judge.kernel.blocks)
        mixes = _mixes(judge.telling(), n_blocks)
        if len(mixes) > _MIXES:
            ranked = dict.fromkeys(setting.mix for setting in judge.ranked(_coarse(mixes)))
            mixes = list(ranked)[:_MIXES]
        grid = _SINGLE if judge.kernel.apart else _GRID
        # as many of each mix: which mix is best is seldom known well enough to take no other
        most = min(_AVERAGED, max(_SOLVED // max(len(self.names), 1), 1))
        best = [judge.ranked([KernelSettings(*one, mix) for one in grid])[:most] for mix in mixes]
        return [one[i] for i in range(most) for one in best if i < len(one)][:most]


class _Settings:
    """Ranks settings by training perturbations, each left out in all contexts at once."""

    def __init__(self, screen: Screen, delta: Array, names: list[str]) -> None:
        self.judge = Judge(delta, screen.columns(names)[:, 0], _MOST, _GENES)
        self.graphs = set(screen.graph_names.tolist())
        self.mean = self.judge.real.mean(axis=0)
        some = [names[row] for row in self.judge.rows]
        self.kernel = Kernel(screen, some)
        self.together = numbered(some)

    def telling(self) -> list[int]:
        """Return the blocks to weigh: graphs only where they tell more of what is left out."""
        telling = self.kernel.telling
        others = [i for i in telling if self.kernel.blocks[i] not in self.graphs]
        if not others or others == telling:
            return telling
        n_blocks, graphs = len(self.kernel.blocks), set(telling) - set(others)
        with_graphs = [m for m in _mixes(telling, n_blocks) if any(m[i] for i in graphs)]
        without, joined = (
            self.judge.loss(self._left_out(self.ranked(_coarse(mixes))[0]))
            for mixes in (_mixes(others, n_blocks), with_graphs)
        )
        return telling if joined < without else others

    def ranked(self, settings: Sequence[KernelSettings]) -> list[KernelSettings]:
        """Return the best settings, the best first, by error, correlation and discrimination."""
        found: list[tuple[float, int, Array]] = []
        for number, setting in enumerate(settings):
            guess = self._left_out(setting)
            found.append((self.judge.error(guess), number, guess))
            if len(found) > 2 * _JUDGED:
                found = sorted(found, key=lambda one: one[:2])[:_JUDGED]
        best = sorted(found, key=lambda one: one[:2])[:_JUDGED]
        judged = [(self.judge.loss(guess), number) for _, number, guess in best]
        return [settings[number] for _, number in sorted(judged)]

    def _left_out(self, setting: KernelSettings) -> Array:
        inverse = noisy_inverse(self.kernel.of(setting), setting.noise)
        about = self.judge.real - self.mean * setting.centred
        mean = about if setting.centred else None
        off = missed(inverse, inverse @ about, self.together, about=mean)
        return np.asarray(self.judge.real - off)


def _mixes(telling: Sequence[int], n_blocks: int) -> list[tuple[float, ...]]:
    """Return weights of blocks to try: each alone, each pair, all; of blocks that tell anything."""
    pairs = list(itertools.combinations(telling, 2)) if len(telling) <= _PAIRED else []
    groups = [*((one,) for one in telling), *pairs, *([tuple(telling)] if len(telling) > 2 else [])]
    return [tuple(float(i in group) / len(group) for i in range(n_blocks)) for group in groups] or [
        (0.0,) * n_blocks
    ]


def _coarse(mixes: Sequence[tuple[float, ...]]) -> list[KernelSettings]:
    return [KernelSettings(*one, mix) for mix in mixes for one in _COARSE]


@dataclass(frozen=True)
class GpModel:
    """The kind of model, by name."""

    summary: str = "Gaussian process over sets of targets, in closed form"

    def fit(self, run: Run, screen: Screen) -> bool:
        """Choose the settings, which the run keeps; the rest is solved when it is loaded."""
        GaussianProcess(screen, run)
        return True

    def load(self, run: Run | None, screen: Screen) -> GaussianProcess:
        """Solve it."""
        return GaussianProcess(screen, run)


gp = GpModel()
