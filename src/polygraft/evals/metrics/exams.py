"""Exams: points of the Unified State Exam (USE), and accuracy that counts every category of subjects the same.

USE is scored as MERA (arXiv:2401.04531) does, with spaces forgiven as Darumeru's code does: an answer is a list with commas; one
variant of the exam gives 34 points at most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric
from polygraft.evals.metrics.choice import right

MOST = 34.0
CATEGORIES = 4


def points(kind: str, task: str, answer: str, text: str) -> int:
    """Points of one answer. kind: matching (one a place), text (letters only), else a set of numbers; task 16 gives part points."""
    gold = [a.strip() for a in answer.split(",")]
    given = [t.strip() for t in text.strip().split(",")]
    if kind == "matching":
        return sum(g == t for g, t in zip(gold, given)) if len(gold) == len(given) else 0
    if kind == "text":
        return int(re.sub(r"[\d\W]", "", text).lower() in {g.lower() for g in gold})
    right, wanted = len(set(gold) & set(given)), set(gold)
    if task == "16":
        return max(0, right - max(0, len(given) - len(gold)))
    return int(set(given) == wanted)


def grade(item: Item, response: Response) -> Sequence[float]:
    """(points / 34, one part of its variant): all parts of a variant make 1, so the quotient is the mean grade of the variants."""
    extra = item.extra
    got = points(str(extra["type"]), str(extra["id_task"]), item.golds[0], response.text)
    return (got / MOST, 1.0 / float(extra["in_variant"]))


def by_category(item: Item, response: Response) -> Sequence[float]:
    """For each of 4 categories (points, weight); an item weighs 1 / items of its subject, so that subjects count the same."""
    columns = np.zeros((CATEGORIES, 2))
    weight = 1.0 / float(item.extra["in_subject"])
    columns[int(item.extra["category"])] = (weight * right(item, response)[0], weight)
    return [float(x) for x in columns.ravel()]


def category_mean(sums: np.ndarray) -> np.ndarray:
    """[..., 8] -> mean over the categories that have items of their subjects' mean accuracy [...]."""
    pairs = sums.reshape(*sums.shape[:-1], CATEGORIES, 2)
    seen = pairs[..., 1] > 0
    each = np.divide(pairs[..., 0], pairs[..., 1], out=np.zeros(seen.shape), where=seen)
    count = seen.sum(-1)
    return np.divide(each.sum(-1), count, out=np.zeros(count.shape), where=count > 0)


METRICS = (
    Metric("grade", "%", "points of a variant of the exam out of 34, mean over the variants", grade),
    Metric("category accuracy", "%", "right answers: mean over the subjects of a category, then over the four categories",
           by_category, category_mean),
    Metric("confident accuracy", "%", "pairs answered right in both orders of the two options", right, binary=True, group="all"),
)
