"""Made languages: words for the same meanings in scripts of their own, put in orders of their own.

Two languages share what is meant, the full stop, the question mark, the notation of a sum (`: + 2`) and, unless numbers are told in
words, digits: nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from polygraft.world.meaning import CONCEPTS, MOST, Clause

# tag, order of subject, verb and object, whether what describes a noun stands behind it, consonants, vowels
SHAPES = (
    ("x-one", "SVO", False, "bdfgklmnprstvz", "aeiou"),
    ("x-two", "SOV", True, "бдгжклмнпрстчш", "аеиоу"),
    ("x-three", "VSO", True, "ბგდვზკლმნპრსტ", "აეიოუ"),
)
TAGS = tuple(shape[0] for shape in SHAPES)
NOTED = ":"  # stands between a sentence and its note
SYLLABLES = (2, 3)  # of a word, at least and at most


@dataclass(frozen=True)
class Language:
    """One language: `words` has a word for every meaning, no two alike. `order` is SVO, SOV or VSO."""

    tag: str
    order: str
    behind: bool
    words: Mapping[str, str]

    def clause(self, clause: Clause) -> str:
        """The sentence, its words and its full stop or question mark set apart by spaces."""
        return self.told(clause, self.order)

    def told(self, clause: Clause, order: str) -> str:
        """The sentence with its parts in another order: what the language would not say."""
        described = clause.object[::-1] if self.behind else clause.object
        parts = {"S": [clause.subject], "V": [clause.verb], "O": list(described)}
        note = [NOTED, *(self.words.get(c, c) for c in clause.note)] if clause.noted else []
        return " ".join([*(self.words[c] for part in order for c in parts[part]), *note, "?" if clause.asks else "."])

    def text(self, clauses: Sequence[Clause]) -> str:
        return " ".join(map(self.clause, clauses))


def languages(count: int, seed: int, numbers: str = "digits") -> tuple[Language, ...]:
    """The first `count` languages of a seed. `numbers`: "digits" are the same in all, "words" are not."""
    return tuple(_language(i, seed, numbers) for i in range(count))


def _language(i: int, seed: int, numbers: str) -> Language:
    tag, order, behind, consonants, vowels = SHAPES[i]
    new = _words(random.Random(f"world/{seed}/{tag}"), consonants, vowels)
    words = {concept: next(new) for concept in CONCEPTS}  # a word for every number too, so that digits change no other word
    if numbers == "digits":
        words |= {f"number.{n}": str(n) for n in range(MOST + 1)}
    return Language(tag, order, behind, words)


def _words(rng: random.Random, consonants: str, vowels: str) -> Iterator[str]:
    """Words without end, none twice."""
    seen: set[str] = set()
    while True:
        word = "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(rng.randint(*SYLLABLES)))
        if word not in seen:
            seen.add(word)
            yield word
