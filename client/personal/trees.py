"""Gradient-boosted trees as plain arrays: fitted by scikit-learn, kept in a file without pickle, asked without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
_KEPT = ("value", "feature", "threshold", "missing_left", "left", "right", "leaf")


@dataclass(frozen=True)
class Trees:
    """Nodes of all trees one after another; node ``roots[k]`` begins tree k, and ``left`` and ``right`` count from there.

    Shapes: ``nodes[name]: [M]``; ``roots: int64[K]``; ``columns: int64[F]`` of the table that they read. ``start``: logit
    before the first tree.
    """

    nodes: Mapping[str, NDArray[Any]]
    roots: NDArray[np.int64]
    columns: NDArray[np.int64]
    start: float

    @staticmethod
    def of(fitted: Any, columns: list[int], share: float) -> Trees:
        """The arrays of a fitted classifier; of None: everybody has the ``share``."""
        if fitted is None:
            share = min(max(share, 1e-6), 1 - 1e-6)
            nothing = {name: np.zeros(0) for name in _KEPT}
            return Trees(nothing, np.zeros(0, np.int64), np.zeros(0, np.int64), math.log(share / (1 - share)))
        parts = [stage[0].nodes for stage in fitted._predictors]
        fields = {
            "value": "value", "feature": "feature_idx", "threshold": "num_threshold",
            "missing_left": "missing_go_to_left", "left": "left", "right": "right", "leaf": "is_leaf",
        }  # fmt: skip
        nodes = {ours: np.concatenate([part[theirs] for part in parts]) for ours, theirs in fields.items()}
        roots = np.concatenate([[0], np.cumsum([len(part) for part in parts])[:-1]]).astype(np.int64)
        return Trees(
            nodes, roots, np.array(columns, dtype=np.int64), float(np.ravel(fitted._baseline_prediction)[0])
        )

    def probability(self, table: Table) -> Table:
        """Probability of a yes for each row: ``float64[N, K] -> float64[N]``."""
        read = table[:, self.columns]
        logit, rows = np.full(len(table), self.start), np.arange(len(table))
        for root in self.roots:
            at = np.full(len(table), root)
            while not (done := self.nodes["leaf"][at].astype(np.bool_)).all():
                value = read[rows, np.where(done, 0, self.nodes["feature"][at]).astype(np.int64)]
                left = np.where(
                    np.isnan(value), self.nodes["missing_left"][at] > 0, value <= self.nodes["threshold"][at]
                )
                following = root + np.where(left, self.nodes["left"][at], self.nodes["right"][at])
                at = np.where(done, at, following)
            logit += self.nodes["value"][at]
        return np.asarray(1 / (1 + np.exp(-logit)))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """As named arrays, for a file."""
        arrays = {f"trees.{name}": np.asarray(values, dtype=np.float64) for name, values in self.nodes.items()}
        return arrays | {
            "trees.roots": self.roots,
            "trees.columns": self.columns,
            "trees.start": np.array([self.start]),
        }

    @staticmethod
    def from_tensors(arrays: Mapping[str, NDArray[Any]]) -> Trees:
        """Inverse of ``to_tensors``. Raises: KeyError, ValueError for arrays that are no trees."""
        nodes = {name: arrays[f"trees.{name}"] for name in _KEPT}
        for name in ("feature", "left", "right"):
            nodes[name] = nodes[name].astype(np.int64)
        roots, columns = arrays["trees.roots"], arrays["trees.columns"]
        ends = np.append(roots[1:], len(nodes["leaf"]))
        inner = nodes["leaf"] == 0
        own = np.repeat(np.arange(len(roots)), ends - roots)
        place = np.arange(len(inner)) - roots[own] if len(roots) else np.zeros(0, np.int64)
        for side in ("left", "right"):  # children stand behind their parent and within their tree: asking ends
            child = nodes[side][inner]
            if (child <= place[inner]).any() or (child >= (ends - roots)[own][inner]).any():
                raise ValueError("trees that do not end")
        if inner.any() and not 0 <= nodes["feature"][inner].min() <= nodes["feature"][inner].max() < len(columns):
            raise ValueError("trees that read columns which are not there")
        return Trees(nodes, roots, columns, float(arrays["trees.start"][0]))
