"""Seeded word problems with exact whole-number answers, the same problem in every language.

What a problem says (template, people, things, numbers) is drawn without looking at the language; the language only supplies words.
So results on the same seed, split and steps are paired across languages. The splits share no template, no name and no operand.
"""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from polygraft.errors import RecipeError, suggestion
from polygraft.evals.tasks.problems.text import DATA, Noun, capital, fill, languages, name, words

RESIDUES = {"train": (0, 1, 2, 5), "dev": (4,), "test": (3, 6)}  # a number belongs to the split of its remainder by 7
SIZES = {"s": (2, 12), "t": (2, 20), "m": (5, 60), "l": (20, 99)}
LARGEST = 999
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
PEOPLE = {"train": 20, "dev": 6, "test": 10}
THINGS = (
    "apple", "orange", "banana", "lemon", "pencil", "notebook", "magazine", "ball",
    "ticket", "flower", "key", "balloon", "egg", "badge", "tomato", "envelope",
)  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """What a template asks: the size of each number (`a:m b:s`) and the operations (`a + b; r1 - c`, r1 the first result)."""

    id: str
    split: str
    sizes: tuple[tuple[str, str], ...]
    operations: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Facts:
    """A problem before it is put into words."""

    structure: Structure
    people: tuple[int, ...]
    thing: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """A word problem. `solution` has one line a step (`12 + 7 = 19`), `sentence` says the answer in the problem's language."""

    id: str
    language: str
    question: str
    answer: int
    solution: str
    sentence: str
    steps: int
    template: str
    distractors: tuple[int, ...]


@cache
def structures() -> tuple[Structure, ...]:
    raw = json.loads((DATA / "structures.json").read_text("utf-8"))
    return tuple(
        Structure(id, split, tuple(_pair(p) for p in sizes.split()), tuple(_triple(o) for o in operations.split("; ")))
        for id, (split, sizes, operations) in raw.items()
    )


def _pair(text: str) -> tuple[str, str]:
    left, right = text.split(":")
    return left, right


def _triple(text: str) -> tuple[str, str, str]:
    left, sign, right = text.split(" ")
    return left, sign, right


@cache
def pool(split: str, size: str) -> tuple[int, ...]:
    """The numbers of a size that belong to a split."""
    low, high = SIZES[size]
    return tuple(n for n in range(low, high + 1) if n % 7 in RESIDUES[split])


def solve(structure: Structure, numbers: Sequence[int]) -> list[tuple[int, str, int, int]] | None:
    """The steps (left, sign, right, result), or None when a result is not a whole number from 2 to 999."""
    values = dict(zip((letter for letter, _ in structure.sizes), numbers, strict=True))
    steps = []
    for place, (left, sign, right) in enumerate(structure.operations, 1):
        x, y = values[left], values[right]
        if sign == "/" and x % y:
            return None
        result = OPERATIONS[sign](x, y)
        if not 2 <= result <= LARGEST:
            return None
        values[f"r{place}"] = result
        steps.append((x, sign, y, result))
    return steps


def draw(rng: random.Random, choices: Sequence[Structure], split: str) -> Facts:
    """One problem's facts; numbers are drawn again until every step comes out whole and positive."""
    structure = rng.choice(choices)
    first, second = rng.sample(range(PEOPLE[split]), 2)
    thing = rng.choice(THINGS)
    while True:
        numbers = tuple(rng.choice(pool(split, size)) for _, size in structure.sizes)
        if solve(structure, numbers) is not None:
            return Facts(structure, (first, second), thing, numbers)


def facts(n: int, seed: int, split: str, steps: Sequence[int], operations: str) -> Iterator[Facts]:
    """The first n different problems of a seed; a longer run begins with the shorter one."""
    fits = [s for s in structures() if s.split == split and len(s.operations) in steps]
    choices = [s for s in fits if all(sign in operations for _, sign, _ in s.operations)]
    if not choices:
        raise RecipeError("no word problems of this kind", found=f"split={split}, steps={list(steps)}, operations={operations}",
                          expected="steps from 1 to 4 and a template whose operations are all allowed")  # fmt: skip
    rng = random.Random(f"{seed}/{split}/{sorted(steps)}/{operations}")  # a string seeds through SHA-512: no hash seed enters
    seen: set[Facts] = set()
    misses = 0
    while len(seen) < n:
        found = draw(rng, choices, split)
        named = replace(found, people=tuple(p for p, letter in zip(found.people, "AB") if letter in mentions(found.structure.id)))
        misses = misses + 1 if named in seen else 0
        if misses > 1000:
            raise RecipeError("fewer different problems of this kind exist", found=f"n={n}", expected=f"n up to about {len(seen)}")
        if not misses:
            seen.add(named)
            yield found


@cache
def mentions(template: str) -> str:
    """Which of the people A and B a template speaks of, the same in every language: two problems that differ in others are one."""
    return "".join(letter for letter in "AB" if f"{{{letter}" in words("en")["problems"][template])


def distractors(steps: Sequence[tuple[int, str, int, int]], rng: random.Random) -> tuple[int, ...]:
    """Three wrong answers that a slip would give: another operation, a step forgotten, one or ten too many or too few."""
    x, sign, y, answer = steps[-1]
    other = {"+": abs(x - y), "-": x + y, "*": x + y, "/": x - y}[sign]
    side = rng.choice((1, -1))
    slips = [other, *(s[3] for s in steps[-2:-1]), *(answer + d for d in (side, 10 * side, -side, 10, 2))]
    return tuple(list(dict.fromkeys(s for s in slips if s > 0 and s != answer))[:3])


def nouns(language: str, split: str, people: Sequence[int], thing: str) -> dict[str, Noun]:
    """The nouns that a template may name: A and B the people, o the things, m the money."""
    data = words(language)
    named = {letter: name(language, split, person) for letter, person in zip("ABCD", people)}
    other = {key: Noun(forms) for key, forms in data.get("nouns", {}).items()}
    return named | other | {"o": Noun(data["objects"][thing]), "m": Noun(data["money"])}


MOST = 1_000_000  # in one call; more takes minutes and memory, and no evaluation or expert of this kind needs it


def check_count(n: int) -> None:
    """Raises RecipeError for a number of texts that cannot be meant."""
    if not 0 <= n <= MOST:
        raise RecipeError("not a number of texts that can be made", found=f"{n:,}", expected=f"at most {MOST:,}")


def check_split(split: str) -> None:
    """Raises RecipeError for a split other than train, dev, test."""
    if split not in RESIDUES:
        raise RecipeError("no such split", found=split, fix=suggestion(split, RESIDUES))


def generate(
    language: str, n: int, seed: int = 0, split: str = "test", steps: Sequence[int] = (1,), operations: str = "+-*/"
) -> list[Problem]:
    """n different problems. `operations` limits which signs may occur ("+-" for sums and differences only).

    The same seed, split, steps and operations give the same problems, with the same ids, in every language.
    Raises RecipeError for an unknown language or split, or more problems than exist.
    """
    data = words(language)
    check_split(split)
    check_count(n)
    kind = f"{split}-{seed}-{''.join(map(str, sorted(steps)))}{operations if operations != '+-*/' else ''}"
    drawn = facts(n, seed, split, steps, operations)
    return [_tell(fact, f"{kind}-{index:05d}", language, data) for index, fact in enumerate(drawn)]


def _tell(fact: Facts, id: str, language: str, data: dict) -> Problem:
    structure = fact.structure
    steps = solve(structure, fact.numbers)
    assert steps is not None  # draw() kept it only because it solves
    numbers = dict(zip((letter for letter, _ in structure.sizes), fact.numbers))
    question = fill(data["problems"][structure.id], language, nouns(language, structure.split, fact.people, fact.thing), numbers)
    answer = steps[-1][3]
    return Problem(
        id=id,
        language=language,
        question=capital(question),
        answer=answer,
        solution="\n".join(f"{x} {sign} {y} = {result}" for x, sign, y, result in steps),
        sentence=data["answer"].format(r=answer),
        steps=len(steps),
        template=structure.id,
        distractors=distractors(steps, random.Random(id)),
    )


def prompt(problem: Problem) -> str:
    """The question with its labels, ending where the answer begins: append a space and the solution."""
    return words(problem.language)["prompt"].format(q=problem.question)


def question_text(language: str, n: int, seed: int = 0, split: str = "train", steps: Sequence[int] = (1, 2)) -> list[str]:
    """n questions without answers, one a document: text about the same world for a language expert that sees no solved problem."""
    return [problem.question for problem in generate(language, n, seed, split, steps)]


__all__ = ["Problem", "generate", "languages", "prompt", "question_text"]
