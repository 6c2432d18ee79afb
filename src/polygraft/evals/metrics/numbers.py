"""Metrics of written numbers: is the number that the answer ends with the gold one?"""

from __future__ import annotations

from polygraft.evals import answers
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric


def _markers(item: Item) -> tuple[str, ...]:
    return tuple(item.extra.get("markers", ()))


def right(item: Item, response: Response) -> tuple[float, float]:
    """(1 if the number found can be read as a gold one, 1)."""
    return float(any(answers.correct(response.text, gold, _markers(item)) for gold in item.golds)), 1.0


def parsed(item: Item, response: Response) -> str | None:
    """The number that counts as the answer."""
    return answers.answer(response.text, _markers(item))


def last_right(item: Item, response: Response) -> tuple[float, float]:
    """(1 if the last number of all can be read as a gold one, 1): MathOctopus' and SLAM's rule, with signs; nothing is not 0."""
    return float(any(answers.last_correct(response.text, gold) for gold in item.golds)), 1.0


def last_parsed(item: Item, response: Response) -> str | None:
    """The last number of all."""
    return answers.last(response.text)


def fault(item: Item) -> str | None:
    """What the gold must be, when it is not."""
    return None if item.golds and all(answers.readings(g.strip()) for g in item.golds) else "a number"


ACCURACY = Metric("accuracy", "%", "right numbers of all answers, in percent, with Wilson intervals", right, binary=True,
                  parse=parsed, fault=fault)
LAST = Metric("last", "%", "answers whose last number is right, in percent, with Wilson intervals", last_right, binary=True,
              parse=last_parsed, fault=fault)
METRICS = (ACCURACY, LAST)
