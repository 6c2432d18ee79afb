"""Metrics of choices: is the right one the likeliest?"""

from __future__ import annotations

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric


def right(item: Item, response: Response) -> tuple[float, float]:
    """(1 if the right choice is likelier than every other, 1). A tie is not a win: a model that cannot tell has not answered.

    With one choice only, it is right when each of its tokens is the likeliest, so that greedy writing would produce it.
    """
    if len(response.nats) == 1:
        return float(response.greedy[0]), 1.0
    others = [x for i, x in enumerate(response.nats) if i != item.target]
    return float(response.nats[item.target] > max(others)), 1.0


def tied(response: Response) -> bool:
    """Whether the likeliest choice shares its likelihood with another."""
    return len(response.nats) > 1 and sorted(response.nats)[-1] == sorted(response.nats)[-2]


ACCURACY = Metric("accuracy", "%", "right answers of all items, in percent, with Wilson intervals; a tie is not a win", right,
                  binary=True)
METRICS = (ACCURACY,)
