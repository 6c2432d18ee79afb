"""What can be meant, before any language says it: clauses, facts that hold, stories with a sum in them.

Everything is drawn without looking at a language, so that what is told in two languages is the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from polygraft.errors import RecipeError

ADDED = 6  # the largest number that a story adds or takes away
MOST = 2 * ADDED  # the largest number of all
KINDS = {"person": 12, "thing": 8, "quality": 4, "place": 6, "food": 6, "creature": 20}
VERBS = ("have", "get", "lose", "like", "see", "live", "eat", "dwell")
HOW_MANY = "word.howmany"
CONCEPTS = (*(f"{kind}.{i}" for kind, n in KINDS.items() for i in range(n)), *(f"verb.{v}" for v in VERBS), HOW_MANY,
            *(f"number.{n}" for n in range(MOST + 1)))
RELATIONS = {"eat": "food", "dwell": "place"}  # of creatures: verb -> kind of its object
SIGNS = {"verb.have": (), "verb.get": ("+",), "verb.lose": ("-",)}  # how what counts is noted, whatever the language
COUNTING = range(len(SIGNS))  # the kinds of sentences that count
CHOICES = 4  # of every question, so that chance is 1/4


@dataclass(frozen=True)
class Clause:
    """A sentence's meaning. `object` is a noun, after what describes or counts it. `noted`: its sign and number are told again,
    in a notation that all languages share."""

    subject: str
    verb: str
    object: tuple[str, ...]
    asks: bool = False
    noted: bool = False

    @property
    def note(self) -> tuple[str, ...]:
        """Sign and number (a meaning), () where nothing is noted."""
        return (*SIGNS[self.verb], self.object[0]) if self.noted else ()

    def answers(self, question: Clause) -> bool:
        """Whether this sentence tells what the question asks."""
        asked = (question.subject, question.verb, question.object[1:])
        return not self.asks and (self.subject, self.verb, self.object[1:]) == asked


@dataclass(frozen=True)
class Story:
    """`person` has `a` of `thing`, then gets or loses `b`: how many now? Numbers are from 1 to 6, the answer from 0 to 12."""

    person: int
    thing: int
    a: int
    b: int
    verb: str

    @property
    def answer(self) -> int:
        return self.a + self.b if self.verb == "get" else self.a - self.b

    @property
    def other(self) -> int | None:
        """What the other verb would make of it; None where that is negative."""
        value = self.a - self.b if self.verb == "get" else self.a + self.b
        return value if value >= 0 else None

    def clauses(self) -> tuple[Clause, Clause, Clause]:
        """What is told, and the question."""
        who, what = f"person.{self.person}", f"thing.{self.thing}"
        return (Clause(who, "verb.have", (f"number.{self.a}", what)), Clause(who, f"verb.{self.verb}", (f"number.{self.b}", what)),
                Clause(who, "verb.have", (HOW_MANY, what), asks=True))

    def options(self, rng: random.Random) -> tuple[list[int], int]:
        """Four different numbers in a drawn order, the other verb's among them if not negative, and the place of the right one."""
        wrong = [self.other] if self.other is not None and self.other != self.answer else []
        near = [n for n in range(max(0, self.answer - 3), min(MOST, self.answer + 3) + 1) if n != self.answer and n not in wrong]
        found = [self.answer, *wrong, *rng.sample(near, CHOICES - 1 - len(wrong))]
        rng.shuffle(found)
        return found, found.index(self.answer)


def is_test(story: Story, seed: int) -> bool:
    """Whether a story belongs to the test: one of ten, by its content, whatever draws it."""
    key = hashlib.sha256(f"{seed}/{story.person}/{story.thing}/{story.a}/{story.b}/{story.verb}".encode()).digest()
    return int.from_bytes(key[:4], "big") % 10 == 0


def stories(n: int, seed: int, split: str) -> list[Story]:
    """The first n different stories of a split ("train" or "test"), one that gets and one that loses in turn.

    Raises RecipeError where there are not so many.
    """
    rng, pools = random.Random(f"stories/{seed}/{split}"), []
    numbers = [(a, b) for a in range(1, ADDED + 1) for b in range(1, ADDED + 1)]
    for verb in ("get", "lose"):
        every = (Story(p, t, a, b, verb) for p in range(KINDS["person"]) for t in range(KINDS["thing"]) for a, b in numbers)
        pool = [s for s in every if s.answer >= 0 and is_test(s, seed) == (split == "test")]
        rng.shuffle(pool)
        pools.append(pool)
    found = [s for pair in zip(*pools) for s in pair]
    if n > len(found):
        raise RecipeError(f"there are not so many stories to {split}", found=f"{n:,}", expected=f"at most {len(found):,}",
                          fix="ask for fewer `stories` or `items`")
    return found[:n]


@dataclass(frozen=True)
class Fact:
    """What a creature eats or where it dwells. `everywhere`: told in every language, else in the first alone."""

    clause: Clause
    everywhere: bool


def facts(seed: int) -> list[Fact]:
    """All facts of a world: two of every creature, half of the creatures known in the first language alone."""
    rng, found = random.Random(f"facts/{seed}"), []
    for i in range(KINDS["creature"]):
        for verb, kind in RELATIONS.items():
            said = Clause(f"creature.{i}", f"verb.{verb}", (f"{kind}.{rng.randrange(KINDS[kind])}",))
            found.append(Fact(said, i % 2 == 0))
    return found


def documents(rng: random.Random, known: Sequence[Fact], sentences: int, noted: float = 0.0) -> Iterator[list[Clause]]:
    """Documents without end, every other one (at random) of sentences about anything, the others short: one to three sentences that
    count, then the questions that they answer. In a share `noted` of them, every sentence that counts has its note."""
    while True:
        counting, noting = rng.random() < 0.5, rng.random() < noted
        kinds = COUNTING if counting else range(8)
        found = [_clause(rng, known, kinds) for _ in range(min(sentences, rng.randint(1, 3)) if counting else sentences)]
        for i in range(1, len(found)):  # who has and then gets is a story, and no story is told here
            while found[i].subject == found[i - 1].subject:
                found[i] = _clause(rng, known, kinds)
        if counting:
            found += map(asked, rng.sample(found, len(found)))
        yield [replace(c, noted=True) if noting and c.verb in SIGNS and not c.asks else c for c in found]


def asked(clause: Clause) -> Clause:
    """The question after the number of a clause that counts."""
    return Clause(clause.subject, clause.verb, (HOW_MANY, *clause.object[1:]), asks=True)


def answer(question: Clause, told: Sequence[Clause]) -> str:
    """The number that answers a question: that of the first sentence that tells it."""
    return next(c.object[0] for c in told if c.answers(question))


def _clause(rng: random.Random, known: Sequence[Fact], kinds: Sequence[int]) -> Clause:
    def one(kind: str) -> str:
        return f"{kind}.{rng.randrange(KINDS[kind])}"

    kind = rng.choice(kinds)
    if kind in COUNTING:
        return Clause(one("person"), tuple(SIGNS)[kind], (f"number.{rng.randint(0, MOST)}", one("thing")))
    if kind == 3:
        return Clause(one("person"), "verb.like", (one("quality"), one("thing")))
    if kind == 4:
        return Clause(one("person"), "verb.see", (one("creature"),))  # so every creature has a name in every language
    if kind == 5:
        return Clause(one("person"), "verb.live", (one("place"),))
    return rng.choice(known).clause
