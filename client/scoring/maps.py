"""What a model has learnt as maps: states of consumers and embeddings of items in two dimensions, by PCA and by t-SNE."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.scoring.model import SharedModel
from client.scoring.segments import Segments
from common.data import EventLog

MOST_CONSUMERS, MOST_ITEMS, NAMED = 800, 400, 40
_GROUPS = 11


@dataclass(frozen=True)
class EmbeddingMap:
    """Points in groups. Shapes: ``pca, tsne: float64[P, 2]``; ``group: int64[P]`` into ``names``; ``told``, ``labels``: ``P`` words
    each, empty for none; ``kept``: share of the variance that the two axes of the PCA keep."""

    pca: NDArray[np.float64]
    tsne: NDArray[np.float64]
    group: NDArray[np.int64]
    names: tuple[str, ...]
    told: tuple[str, ...]
    labels: tuple[str, ...]
    kept: float


def consumer_map(found: Segments) -> EmbeddingMap:
    """Consumers by their states, in their segments; at most 800, drawn evenly. No id is told."""
    rows = np.sort(np.random.default_rng(0).permutation(len(found.place))[:MOST_CONSUMERS])
    names = tuple(segment.name for segment in found.segments)
    pca, tsne, kept = _flat(found.states[rows])
    nothing = ("",) * len(rows)
    return EmbeddingMap(pca, tsne, found.place[rows], names, nothing, nothing, kept)


def item_map(shared: SharedModel, log: EventLog) -> EmbeddingMap | None:
    """The items that this log names most, at most 400, in their categories; None for a model that knows fewer than three."""
    sequences = shared.sequences(log)
    seen = np.bincount(sequences.column("item").astype(np.int64), minlength=len(shared.rows.rows))
    order = [int(i) for i in np.argsort(-seen, kind="stable") if i and seen[i]][:MOST_ITEMS]
    if len(order) < 3:
        return None
    weights = shared.model.item.weight.detach().numpy()[order]
    items = [shared.item_name(i) for i in order]
    categories = [shared.category_of(i) or "no category" for i in order]
    most = [name for name, _ in Counter(categories).most_common()]
    names = tuple(most if len(most) <= _GROUPS + 1 else [*most[:_GROUPS], "other"])
    group = np.array([names.index(one) if one in names else len(names) - 1 for one in categories], dtype=np.int64)
    told = tuple(
        f"{item}, {category}, {seen[i]:,} events"
        for item, category, i in zip(items, categories, order, strict=True)
    )
    pca, tsne, kept = _flat(weights)
    labels = tuple(item if place < NAMED else "" for place, item in enumerate(items))
    return EmbeddingMap(pca, tsne, group, names, told, labels, kept)


def _flat(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Two maps of the same vectors, and the share of variance that the first keeps. The same vectors give the same maps."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    values = vectors.astype(np.float64)
    axes = PCA(2, random_state=0)
    pca = axes.fit_transform(values)
    perplexity = float(min(30, max(2, (len(values) - 1) // 3)))
    with threadpool_limits(1):  # several mostly wait for each other
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(values)
    return pca, np.asarray(tsne, dtype=np.float64), float(axes.explained_variance_ratio_.sum())
