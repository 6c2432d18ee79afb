"""The number that an answer ends with, whatever digits, separators and words its language writes.

    correct("答案是五分之三", "0.6")   correct("Antwort: 1.234,50 €", "1234.5")   correct("উত্তর হল ১২টি।", "12")

Of a text that goes on with another question only what stands before it counts. The number is the one after the last marker ("The
answer is", `\\boxed{`, "####"), else the last of all. Where it can be read in several ways, the gold answer decides.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction

from polygraft.evals.answers import words
from polygraft.evals.answers.clean import clean, lower
from polygraft.evals.answers.tokens import CURRENCY, Token, is_spaced, longest_first, one_of, tokens

_MARKERS, _LABELS = tuple(longest_first(words.MARKERS)), tuple(longest_first(words.LABELS))
_NUMBERS = {lower(w): n for w, n in words.NUMBERS.items()}
_WORD = re.compile(rf"({one_of(_NUMBERS)})(?!-\w)(?!\s(?:{one_of([*words.MORE, *_NUMBERS])}))", re.IGNORECASE)
_ASKED = "|".join(map(re.escape, words.QUESTIONS))
_QUESTION = re.compile(rf"^[ *#>]{{0,8}}(?=[^\W\d_]|<)(?:(?:{_ASKED}) ?\d{{0,3}} ?\*{{0,2}} ?[:\uff1a]|<\|)", re.I | re.M)
_LABEL_END = re.compile(  # up to the number
    rf"\s{{0,3}}[*_]{{0,3}}(?:[:\uff1a=—]|[–-](?=\s))?[\s*_{CURRENCY}\\(\[{{≈=:\uff1a]{{0,8}}")
_END = re.compile(r"[.!?。！？।؟\n](?!\d)")
_OPERATORS = frozenset("+-−*×xX·/÷–")
_EQUALS = frozenset(["=", "≈", "==", "=>"])
SENTENCE = 200  # characters after a marker in which a number answers it before any other does
CLOSE = Fraction(1, 1000)  # relative, where a value has no end in decimals


def numbers(text: str) -> list[str]:
    """Every number as it is written (digits in ASCII), in order. Numerals that may be part of a word (一共) are left out."""
    return [t.text for t in tokens(clean(text)) if t.values and not t.weak]


def readings(number: str) -> frozenset[Fraction]:
    """Every value that a written number can mean: `1,00,000` is one value, `1.234` two. Anything else is the empty set."""
    text = clean(number).strip().strip(CURRENCY + " ")
    found = tokens(text)
    if found and (found[0].start, found[0].end) == (0, len(text)):
        return found[0].values
    word = _NUMBERS.get(lower(text))
    return frozenset() if word is None else frozenset({Fraction(word)})


def answer(text: str, markers: Sequence[str] = ()) -> str | None:
    """The number that answers, as written (digits in ASCII); None when there is none. `markers` are read besides the known ones."""
    found = find(text, markers)
    return found.text if found else None


def correct(text: str, gold: str, markers: Sequence[str] = ()) -> bool:
    """Whether the answer found in `text` can be read as the gold number. Without an answer it is wrong, whatever the gold."""
    found = find(text, markers)
    return found is not None and same(found.values, readings(gold))


def last(text: str) -> str | None:
    """The last number of the text, whatever stands before it; None when there is none."""
    found = _last(tokens(clean(text)))
    return found.text if found else None


def last_correct(text: str, gold: str) -> bool:
    """Whether the last number of the text can be read as the gold one."""
    found = _last(tokens(clean(text)))
    return found is not None and same(found.values, readings(gold))


def same(a: frozenset[Fraction], b: frozenset[Fraction]) -> bool:
    """Whether two sets of readings share a value: exactly, or to a thousandth where one (1/3) has no end in decimals."""
    return any(x == y or ((10**9 % x.denominator or 10**9 % y.denominator) and abs(x - y) <= CLOSE * abs(y)) for x in a for y in b)


def find(text: str, markers: Sequence[str] = ()) -> Token | None:
    """The token that answers, in the cleaned text."""
    text = clean(text)
    found = tokens(text)
    low = lower(text)
    ends = [(at, False) for at in _occurrences(low, _MARKERS + tuple(lower(unicodedata.normalize("NFC", m)) for m in markers))]
    text = _before_next_question(text, min([*(at for at, _ in ends), *(t.start for t in found[:1])], default=len(text)))
    found = found[: bisect_right(found, len(text), key=lambda t: t.end)]
    ends += [(m.end(), True) for at in _occurrences(low, _LABELS) if (m := _LABEL_END.match(text, at))]
    starts = [t.start for t in found]
    for at, label in sorted(ends, reverse=True):
        token = None if at > len(text) else (_labelled if label else _after)(text, found, starts, at)
        if token:
            return token
    return _last(found)


def _last(found: Sequence[Token]) -> Token | None:
    """The last number that is not, maybe, part of a word."""
    return next((t for t in reversed(found) if t.values and not t.weak), None)


def _occurrences(low: str, table: Sequence[str]) -> list[int]:
    """Where the words of a table end in a text of small letters; whole words only, where the script has spaces between words."""
    out = []
    for word in table:
        at = low.find(word)
        while at >= 0:
            end = at + len(word)
            before, after = low[max(at - 1, 0) : at], low[end : end + 1]
            if not (is_spaced(word[0]) and before.isalpha()) and not (is_spaced(word[-1]) and after.isalpha()):
                out.append(end)
            at = low.find(word, end)
    return out


def _before_next_question(text: str, first: int) -> str:
    """The text up to the first line that asks something, if a marker or number (the `first`) stands before it."""
    m = _QUESTION.search(text, first)
    return text[: m.start()] if m else text


def _after(text: str, found: Sequence[Token], starts: Sequence[int], at: int) -> Token | None:
    """After a marker: the first number of its sentence, else a number word or weak numeral at once, else the first number later."""
    begin = at + len(text[at : at + 20]) - len(text[at : at + 20].lstrip(" \n\r*_:：$"))
    end = _END.search(text, begin, begin + SENTENCE)
    stop = end.start() if end else min(begin + SENTENCE, len(text))
    first = bisect_left(starts, at)
    inside = [i for i in range(first, bisect_left(starts, stop)) if not found[i].weak]
    if inside:
        return _result(text, found, inside[0])
    if token := _at_once(text, found, starts, begin):
        return token
    later = next((i for i in range(first, len(found)) if found[i].values and not found[i].weak), None)
    return None if later is None else _result(text, found, later)


def _labelled(text: str, found: Sequence[Token], starts: Sequence[int], at: int) -> Token | None:
    """After a label: a number that follows at once and is the only one on its line."""
    i = bisect_left(starts, at)
    if i == len(found) or starts[i] != at:
        return _at_once(text, found, starts, at)
    token = _result(text, found, i)
    end = text.find("\n", token.end)
    following = next((t for t in found[i:] if t.start >= token.end and not t.weak), None)
    return token if following is None or 0 <= end < following.start else None


def _at_once(text: str, found: Sequence[Token], starts: Sequence[int], at: int) -> Token | None:
    if m := _WORD.match(text, at):
        return Token(m.start(), m.end(), m[0], frozenset({Fraction(_NUMBERS[lower(m[1])])}))
    i = bisect_left(starts, at)
    return found[i] if i < len(found) and starts[i] == at and found[i].values else None


def _result(text: str, found: Sequence[Token], i: int) -> Token:
    """What an equation that begins at this number comes to: `5 + 6 = 11` is 11; without a result (`12-15`) it is no number."""
    start, open_sum = found[i].start, False
    while i + 1 < len(found):
        between = text[found[i].end : found[i + 1].start]
        if between.strip() not in _OPERATORS:
            between = re.sub(rf"[\w {CURRENCY}]+", "", between) if len(between) < 40 else ""
        between = between.strip(" ")
        if between in _EQUALS:
            start, open_sum = found[i + 1].start, False
        elif between in _OPERATORS:
            open_sum = True
        else:
            break
        i += 1
    token = found[i]
    return Token(start, token.end, text[start : token.end], frozenset()) if open_sum else token
