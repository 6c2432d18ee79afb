"""Sheets of a blind comparison as people send them back."""

from __future__ import annotations

import csv
import io
from itertools import product

from polygraft.evals.governance.sheet import Pair

PAIRS = [Pair("open@1", language, str(n), f"Frage {n}?", f"answer {n}", f"jibu {n}") for language, n in product(("de", "sw"), range(30))]
NAMES = ("base-7b", "expert-sw")


def rows(text):
    return list(csv.reader(io.StringIO(text)))


def filled(text, choose, delimiter=",", encoding="utf-8-sig"):
    head, *body = rows(text)
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows([head, *([*r[:6], choose(r)] for r in body)])
    return out.getvalue().encode(encoding)


def prefers(word):
    """A reader who always takes the side with this word in it."""
    return lambda r: "left" if word in r[4] else "right"
