"""chrF and BLEU as functions of summed counts: the numbers of sacrebleu's corpus scores, for any resample of sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from polygraft import languages
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import LONGEST, Metric
from polygraft.evals.quality.prose import answer_language

CHARS, BETA, WORDS = 6, 2, 4
TOKENIZERS = dict.fromkeys(("zh", "yue", "wuu"), "zh") | dict.fromkeys(("ja", "th", "lo", "km", "my", "bo"), "char")


def chrf_counts(item: Item, response: Response) -> Sequence[float]:
    """(n-grams of the answer, of the reference, in both) for each length of 1 to 6 characters, white space left out; of several
    references the one with the best score. Without a reference nothing counts."""
    text = _grams(response.text[:LONGEST])
    found = [[x for h, r in zip(text, _grams(gold)) for x in _match(h, r)] for gold in item.golds]
    return max(found, key=lambda c: float(chrf(np.array(c)))) if found else (0.0,) * (3 * CHARS)


def _grams(text: str) -> list[Counter[str]]:
    text = "".join(text.split())
    return [Counter(text[i:i + n] for i in range(len(text) - n + 1)) for n in range(1, CHARS + 1)]


def _match(answer: Counter[str], reference: Counter[str]) -> tuple[float, float, float]:
    """Counts of one length; an answer's n-grams do not count where the reference has none of this length (as in sacrebleu)."""
    total, both = reference.total(), sum(min(n, reference[g]) for g, n in answer.items() if g in reference)
    return float(answer.total() if total else 0), float(total), float(both)


def chrf(sums: np.ndarray) -> np.ndarray:
    """Counts [..., 18] -> chrF2 [...] from 0 to 100 (Popovic 2015): precision and recall averaged over the lengths that both
    sides have, then F with recall weighing twice."""
    answer, reference, both = (sums[..., i::3] for i in range(3))
    has = (answer > 0) & (reference > 0)
    orders = np.maximum(has.sum(-1), 1)
    precision = np.divide(both, answer, out=np.zeros(has.shape), where=has).sum(-1) / orders
    recall = np.divide(both, reference, out=np.zeros(has.shape), where=has).sum(-1) / orders
    below = BETA**2 * precision + recall
    return 100 * np.divide((1 + BETA**2) * precision * recall, below, out=np.zeros(below.shape), where=below > 0)


@lru_cache(8)
def _sacrebleu(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, force=True)  # force: an answer that looks tokenized is not worth a warning


def tokenizer(language: str) -> str:
    """sacrebleu's tokenizer for a language: mteval's 13a; characters where words are not set apart; zh for Chinese."""
    return TOKENIZERS.get(languages.split(languages.check(language))[0], "13a")


def bleu_counts(item: Item, response: Response) -> Sequence[float]:
    """(tokens of the answer, of the reference, matched n-grams of 1 to 4 tokens, the answer's n-grams of 1 to 4 tokens)."""
    if not item.golds:
        return (0.0,) * (2 + 2 * WORDS)
    found = _sacrebleu(tokenizer(answer_language(item))).corpus_score([response.text[:LONGEST]], [[g] for g in item.golds])
    return (float(found.sys_len), float(found.ref_len), *map(float, found.counts), *map(float, found.totals))


def bleu(sums: np.ndarray) -> np.ndarray:
    """Counts [..., 10] -> BLEU [...] from 0 to 100 (Papineni et al. 2002), orders without a match smoothed as mteval-v13a does."""
    answer, reference, matched, total = sums[..., 0], sums[..., 1], sums[..., 2:2 + WORDS], sums[..., 2 + WORDS:]
    none = (matched == 0) & (total > 0)
    smoothed = np.where(none, 0.5 ** np.cumsum(none, -1), matched)
    precision = np.divide(smoothed, total, out=np.zeros(total.shape), where=total > 0)
    scored = (matched.sum(-1) > 0) & (total > 0).all(-1)  # an answer shorter than 4 tokens has no BLEU to speak of
    log = np.log(precision, out=np.zeros(precision.shape), where=precision > 0).mean(-1)
    short = 1 - np.divide(reference, answer, out=np.ones(answer.shape), where=answer > 0)
    return np.where(scored, 100 * np.exp(log + np.minimum(short, 0)), 0.0)


def _version() -> str:
    try:
        return version("sacrebleu")
    except PackageNotFoundError:
        return "none"


METRICS: tuple[Metric, ...] = (
    Metric("chrF", "points", f"character F-score of the corpus, 0 to 100; case:mixed|eff:yes|nc:{CHARS}|nw:0|space:no|version:"
           f"{_version()} (sacrebleu's)", chrf_counts, chrf),
    Metric("BLEU", "points", "of the corpus, 0 to 100; case:mixed|eff:no|tok:13a (zh for Chinese, char for ja th lo km my bo)|"
           f"smooth:exp|version:{_version()} (sacrebleu's); compare within a language only", bleu_counts, bleu, averages=False),
)
