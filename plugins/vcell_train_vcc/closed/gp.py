"""A Gaussian process over sets of target genes, in closed form: the prior of the networks.

The similarity of the effects of two perturbations S and T is

    k(S, T) = c + z |S| |T| + sum over i in S, j in T of [ a (i = j) + b f(i, j) ]

where f is the similarity of the genes' features (`kernel`), a sum over blocks such as expression,
GO and Reactome. Each block is weighted by how well it predicts left-out perturbations. Graphs of
genes are blocks too, used only if they improve these predictions.
Special cases are the mean effect, ridge regression on the features, and the additive rule for
pairs. Leave-one-out predictions are computed in closed form and rank the settings by error,
correlation and discrimination together. The best settings are averaged, since the data seldom show
which one is right. A perturbation is left out in all contexts at once. The mean effect, and the
prediction beyond it, are shrunk by factors estimated from left-out effects, down to 0.
A target among the measured genes changes as training targets did (`OwnChange`).
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
    if setting[3] + setting[4] > 0 and (setting[4] > 0 or setting[0] == 0)  # no width if b = 0
)  # fmt: skip
_COARSE = tuple(  # settings at which the weights of blocks are compared
    itertools.product((0, 1), (0.3,), (0.0,), (0.0, 0.3), (0.3, 1.0, 3.0), (0.1, 0.3, 1.0), (True,))
)
# where each perturbation has a single target of its own, sizes and common targets add nothing
_SINGLE = tuple(one for one in _GRID if one[2] == 0 and one[3] == (0.0 if one[4] else 0.3))
_MIXES = 2  # the best block weights at the coarse settings; only these go through the whole grid
_JUDGED = 60  # best settings by error and correlation, for which discrimination is computed
_AVERAGED = 20
_GENES = 1000  # most variable genes, which rank the settings
_MOST = 250  # perturbations that rank the settings
_PAIRED = 5  # pairs of blocks are tried only up to this many blocks
_SOLVED = 10_000  # perturbations times averaged settings, to limit memory and time


class GaussianProcess:
    """A process fitted to the training perturbations of a screen.

    Its settings are those saved in `run`, or chosen anew, which takes seconds.
    """

    def __init__(self, screen: Screen, run: Run | None = None) -> None:
        self.targets = screen
        self.learned = screen.rows(TRAIN)
        self.names = [str(name) for name in screen.perturbations[self.learned]]
        self.together = numbered(self.names)
        self.transfer = Transfer(screen)
        transferred = self.transfer.of(self.names)
        self.delta = screen.denoised(self.learned)
        self.delta -= transferred  # the process learns the residual
        self.mean = self.delta.mean(axis=0)
        self.own = OwnChange(screen)
        self.settings = kept(run, screen, self._chosen)
        self.kernel = Kernel(screen, self.names)
        self.common = self.mean + transferred.mean(axis=0)
        rows, fold = drawn(self.together)
        guess, left_out = self._solve((fold, rows), (self.together, None))
        self.beyond, self.belief = self._shrinkage(transferred, guess, rows, fold)
        del guess
        left_out += transferred
        left_out = self._shrunk(left_out, mean_of_others(self.delta + transferred, self.together))
        self._each_left_out = self.own.put_in(left_out, self.names)
        self.sets = Interactions(
            self.names, self.delta + transferred, self._each_left_out.astype(np.float64, copy=False)
        )
        if self.sets.shrinkage is not None:
            self._each_left_out[self.sets.rows] = self.sets.left_out(self.sets.shrinkage)

    @property
    def blocks(self) -> dict[str, float]:
        """Weight of each source of features in the prediction, beyond the mean effect."""
        found = dict.fromkeys(self.kernel.blocks, 0.0)
        for setting in self.settings:
            for name, weight in zip(found, self.kernel.mix(setting), strict=True):
                found[name] += float(setting.features * weight / len(self.settings))
        return found

    def loo(self) -> NDArray[np.float32]:
        """Return the leave-one-out predictions of the training perturbations (P, N)."""
        return self._each_left_out.copy()

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return effects (Q, N), the same in every context; NaN where no target has features."""
        del contexts
        known = self.targets.known(perturbations)
        effect = np.full((len(perturbations), self.delta.shape[1]), np.nan, np.float32)
        names = [name for name, has in zip(perturbations, known, strict=True) if has]
        if names:
            # each setting says centre + reach (delta - centre): the sum needs one large product
            reach, centres = np.zeros((len(names), len(self.delta))), np.zeros((len(names), 1))
            for setting, inverse in self.fits:
                own = self.kernel.across(names, setting)[0] @ inverse
                reach += own
                if setting.centred:
                    centres += 1 - own.sum(axis=1, keepdims=True)
            total = reach @ self.delta
            total += centres * self.mean
            total = total / len(self.fits) + self.transfer.of(names)
            effect[known] = self.own.put_in(self._shrunk(total, self.common), names)
        together = self.sets.covers(perturbations)
        effect[together] = self.sets.predict([*itertools.compress(perturbations, together)])
        return effect

    def std(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the standard deviations of the predictions (Q, N).

        Errors grow with the size of the effect, which the variance of the process ignores. It is
        therefore multiplied by (1 + r^2) / 2, r the predicted size relative to the left-out ones.
        """
        del contexts
        known = self.targets.known(perturbations)
        spread = np.full((len(perturbations), self.delta.shape[1]), np.nan, np.float32)
        names = [name for name, has in zip(perturbations, known, strict=True) if has]
        if not names:
            return spread
        left = np.square(self.delta + self.transfer.of(self.names) - self.loo()).mean(axis=0)
        share = []
        for setting, inverse in self.fits:
            across, alone = self.kernel.across(names, setting)
            variance = alone - ((across @ inverse) * across).sum(axis=1) + setting.noise
            share.append(variance * np.diag(inverse).mean())  # the mean over left-out ones is 1
        size = np.square(self.predict(names), dtype=np.float64).mean(axis=1)
        usual = max(float(np.square(self.loo(), dtype=np.float64).mean(axis=1).mean()), 1e-12)
        scale = np.sqrt(np.maximum(np.mean(share, axis=0), 0) * (1 + size / usual) / 2)
        spread[known] = scale[:, None] * np.sqrt(left)
        return spread

    def _solve(self, *groupings: tuple[Numbers, Numbers | None]) -> list[Array]:
        """Invert the noisy kernels, and predict rows (None: all), each without its group.

        A grouping is the groups of the rows, and the rows. Weights of the training effects (P, N)
        are not kept: those of all settings would be most of the memory.
        """
        about = self.delta - self.mean
        found = [
            np.array(self.delta if rows is None else self.delta[rows]) for _, rows in groupings
        ]
        self.fits = []
        for setting in self.settings:
            inverse = noisy_inverse(self.kernel.of(setting), setting.noise)
            weights = inverse @ (about if setting.centred else self.delta)
            mean = about if setting.centred else None
            for predicted, (number, rows) in zip(found, groupings, strict=True):
                off = missed(inverse, weights, number, about=mean, rows=rows)
                off /= len(self.settings)
                np.subtract(predicted, off, out=predicted)
            self.fits.append((setting, inverse))
        return found

    def _shrunk(self, effect: Array, common: Array) -> Array:
        """Return effects (Q, N) shrunk to the common effect, and then to no change."""
        effect *= self.belief * self.beyond
        effect += self.belief * (1 - self.beyond) * common
        return effect

    def _shrinkage(
        self, transferred: Array, guess: Array, rows: Numbers, fold: Numbers
    ) -> tuple[float, float]:
        """Return the two factors of `_shrunk`, estimated by `vcell.models.belief`."""
        guess += transferred[rows]
        real = self.delta[rows] + transferred[rows]
        mean = mean_of_others(self.delta + transferred, fold, rows)
        names = [self.names[row] for row in rows]
        context = self.targets.context[self.learned[rows]]
        return believed(real, mean, guess, fold, context, self.own, names)

    def _chosen(self) -> list[KernelSettings]:
        """Rank the settings by their predictions of left-out perturbations."""
        judge = _Settings(self.targets, self.delta, self.names)
        n_blocks = len(judge.kernel.blocks)
        mixes = _mixes(judge.telling(), n_blocks)
        if len(mixes) > _MIXES:
            ranked = dict.fromkeys(setting.mix for setting in judge.ranked(_coarse(mixes)))
            mixes = list(ranked)[:_MIXES]
        grid = _SINGLE if judge.kernel.apart else _GRID
        # as many of each mix, since it is seldom clear which mix is best
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
        """Return the blocks to weight; graphs are among them only if they improve predictions."""
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
        """Return the best settings, best first, by error, correlation and discrimination."""
        found: list[tuple[float, int, Array]] = []
        for number, setting in enumerate(settings):
            guess = self._left_out(setting)
            found.append((self.judge.error(guess), number, guess))
            found = sorted(found, key=lambda one: one[:2])[:_JUDGED]
        judged = [(self.judge.loss(guess), number) for _, number, guess in found]
        return [settings[number] for _, number in sorted(judged)]

    def _left_out(self, setting: KernelSettings) -> Array:
        inverse = noisy_inverse(self.kernel.of(setting), setting.noise)
        about = self.judge.real - self.mean * setting.centred
        mean = about if setting.centred else None
        off = missed(inverse, inverse @ about, self.together, about=mean)
        return np.asarray(self.judge.real - off)


def _mixes(telling: Sequence[int], n_blocks: int) -> list[tuple[float, ...]]:
    """Return block weights to try: each block alone, each pair, and all of them."""
    pairs = list(itertools.combinations(telling, 2)) if len(telling) <= _PAIRED else []
    groups = [*((one,) for one in telling), *pairs, *([tuple(telling)] if len(telling) > 2 else [])]
    return [tuple(float(i in group) / len(group) for i in range(n_blocks)) for group in groups] or [
        (0.0,) * n_blocks
    ]


def _coarse(mixes: Sequence[tuple[float, ...]]) -> list[KernelSettings]:
    return [KernelSettings(*one, mix) for mix in mixes for one in _COARSE]


@dataclass(frozen=True)
class GpModel:
    """The model `gp`."""

    summary: str = "Gaussian process over sets of targets, in closed form"

    def fit(self, run: Run, screen: Screen) -> bool:
        """Choose the settings, which are saved in the run; the rest is solved on loading."""
        GaussianProcess(screen, run)
        return True

    def load(self, run: Run | None, screen: Screen) -> GaussianProcess:
        """Solve the process."""
        return GaussianProcess(screen, run)


gp = GpModel()
