"""The tensors' PDS and MAE are the arrays'."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.metrics import vcc2025

torch = pytest.importorskip("torch")
tensors = pytest.importorskip("vcell.metrics.torch")


def effects(seed: int, p: int = 12, g: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(p, g))
    pred = 0.5 * real + 0.3 * rng.normal(size=(p, g))
    target = rng.integers(-1, g, p)
    return real, pred, target


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_distances_and_pds_agree(metric, seed):
    real, pred, target = effects(seed)
    mine = vcc2025.distances(real, pred, target, metric)
    theirs = tensors.distances(
        torch.from_numpy(real), torch.from_numpy(pred), torch.from_numpy(target), metric
    )
    np.testing.assert_allclose(theirs.numpy(), mine, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        tensors.discrimination(theirs).numpy(), vcc2025.discrimination(mine), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mae_agrees_and_has_a_gradient(dtype):
    real, pred, _ = (x.astype(dtype) for x in effects(4))
    guess = torch.from_numpy(pred).requires_grad_()
    error = tensors.absolute_error(torch.from_numpy(real), guess)
    expected = vcc2025.absolute_error(real.astype(float), pred.astype(float))
    np.testing.assert_allclose(error.detach().numpy(), expected, rtol=1e-12)
    error.sum().backward()
    sign = np.sign(pred - real) / real.shape[1]
    np.testing.assert_allclose(guess.grad.numpy(), sign, rtol=1e-6)


def test_effects_that_are_all_alike_share_the_middle_rank():
    distance = torch.ones(10, 10, dtype=torch.float64)
    assert (tensors.discrimination(distance) == 1 - 4.5 / 10).all()
    assert (vcc2025.discrimination(distance.numpy()) == 1 - 4.5 / 10).all()
