"""What can be scored without a gold answer: language, script, loops, refusals, cuts. Any written task can list these.

`DEFAULT` are shown for every written task, beside its own. All are pure functions of the answer's text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric
from polygraft.evals.quality import ending, identify, repetition, script
from polygraft.evals.quality.prose import answer_language

NOTHING = (0.0, 0.0)


def yes(said: bool | None) -> Sequence[float]:
    """(0 or 1, 1); what cannot be said counts for nothing."""
    return NOTHING if said is None else (float(said), 1.0)


def language(item: Item, response: Response) -> Sequence[float]:
    return yes(identify.spoken(response.text, answer_language(item)))


def by_line(item: Item, response: Response) -> Sequence[float]:
    return identify.fidelity_by_line(response.text, answer_language(item))


def in_script(item: Item, response: Response) -> Sequence[float]:
    found = script.share(response.text, answer_language(item))
    return NOTHING if found is None else (found, 1.0)


def repeats(_: Item, response: Response) -> Sequence[float]:
    again, n = repetition.duplicates(response.text)
    return (again / n, 1.0) if n else NOTHING


def copies(item: Item, response: Response) -> Sequence[float]:
    known, n = repetition.copied(response.text, item.prompt)
    return (known / n, 1.0) if n else NOTHING


def _share(name: str, meaning: str, score: Callable[[Item, Response], Sequence[float]], *, higher: bool = False,
           binary: bool = True) -> Metric:
    return Metric(name, "%", meaning, score, higher_is_better=higher, binary=binary)


METRICS: tuple[Metric, ...] = (
    _share("language fidelity", "answers in the language asked (or one written alike), of those whose language can be told",
           language, higher=True),
    _share("line fidelity", "lines in the language asked, of those whose language can be told", by_line, higher=True, binary=False),
    _share("script fidelity", "letters in the script of the language asked, mean over answers", in_script, higher=True,
           binary=False),
    _share("repetition", "4-grams of words (of characters in scripts without spaces) that an answer had before, mean over answers",
           repeats, binary=False),
    _share("stuck", "answers that end in a loop: the same up to 500 characters at least 4 times", lambda _, r: yes(
        bool(repetition.loop(r.text)[0]))),
    _share("copied", "4-grams of an answer that stand in its prompt, mean over answers", copies, binary=False),
    _share("refusal", "answers that begin with a formula by which assistants decline, in any of 22 languages: a heuristic",
           lambda _, r: yes(ending.refuses(r.text))),
    _share("truncated", "answers that hit the limit of new tokens and do not end with a sentence", lambda _, r: yes(
        not r.finished and not ending.complete(r.text))),
    _share("empty", "answers in which nothing can be seen", lambda _, r: yes(ending.empty(r.text))),
)
DEFAULT = ("language fidelity", "script fidelity", "repetition", "truncated", "refusal")
