"""The closed form of gp against refits: what is left out is known to nothing, nor to the mean."""

from __future__ import annotations

import numpy as np
import pytest
from vcell_train_vcc.gp import GaussianProcess, Setting

from vcell.models import Screen


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    names = np.array([*"ABCDEFGH", "A+B", "C+D", "B+E"])
    p, n = len(names), 12
    return GaussianProcess(
        Screen(
            genes=np.array([f"g{i}" for i in range(n)]),
            contexts=np.array(["all"]),
            control=np.ones((1, n), np.float32),
            perturbations=names,
            context=np.zeros(p, np.int64),
            part=np.zeros(p, np.int8),
            cells=np.full(p, 50),
            delta=(1 + rng.normal(size=(p, n))).astype(np.float32),
            noise=np.full(p, 0.01, np.float32),
            feature_genes=np.array(list("ABCDEFGH")),
            features=rng.normal(size=(8, 3)).astype(np.float32),
            target_sum=1e4,
        )
    )


@pytest.mark.parametrize("centred", [True, False])
def test_leaving_one_out_equals_learning_without_it(fitted, centred):
    setting = Setting(0, 0.0, 0.3, 0.3, 1.0, 0.1, centred)
    closed = fitted._left_out(setting, *fitted._solved(setting))
    kernel, delta = fitted.kernel.of(setting), fitted.delta
    for i in range(len(delta)):
        rest = np.delete(np.arange(len(delta)), i)
        mean = delta[rest].mean(axis=0) * centred
        noisy = kernel[np.ix_(rest, rest)] + setting.noise * np.eye(len(rest))
        refit = mean + kernel[i, rest] @ np.linalg.solve(noisy, delta[rest] - mean)
        np.testing.assert_allclose(closed[i], refit, atol=1e-9)
