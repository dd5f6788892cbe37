"""Multiple-instance learning: one answer for a study of any number of images, and what each image had to do with it.

Every image gets an embedding and an answer of its own; the pooling weighs these answers into that of the study. So a
study of one image has the answer of that image, the weights say which view drove the score, and heat maps are made of
the answers of single images. Order and padding change nothing. Sources: Ilse, Tomczak & Welling, ICML 2018 (attention,
gated attention); Pinheiro & Collobert, CVPR 2015 (log-sum-exp); Maron & Lozano-Perez, NIPS 1997 (noisy-or).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from wetread.errors import BundleRefused, UsageError, expected
from wetread.models.backbones import embedding_width, make_encoder
from wetread.models.card import ReaderCard, StudySpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.models.predict import Reader, probabilities_of

__all__ = [
    "Embedded",
    "Pooled",
    "StudyForward",
    "StudyNetwork",
    "StudyPool",
    "StudyReader",
    "ViewHead",
    "build_study_network",
    "padded",
    "position_numbers",
    "study_network_of",
]

_FLAT_STD = 1e-3
"""Added to the standard deviation of a feature, so that one that never changes is not blown up."""
_HIDDEN_POSITION = 0.2
"""Share of images whose view is not told in training, so that the layer for unknown views learns too."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a batch of B studies with at most N images gave.

    ``logits``: (B, outputs). ``weights``: (B, N, outputs), how much each image counted for each output; they add up to
    1 over the images of a study and are 0 for padding. ``views``: (B, N, outputs), the logits of single images.
    """

    logits: Tensor
    weights: Tensor
    views: Tensor


def padded(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Turn (M, F), the images of all studies in a row, into (B, N, F) with zeros, and the mask bool (B, N).

    Raises:
        UsageError: a study without images, or lengths that do not add up to M.
    """
    if not lengths or min(lengths) < 1 or sum(lengths) != len(values):
        raise UsageError(
            expected(f"studies of 1 image or more, {len(values)} in all", list(lengths)[:5], "leave empty studies out")
        )
    rows = nn.utils.rnn.pad_sequence(list(values.split(list(lengths))), batch_first=True)
    number = torch.arange(rows.shape[1], device=values.device)
    return rows, number[None, :] < torch.tensor(lengths, device=values.device)[:, None]


class ViewHead(nn.Module):
    """From the embeddings of images to their answers; one hidden layer for all views, or one for each.

    ``mean`` and ``std`` (D,) standardise the embeddings; they are those of the training images, not learned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: StudySpec, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.width = spec.hidden or width
        self.layers = nn.ModuleList(_layer(width, spec.hidden, dropout) for _ in range(1 + len(spec.positions)))
        self.classifier = nn.Linear(self.width, outputs)
        nn.init.normal_(self.classifier.weight, std=0.25 / self.width**0.5)  # near-even odds at the start
        nn.init.zeros_(self.classifier.bias)

    def standardise(self, embeddings: NDArray[np.float32], *, learning: bool = False) -> None:
        """Take mean and standard deviation from training embeddings (N, D).

        ``learning``: the encoder will learn, and features that hardly varied will move. Divided by what they varied
        before, that would be hundreds of standard deviations: no feature is then enlarged more than the median one.
        """
        spread = embeddings.std(0)
        if learning:
            spread = np.maximum(spread, np.median(spread))
        self.mean.copy_(torch.from_numpy(embeddings.mean(0)))
        self.std.copy_(torch.from_numpy(spread) + _FLAT_STD)

    def hidden(self, embeddings: Tensor, positions: Tensor | None = None) -> Tensor:
        """Map (M, D) to (M, H); ``positions``: (M,) number of the layer of each image, None or 0 for unknown views."""
        scaled = (embeddings - self.mean) / self.std
        if len(self.layers) == 1 or positions is None:
            return cast(Tensor, self.layers[0](scaled))
        if self.training:
            positions = torch.where(torch.rand(len(positions)) < _HIDDEN_POSITION, 0, positions)
        each = torch.stack([layer(scaled) for layer in self.layers])  # (layers, M, H)
        return each[positions, torch.arange(len(scaled))]

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (M, D) to the logits of single images, (M, outputs)."""
        return cast(Tensor, self.classifier(self.hidden(embeddings)))


class _OneView(nn.Module):
    """The head with the layer of one view position."""

    def __init__(self, head: ViewHead, position: int) -> None:
        super().__init__()
        self.head = head
        self.position = position

    def forward(self, embeddings: Tensor) -> Tensor:
        positions = torch.full((len(embeddings),), self.position, dtype=torch.int64)
        return cast(Tensor, self.head.classifier(self.head.hidden(embeddings, positions)))


def _layer(width: int, hidden: int, dropout: float) -> nn.Module:
    if not hidden:
        return nn.Dropout(dropout)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))


class StudyPool(nn.Module):
    """From the answers of the images of a study to that of the study.

    ``mean`` and the two attentions are weighted means of logits, which for a linear classifier is the classifier on
    the weighted mean of features (Ilse et al. 2018, eq. 7-9). ``max``: the largest logit of each output.
    ``log-sum-exp``: (1/r) log mean exp(r s), between the two. ``noisy-or``: 1 - prod(1 - p).
    """

    def __init__(self, spec: StudySpec, width: int) -> None:
        super().__init__()
        self.pooling = spec.pooling
        self.sharpness = spec.sharpness
        self.attends = spec.pooling in ("attention", "gated-attention")
        if self.attends:
            self.look = nn.Linear(width, spec.attention)
            self.score = nn.Linear(spec.attention, 1, bias=False)  # a bias would not change a softmax
        if spec.pooling == "gated-attention":
            self.gate = nn.Linear(width, spec.attention)

    def forward(self, hidden: Tensor, views: Tensor, mask: Tensor) -> Pooled:
        """Pool the answers ``views`` (B, N, outputs) of images with features ``hidden`` (B, N, H).

        ``mask``: bool (B, N), False for padding.
        """
        shown = mask[..., None]
        if self.pooling == "noisy-or":
            return _noisy_or(views, shown)
        count = shown.sum(1, keepdim=True)
        if self.attends:
            weights = self._attention(hidden).masked_fill(~shown, -torch.inf).softmax(1).expand_as(views)
        elif self.pooling == "mean":
            weights = (shown / count).expand_as(views)
        elif self.pooling == "max":
            covered = views.masked_fill(~shown, -torch.inf)
            best = (covered == covered.amax(1, keepdim=True)).to(views.dtype)
            weights = best / best.sum(1, keepdim=True)  # images that tie share the weight: order says nothing
        else:
            sharp = (self.sharpness * views).masked_fill(~shown, -torch.inf)
            logits = (sharp.logsumexp(1) - count[:, 0].log()) / self.sharpness
            return Pooled(logits, sharp.softmax(1), views)
        return Pooled((weights * views).sum(1), weights, views)

    def _attention(self, hidden: Tensor) -> Tensor:
        looked = self.look(hidden).tanh()
        if self.pooling == "gated-attention":
            looked = looked * self.gate(hidden).sigmoid()
        return cast(Tensor, self.score(looked))  # (B, N, 1)


def _noisy_or(views: Tensor, shown: Tensor) -> Pooled:
    """Logit of 1 - prod(1 - p): with t = sum softplus(s), which is -log of the product, it is log(exp(t) - 1)."""
    parts = F.softplus(views) * shown  # -log(1 - p) of each image
    total = parts.sum(1)
    logits = total + torch.log(-torch.expm1(-total))
    return Pooled(logits, parts / total[:, None], views)


class StudyNetwork(Network):
    """An encoder, the head that answers for single images, and the pooling; as a :class:`Network` it reads images."""

    def __init__(self, encoder: nn.Module, head: ViewHead, pool: StudyPool, spatial: bool = True) -> None:
        super().__init__(encoder, head, spatial)
        self.pool = pool

    def at(self, position: int) -> Network:
        """The same network as it reads a single image of one view position: by that view's layer."""
        head = cast(ViewHead, self.head)
        return self if len(head.layers) == 1 else Network(self.encoder, _OneView(head, position), self.spatial)

    def study(self, embeddings: Tensor, lengths: Sequence[int], positions: Tensor | None = None) -> Pooled:
        """Judge B studies: ``embeddings`` (M, D) of all images in a row, ``lengths`` images for each study."""
        head = cast(ViewHead, self.head)
        flat = head.hidden(embeddings, positions)
        hidden, mask = padded(flat, lengths)
        views, _ = padded(head.classifier(flat), lengths)
        return cast(Pooled, self.pool(hidden, views, mask))


def build_study_network(
    card_like: tuple[str, StudySpec], encoder: nn.Module, outputs: int, dropout: float
) -> StudyNetwork:
    """Put head and pooling with random weights on ``encoder``; ``card_like``: architecture and specification."""
    architecture, spec = card_like
    head = ViewHead(spec, embedding_width(encoder), outputs, dropout)
    return StudyNetwork(encoder, head, StudyPool(spec, head.width), spatial=architecture != "pixels")


def study_network_of(card: ReaderCard) -> StudyNetwork:
    """Build the network that a card of a study reader describes, to be given the bundle's weights.

    Raises:
        BundleRefused: the card is that of a reader of single images.
    """
    spec = _spec_of(card)
    encoder = make_encoder(card.architecture, card.input, lean=True)
    return build_study_network((card.architecture, spec), encoder, len(card.labels), card.head.dropout)


def _spec_of(card: ReaderCard) -> StudySpec:
    if card.study is None:
        raise BundleRefused(
            expected("a reader of studies", f"{card.name}, a reader of single images", "train with --level study")
        )
    return card.study


def position_numbers(views: Sequence[object], positions: Sequence[str]) -> NDArray[np.int64]:
    """Number of the layer of each image (M,): its view's place in ``positions`` counted from 1, 0 for others."""
    places = {name: number for number, name in enumerate(positions, 1)}
    return np.array([places.get(str(view).upper(), 0) for view in views], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Images as the networks keep them: ``vectors`` float32 (M, K, D), K 1 where all networks have one encoder.

    ``distances``: (M,) from the training features, or None without a gate.
    """

    vectors: NDArray[np.float32]
    distances: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class StudyForward:
    """The answer for one study of n images, before temperature.

    ``logits``: (outputs,). ``weights``: (n, outputs), adding up to 1 over the images. ``views``: (n, outputs), the
    logits of single images. All are means over the networks.
    """

    logits: NDArray[np.float32]
    weights: NDArray[np.float32]
    views: NDArray[np.float32]


class StudyReader:
    """A reader of studies: embeds images a few at a time, keeps their vectors alone, and judges a study of any size."""

    def __init__(self, reader: Reader) -> None:
        self.spec = _spec_of(reader.card)
        self.reader = reader
        self.card = reader.card
        self.networks = cast("tuple[StudyNetwork, ...]", reader.networks)

    def embed(self, batch: Tensor) -> Embedded:
        """Embed float32 (N, 1, height, width) in [0, 1], as ``reader.prepare`` gives."""
        used = self.networks[:1] if self.spec.one_encoder else self.networks
        with torch.inference_mode():
            shown = normalise(batch, self.reader.input)
            vectors = [network.embed(network.features(shown)) for network in used]
        stacked = torch.stack(vectors, 1).numpy()  # (N, K, D)
        statistics = self.reader.statistics
        return Embedded(stacked, None if statistics is None else statistics.distances(stacked[:, 0]))

    def judge(self, vectors: NDArray[np.float32], views: Sequence[object] = ()) -> StudyForward:
        """Judge one study from the vectors (n, K, D) of its images; ``views``: the view position of each, if known.

        Raises:
            UsageError: no image.
        """
        positions = None
        if self.spec.positions and len(views):
            positions = torch.from_numpy(position_numbers(views, self.spec.positions))
        found = []
        with torch.inference_mode():
            for number, network in enumerate(self.networks):
                part = np.ascontiguousarray(vectors[:, min(number, vectors.shape[1] - 1)])
                found.append(network.study(torch.from_numpy(part), [len(part)], positions))
        return StudyForward(
            torch.stack([one.logits[0] for one in found]).mean(0).numpy(),
            torch.stack([one.weights[0] for one in found]).mean(0).numpy(),
            torch.stack([one.views[0] for one in found]).mean(0).numpy(),
        )

    def reader_of_view(self, view: str | None) -> Reader:
        """The reader of single images of one view position, whose heat maps explain a view of a study."""
        number = int(position_numbers([view], self.spec.positions)[0]) if self.spec.positions else 0
        return Reader(self.card, [network.at(number) for network in self.networks], self.reader.statistics)

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return calibrated probabilities (N, outputs) in [0, 1] of logits (N, outputs)."""
        return probabilities_of(logits, self.card.temperature, softmax=self.reader.softmax)
