"""Classes: accuracy, Matthews correlation and macro-F1 from a summed confusion matrix, and choices weighed by their length.

A task's classes are the choices of an item or, for written answers, the words in `extra: {labels: ...}`, of which the first that
stands in the answer counts. An item adds 1 to one cell of a matrix with a row for each right class and a column for each class
that was answered, the last one for answers that name none: C x (C + 1) cells, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt

import numpy as np

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric, mean
from polygraft.evals.metrics.qa import tokens


def named(labels: Sequence[str], text: str) -> int | None:
    """The label that stands first in a text, as whole words; of two that start together the longer. None: no label."""
    found = tokens(text)
    places = [(start, -len(label), i) for i, label in enumerate(map(tokens, labels))
              for start in range(len(found) - len(label) + 1) if label and found[start:start + len(label)] == label]
    return min(places)[2] if places else None


def answered(item: Item, response: Response) -> tuple[int, int, int]:
    """(right class, answered class, classes); the answered class is `classes` when none was named.

    Of choices the likeliest is the answer; of several that are equally likely a wrong one, since a tie is not a win.
    """
    if item.choices:
        best = max(response.nats)
        tied = [i for i, x in enumerate(response.nats) if x == best]
        return item.target, next((i for i in tied if i != item.target), item.target), len(item.choices)
    labels = item.extra["labels"]
    place = named(labels, response.text)
    return _gold(item, labels), len(labels) if place is None else place, len(labels)


def _gold(item: Item, labels: Sequence[str]) -> int:
    return [tokens(x) for x in labels].index(tokens(item.golds[0]))


def fault(item: Item) -> str | None:
    """What a written item lacks."""
    if item.choices:
        return None
    labels = item.extra.get("labels")
    if not isinstance(labels, list | tuple) or len(labels) < 2 or not all(isinstance(x, str) for x in labels):
        return "a class; the task needs `extra: {labels: ...}` with the names of at least two"
    if not item.golds or tokens(item.golds[0]) not in [tokens(x) for x in labels]:
        return "one of " + ", ".join(labels)
    return None


def cells(item: Item, response: Response) -> Sequence[float]:
    """The item's confusion matrix, C x (C + 1) cells row by row, with one 1."""
    right, given, classes = answered(item, response)
    out = np.zeros((classes, classes + 1))
    out[right, given] = 1.0
    return [float(x) for x in out.ravel()]


def matrix(sums: np.ndarray) -> np.ndarray:
    """[..., C * (C + 1)] -> [..., C, C + 1]."""
    classes = (isqrt(1 + 4 * sums.shape[-1]) - 1) // 2
    return np.asarray(sums, np.float64).reshape(*sums.shape[:-1], classes, classes + 1)


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)


def share_right(sums: np.ndarray) -> np.ndarray:
    """Cells -> accuracy; no items is 0."""
    m = matrix(sums)
    return _divided(np.trace(m, axis1=-2, axis2=-1), m.sum((-2, -1)))


def mcc(sums: np.ndarray) -> np.ndarray:
    """Cells -> Matthews correlation of any number of classes (Gorodkin 2004); 0 where one class alone is right or answered."""
    m = matrix(sums)
    right, given = m.sum(-1), m.sum(-2)
    total, hits = m.sum((-2, -1)), np.trace(m, axis1=-2, axis2=-1)
    over = total * hits - (right * given[..., :-1]).sum(-1)
    under = (total**2 - (right**2).sum(-1)) * (total**2 - (given**2).sum(-1))
    return _divided(over, np.sqrt(np.maximum(under, 0.0)))


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Cells -> mean F1 of the classes that are right or answered somewhere; no items is 0."""
    m = matrix(sums)
    both = m.sum(-1) + m.sum(-2)[..., :-1]
    each = _divided(2 * np.diagonal(m[..., :-1], axis1=-2, axis2=-1), both)
    return _divided(each.sum(-1), (both > 0).sum(-1))


def _by_length(item: Item, response: Response, lengths: Sequence[int]) -> Sequence[float]:
    """(1 if the right choice is likelier than every other for its length, 1)."""
    weighed = [x / n for x, n in zip(response.nats, lengths)]
    return float(all(weighed[item.target] > x for i, x in enumerate(weighed) if i != item.target)), 1.0


def acc_norm(item: Item, response: Response) -> Sequence[float]:
    return _by_length(item, response, [len(c) for c in item.choices])


def acc_bytes(item: Item, response: Response) -> Sequence[float]:
    return _by_length(item, response, [len(c.encode()) for c in item.choices])


def said(item: Item, response: Response) -> str | None:
    """The class that a written answer names, for the record."""
    if item.choices:
        return None
    place = named(item.extra["labels"], response.text)
    return None if place is None else str(item.extra["labels"][place])


def right(item: Item, response: Response) -> Sequence[float]:
    gold, given, _ = answered(item, response)
    return float(gold == given), 1.0


def _of_classes(name: str, meaning: str, value: Callable[[np.ndarray], np.ndarray], least: float = 0.0) -> Metric:
    return Metric(name, "%", meaning, cells, value, parse=said, fault=fault, span=(least, 100.0))


METRICS = (
    Metric("accuracy", "%", "answers that name the right class, in percent, with Wilson intervals", right, mean, binary=True,
           parse=said, fault=fault),
    Metric("acc_norm", "%", "right answers when a choice's log-likelihood is divided by its characters (lm-eval's acc_norm)",
           acc_norm, binary=True),
    Metric("acc_bytes", "%", "right answers when a choice's log-likelihood is divided by its UTF-8 bytes (lm-eval's acc_bytes)",
           acc_bytes, binary=True),
    _of_classes("mcc", "Matthews correlation: 100 is always right, 0 no better than one answer for all", mcc, -100.0),
    _of_classes("macro_f1", "F1 of each class, every class counting the same", macro_f1),
    _of_classes("mean of acc and mcc", "mean of accuracy and Matthews correlation", lambda s: (share_right(s) + mcc(s)) / 2, -50.0),
    _of_classes("mean of acc and macro_f1", "mean of accuracy and macro-F1", lambda s: (share_right(s) + macro_f1(s)) / 2),
)
