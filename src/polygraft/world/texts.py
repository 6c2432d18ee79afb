"""A world's texts and questions in its languages: what is trained on, what is read, what is asked. Pure functions of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from polygraft.world import meaning
from polygraft.world.grammar import Language
from polygraft.world.meaning import CHOICES, KINDS, Clause, Fact, Story

EQUALS = "="  # stands between a text and its translation
ORDERS = ("SVO", "SOV", "VSO", "OVS", "VOS", "OSV")


def known(facts: Sequence[Fact], language: int) -> list[Fact]:
    """The facts that language number `language` tells."""
    return [f for f in facts if f.everywhere or language == 0]


def document(language: Language, clauses: Sequence[Clause]) -> str:
    """A document as text; each question is answered."""
    answers = (f" {language.words[meaning.answer(c, clauses)]} ." if c.asks else "" for c in clauses)
    return " ".join(language.clause(c) + said for c, said in zip(clauses, answers))


def plain(language: Language, facts: Sequence[Fact], n: int, seed: str, sentences: int, noted: float = 0.0) -> list[str]:
    """n documents of one language. The same seed and facts mean the same in every language."""
    drawn = meaning.documents(random.Random(seed), facts, sentences, noted)
    return [document(language, clauses) for clauses in islice(drawn, n)]


def translations(languages: Sequence[Language], facts: Sequence[Fact], n: int, seed: str, sentences: int,
                 noted: float = 0.0) -> list[str]:  # fmt: skip
    """n documents of sentences in one language, each followed by itself in another one."""
    rng = random.Random(seed)
    drawn = meaning.documents(rng, [f for f in facts if f.everywhere], sentences, noted)
    found = []
    for clauses in islice(drawn, n):
        one, two = rng.sample(list(languages), 2)
        found.append(" ".join(f"{one.clause(c)} {EQUALS} {two.clause(c)}" for c in clauses))
    return found


def question(language: Language, story: Story) -> str:
    return language.text(story.clauses())


def sums(language: Language, told: Sequence[Story]) -> list[dict[str, str]]:
    """Stories as training examples: prompt, completion."""
    return [{"prompt": question(language, s), "completion": f" {language.words[f'number.{s.answer}']}"} for s in told]


def read_as(language: Language, first: Language, told: Sequence[Story]) -> list[dict[str, str]]:
    """Stories to be put into the first language, none solved: what teaches a model that reasons in it to read another one."""
    return [{"prompt": f"{question(language, s)} {EQUALS}", "completion": f" {question(first, s)}"} for s in told]


# ---------------------------------------------------------------------------------------------------------------- asking


def asked_sums(language: Language, told: Sequence[Story], seed: int) -> Iterator[dict[str, Any]]:
    """Stories as rows of a task: question, four options, the place of the right one, the verb."""
    for i, story in enumerate(told):
        options, right = story.options(random.Random(f"options/{seed}/{i}"))
        yield {"id": i, "question": question(language, story), "options": [language.words[f"number.{n}"] for n in options],
               "answer": right, "verb": story.verb}


def asked_facts(language: Language, facts: Sequence[Fact], seed: int) -> Iterator[dict[str, Any]]:
    """Facts as rows: the sentence with a gap is the question, told so that the object is what comes last. Chance is 1/4."""
    for i, fact in enumerate(facts):
        rng, right = random.Random(f"facts/{seed}/{i}"), fact.clause.object[0]
        kind = right.partition(".")[0]
        wrong = rng.sample([f"{kind}.{k}" for k in range(KINDS[kind]) if f"{kind}.{k}" != right], CHOICES - 1)
        options = [right, *wrong]
        rng.shuffle(options)
        said = [language.clause(Clause(fact.clause.subject, fact.clause.verb, (o,))) for o in options]
        yield {"id": i, "options": said, "answer": options.index(right), "told": "everywhere" if fact.everywhere else "first"}


def asked_order(language: Language, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Pairs of sentences of the same words, one in the language's order and one not. Chance is 1/2."""
    rng = random.Random(f"order/{seed}")
    drawn = (c for clauses in meaning.documents(rng, meaning.facts(seed)[::4], 4) for c in clauses if not c.asks)
    for i, clause in enumerate(islice(drawn, n)):
        draw = random.Random(f"order/{seed}/{i}")
        wrong = language.told(clause, draw.choice([o for o in ORDERS if o != language.order]))
        pair = [language.clause(clause), wrong]
        right = draw.randrange(2)
        yield {"id": i, "options": pair if right == 0 else pair[::-1], "answer": right}
