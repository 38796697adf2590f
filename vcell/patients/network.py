"""The classifier: from bulk expression to an outcome, by modalities learnt from single cells.

Each modality has a predictor, which gets bulk only, and a teacher, which gets the modality and is
needed in training only. Both output mean and variance of a few latent dimensions. Means are fused
with weights 1/variance, and a linear layer predicts the outcome. In training:

- cross entropy of the outcome from the fused predictors, and from the fused teachers;
- the squared error of the modality decoded from its predictor's latent;
- KL of the latents to N(0, 1), so that variances are meaningful;
- InfoNCE between predictor and teacher of a modality, over the patients of the training set.

B training patients, D bulk features, L latent dimensions, M modalities, C outcomes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from vcell.patients.features import Fitted

    Array = NDArray[Any]

BULK = "bulk"  # a predictor without a teacher: information in bulk beyond the modalities
_TEMPERATURE = 0.2  # of InfoNCE


@dataclass(frozen=True, kw_only=True)
class BulkSettings:
    """Settings of one network.

    Attributes
    ----------
    modalities
        Modalities to use, with or without `BULK`.
    fusion
        "uncertainty": weights 1/variance; "mean": equal weights.
    teacher, reconstruction, kl, contrast
        Weights of the terms besides the outcome's cross entropy.
    """

    modalities: tuple[str, ...]
    width: int = 32
    latent: int = 8
    dropout: float = 0.2
    noise: float = 0.3  # standard deviation added to standardised bulk features in training
    lr: float = 3e-3
    weight_decay: float = 0.05
    fusion: str = "uncertainty"
    teacher: float = 0.5
    reconstruction: float = 0.5
    kl: float = 0.01
    contrast: float = 0.1


class Layers(nn.Module):
    """A linear layer for each of several modalities, as one batched product.

    Inputs are zero-padded to one width; the weights of padding are never used.
    """

    def __init__(self, widths: Sequence[int], out: int) -> None:
        super().__init__()
        most = max(widths)
        reach = torch.tensor([max(w, 1) ** -0.5 for w in widths])[:, None, None]
        self.weight = nn.Parameter((2 * torch.rand(len(widths), most, out) - 1) * reach)
        self.bias = nn.Parameter((2 * torch.rand(len(widths), 1, out) - 1) * reach)

    def forward(self, x: Tensor) -> Tensor:
        """Map (M, B, width) to (M, B, out)."""
        return torch.baddbmm(self.bias, x, self.weight)


class Gaussians(nn.Module):
    """From features (M, B, width) of each modality to means and log variances (M, B, L)."""

    def __init__(self, widths: Sequence[int], settings: BulkSettings) -> None:
        super().__init__()
        self.first = Layers(widths, settings.width)
        self.second = Layers([settings.width] * len(widths), 2 * settings.latent)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances, each (M, B, L)."""
        hidden = self.dropout(functional.gelu(self.first(x)))
        mean, log_variance = self.second(hidden).chunk(2, dim=2)
        return mean, log_variance.clamp(-6, 6)


class BulkNet(nn.Module):
    """All predictors and teachers, and the outcome's layer; a bulk predictor comes last."""

    def __init__(
        self, d: int, widths: dict[str, int], outcomes: int, settings: BulkSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.taught = [n for n in settings.modalities if n in widths]
        self.names = [*self.taught, *([BULK] if BULK in settings.modalities else [])]
        self.widths = [widths[n] for n in self.taught]
        self.predictors = Gaussians([d] * len(self.names), settings)
        if self.taught:
            self.teachers = Gaussians(self.widths, settings)
            self.decoders = Layers([settings.latent] * len(self.taught), max(self.widths))
            seen = torch.arange(max(self.widths)) < torch.tensor(self.widths)[:, None]
            # (M, 1, width): weights for the mean over a modality's features, then over modalities
            share = seen / seen.sum(1, keepdim=True) / len(self.taught)
            self.register_buffer("share", share[:, None], persistent=False)
        self.read = nn.Linear(settings.latent, outcomes)

    def padded(self, views: dict[str, Tensor]) -> Tensor:
        """Return the padded features (M, E, width) of each modality."""
        most = max(self.widths)
        return torch.stack(
            [functional.pad(views[n], (0, most - views[n].shape[1])) for n in self.taught]
        )

    def fused(
        self, means: Tensor, log_variances: Tensor, noise: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return fused latents (B, L), and the weight of each modality (B, M)."""
        if noise is not None:
            drawn = torch.randn(means.shape, generator=noise)
            means = means + torch.exp(0.5 * log_variances) * drawn
        if self.settings.fusion == "mean":
            log_variances = torch.zeros_like(log_variances)
        weights = torch.softmax(-log_variances, 0)
        return (weights * means).sum(0), weights.mean(2).T

    def _by_bulk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.predictors(x.expand(len(self.names), *x.shape))
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and weights (B, M), from bulk alone."""
        fused, weights = self.fused(*self._by_bulk(x), None)
        return self.read(fused), weights

    def loss(self, x: Tensor, views: Tensor | None, outcome: Tensor, noise: Any) -> Tensor:
        """Return the objective of training patients; `views` are padded (M, B, width)."""
        settings, m = self.settings, len(self.names)
        means, log_variances = self._by_bulk(x)
        fused = self.fused(means, log_variances, noise)[0]
        total: Tensor = functional.cross_entropy(self.read(fused), outcome)
        total = total + settings.kl / m * _apart(means, log_variances)
        if views is None:
            return total
        own, own_log = self.teachers(views)
        total = total + settings.kl / m * _apart(own, own_log)
        if settings.teacher:
            read_out = self.read(self.fused(own, own_log, noise)[0])
            total = total + settings.teacher * functional.cross_entropy(read_out, outcome)
        predicted = means[: len(self.taught)]
        error = (self.decoders(predicted) - views).square() * self.share
        total = total + settings.reconstruction * error.sum() / len(x)
        if settings.contrast:
            total = total + settings.contrast * info_nce(predicted, own)
        return total


def _apart(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the mean over patients of KL to N(0, 1), summed over modalities."""
    apart = mean.square() + log_variance.exp() - 1 - log_variance
    return apart.sum() / (2 * mean.shape[1])


def info_nce(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean cross entropy of identifying a patient's view among those of all patients.

    Inputs are (M, B, L) each; the mean is over modalities and both directions.
    """
    a, b = functional.normalize(one, dim=2), functional.normalize(other, dim=2)
    logits = torch.bmm(a, b.transpose(1, 2)) / _TEMPERATURE
    own = torch.arange(a.shape[1]).repeat(len(a))
    there = functional.cross_entropy(logits.flatten(0, 1), own)
    back = functional.cross_entropy(logits.transpose(1, 2).flatten(0, 1), own)
    return (there + back) / 2


def trained(
    fitted: Fitted,
    outcome: NDArray[np.int64],
    outcomes: int,
    settings: BulkSettings,
    *,
    steps: Sequence[int],
    seed: int,
    tests: Array,
) -> tuple[BulkNet, list[Array], Array]:
    """Train on all training patients at once; each step sees one example of each.

    There are at most a few hundred patients, and a cross-validation has a hundred such fits of a
    second each: the shared loop, with a run and checkpoints for each, would cost more than it
    gains. Runs are saved and resumed by outer fold.

    Parameters
    ----------
    outcome
        ``[B]`` outcomes of the training patients.
    steps
        Numbers of steps after which to predict, ascending; the last ends the training.
    tests
        ``[T, D]`` bulk features of patients that are not trained on.

    Returns
    -------
    model, logits, weights
        The network; logits (T, C) at each of `steps`; weights (T, M) at the end.
    """
    with torch.random.fork_rng(devices=[]), one_thread():  # torch's global state is unchanged
        torch.manual_seed(seed)
        widths = {n: v.shape[1] for n, v in fitted.modalities.items()}
        model = BulkNet(fitted.x.shape[1], widths, outcomes, settings)
        draw = np.random.default_rng((seed, 0xD2A))
        noise = torch.Generator().manual_seed(seed)
        x = torch.from_numpy(fitted.x).float()
        views = {n: torch.from_numpy(v).float() for n, v in fitted.modalities.items()}
        every = model.padded(views) if model.taught else None
        y, held = torch.from_numpy(outcome), torch.from_numpy(tests).float()
        order = np.argsort(fitted.of, kind="stable")  # groups the examples of each patient
        number = np.bincount(fitted.of, minlength=len(outcome))
        first = np.cumsum(number) - number
        biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
        weights_ = [p for name, p in model.named_parameters() if not name.endswith("bias")]
        groups = [{"params": weights_, "weight_decay": settings.weight_decay},
                  {"params": biases, "weight_decay": 0.0}]  # fmt: skip
        optimiser = torch.optim.AdamW(groups, lr=settings.lr, fused=True)
        found = []
        for step in range(1, max(steps) + 1):
            model.train()
            rows = torch.from_numpy(order[first + draw.integers(0, number)])
            seen = x[rows]
            seen = seen + settings.noise * torch.randn(seen.shape, generator=noise)
            loss = model.loss(seen, None if every is None else every[:, rows], y, noise)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if step in steps:
                logits, weights = predicted(model, held)
                found.append(logits)
    return model, found, weights


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: products of fifty rows finish before a second one starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def predicted(model: BulkNet, x: Tensor) -> tuple[Array, Array]:
    """Return logits (T, C) and weights of modalities (T, M) from bulk features."""
    model.eval()
    logits, weights = model(x)
    return logits.double().numpy(), weights.double().numpy()
