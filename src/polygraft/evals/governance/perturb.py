"""The same question as people really type it: with slips, without accents, in Latin letters, mixed with English.

`mgsm+typos` is MGSM asked that way: same ids, same gold answers, so that scores pair with those of `mgsm`. Only the question is
changed, never the choices, the worked examples or a number; every change is drawn from (seed, item, kind) alone.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from polygraft import languages
from polygraft.errors import InputError, RecipeError, suggestion
from polygraft.evals.governance.romanise import LANGUAGES, romanise
from polygraft.evals.items import Item

UNSPACED = {"Hani", "Hans", "Hant", "Jpan", "Hira", "Kana", "Bopo", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Yiii"}
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю")
SHORTEST, PIECE = 4, 8  # a slip needs so many letters, and comes once in a piece of so many
WORD = re.compile(r"[^\s\d]+")  # with its vowel signs: a mark is no letter to `re`, and must not part from its word
BARRED = dict(zip("đĐøØłŁıßæÆœŒ", ("d", "D", "o", "O", "l", "L", "i", "ss", "ae", "Ae", "oe", "Oe")))
TARGET = {"typos": 10, "mixed": 50, "diacritics": 100, "romanised": 100}  # percent of what could be changed that is
# accents, and vowel points of Hebrew and Arabic
POINT = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652]")
NAME = re.compile(r"([a-z]+)(\d{1,3})?")


@dataclass(frozen=True)
class Perturbation:
    """A kind of untidiness and the percentage of words (`typos`), known words (`mixed`) or letters that it touches."""

    kind: str
    percent: int


def parse(name: str) -> Perturbation:
    """`typos`, `typos20`, `mixed`, `diacritics`, `romanised`. Raises RecipeError."""
    m = NAME.fullmatch(name)
    if m is None or m[1] not in TARGET or (m[2] and not 0 < int(m[2]) <= 100):
        raise RecipeError("no such way to change a question", found=f"+{name}", expected=", ".join(f"+{k}" for k in TARGET),
                          fix=suggestion(m[1] if m else name, TARGET))
    return Perturbation(m[1], int(m[2] or TARGET[m[1]]))


def applied(items: Sequence[Item], how: Perturbation, language: str, *, seed: int = 0, data: Path | None = None) -> list[Item]:
    """The items with their questions changed. Raises RecipeError where the kind does not exist for the language, or where not one
    question changed, since that would measure nothing."""
    change = _change(how, language, data)
    out = [replace(i, prompt=change(i.prompt, random.Random(f"{seed}/{i.id}/{how.kind}"))) for i in items]
    if items and all(a.prompt == b.prompt for a, b in zip(items, out)):
        raise RecipeError("nothing in these questions can be changed this way", where=f"+{how.kind}", found=language,
                          fix="leave this language out of the task, or name another change")
    return out


def _change(how: Perturbation, language: str, data: Path | None) -> Callable[[str, random.Random], str]:
    share, lang = how.percent / 100, languages.split(language)[0]
    refuse(how, language)
    if how.kind == "typos":
        return lambda text, rng: typos(text, share, rng)
    if how.kind == "diacritics":
        return lambda text, rng: _some_words(text, share, rng, without_diacritics)
    if how.kind == "romanised":
        return lambda text, rng: _some_words(text, share, rng, lambda word: romanise(word, lang))
    words = lexicon(lang, data)
    return lambda text, rng: mixed(text, words, share, rng)


def refuse(how: Perturbation, language: str) -> None:
    """Raises RecipeError where the kind is not defined for the language."""
    lang, script, _ = languages.split(language)
    if how.kind == "typos" and script in UNSPACED:
        raise RecipeError("slips of the keyboard are defined for scripts that write spaces between words", where="+typos",
                          found=f"{language} ({languages.name(lang)})",
                          fix="leave the language out of this task")
    if how.kind == "romanised" and lang not in LANGUAGES:
        raise RecipeError("no way here to write this language in Latin letters", where="+romanised", found=language,
                          expected="one of " + ", ".join(LANGUAGES), fix="leave the language out of this task")


def defined(how: Perturbation, language: str) -> bool:
    """Whether the kind is defined for the language; a lexicon of `mixed` may lie in the data folder."""
    try:
        refuse(how, language)
    except RecipeError:
        return False
    return True


def _some_words(text: str, share: float, rng: random.Random, change: Callable[[str], str]) -> str:
    return WORD.sub(lambda m: change(m[0]) if rng.random() < share else m[0], text)


def typos(text: str, share: float, rng: random.Random) -> str:
    """One slip in about `share` of the words of at least 4 letters (of every 8 letters in long words): two letters swapped,
    one left out, doubled, or struck beside its key. First letters stay, and labels (`Question:`)."""
    return WORD.sub(lambda m: m[0] if m[0].endswith((":", "：")) else _slips(m[0], share, rng), text)


def _slips(word: str, share: float, rng: random.Random) -> str:
    pieces = [word[i:i + PIECE] for i in range(0, len(word), PIECE)]
    return "".join(_slip(p, rng) if sum(map(str.isalpha, p)) >= SHORTEST and rng.random() < share else p for p in pieces)


def _slip(piece: str, rng: random.Random) -> str:
    at = rng.choice([i for i in range(1, len(piece) - 1) if piece[i].isalpha()])
    before, letter, after = piece[:at], piece[at], piece[at + 1:]
    kinds = [before + after[0] + letter + after[1:], before + after, before + letter + letter + after]
    if near := beside(letter):
        kinds.append(before + rng.choice(near) + after)
    return rng.choice([k for k in kinds if k != piece])


def beside(letter: str) -> str:
    """The keys left and right of a letter's on its keyboard row; "" where the keyboards here do not have it."""
    row = next((r for r in ROWS if letter in r), "")
    at = row.find(letter)
    return row[max(0, at - 1):at] + row[at + 1:at + 2] if row else ""


def without_diacritics(text: str) -> str:
    """Latin, Greek and Cyrillic letters without accents and tails, Arabic and Hebrew without vowel points; the vowel signs of other
    scripts are letters and stay."""
    parts = unicodedata.normalize("NFD", "".join(BARRED.get(c, c) for c in text))
    return unicodedata.normalize("NFC", "".join(c for c in parts if not POINT.match(c)))


def mixed(text: str, words: Mapping[str, str], share: float, rng: random.Random) -> str:
    """A text with about `share` of its words that the lexicon knows in the other language. Longer entries go first; where a script
    sets words apart, only whole words count."""
    return _known(tuple(words)).sub(lambda m: words[m[0].casefold()] if rng.random() < share else m[0], text)


@lru_cache(64)
def _known(words: tuple[str, ...]) -> re.Pattern[str]:
    parts = (rf"(?<!\w){re.escape(w)}(?!\w)" if not _unspaced(w) else re.escape(w) for w in sorted(words, key=len, reverse=True))
    return re.compile("|".join(parts), re.IGNORECASE)


def _unspaced(word: str) -> bool:
    return unicodedata.name(word[0], "").startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))


def lexicon(language: str, data: Path | None = None) -> dict[str, str]:
    """Words of a language (case-folded) to English: the user's `lexicon.<language>.tsv` (word, tab, other word) of the data folder,
    else forty frequent ones that come along. Raises RecipeError or InputError."""
    own = Path(data) / f"lexicon.{language}.tsv" if data is not None else None
    if own is not None and own.is_file():
        return _read(own)
    head, *rows = (line.split("\t") for line in Path(__file__).with_name("lexicon.tsv").read_text("utf-8").splitlines())
    if language not in head[1:]:
        raise RecipeError("no words to mix in for this language", where="+mixed", found=language,
                          expected="one of " + ", ".join(head[1:]),
                          fix=f"put a file lexicon.{language}.tsv (word, tab, other word) into the data folder")
    return {row[head.index(language)].casefold(): row[0] for row in rows}


def _read(path: Path) -> dict[str, str]:
    out = {}
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise InputError("the text is not UTF-8", where=path, found=str(e)[:80], fix="save it as UTF-8") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = [c.strip() for c in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise InputError("not a pair of words", where=f"{path}:{number}", found=line[:80], expected="word, tab, other word",
                             fix="mend the line")
        out[cells[0].casefold()] = cells[1]
    if not out:
        raise InputError("no words in the lexicon", where=path, expected="word, tab, other word, one pair a line", fix="fill it")
    return out
