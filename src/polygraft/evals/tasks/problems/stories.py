"""Procedural prose about the world of the problems: who has what, where, on which day, at what price. No sum is ever worked out.

Text for a language expert that must not see solved mathematics. Like the problems, a story is drawn before it is put into words.
"""

from __future__ import annotations

import json
import random
from functools import cache

from polygraft.errors import RecipeError, suggestion
from polygraft.evals.tasks.problems.generate import PEOPLE, THINGS, check_count, check_split, nouns, pool
from polygraft.evals.tasks.problems.text import DATA, Noun, capital, fill, words


def story_languages() -> tuple[str, ...]:
    """Tags of the languages that stories are written in, sorted."""
    names = (f.name for f in DATA.iterdir())
    return tuple(sorted(n.removeprefix("stories-").removesuffix(".json") for n in names if n.startswith("stories-")))


@cache
def sentences(language: str) -> dict[str, list[str]]:
    """The sentence bank of a language: `open`, `middle`, `close`, and the words for `day` and `place`."""
    if language not in story_languages():
        raise RecipeError("no stories in this language", found=language, fix=suggestion(language, story_languages()))
    return json.loads((DATA / f"stories-{language}.json").read_text("utf-8"))


def stories(language: str, n: int, seed: int = 0, split: str = "train", length: int = 8) -> list[str]:
    """n documents of `length` sentences on average (at least 3). Raises RecipeError for an unknown language or split.

    The same seed and split tell the same stories in every language; names and numbers keep to the split.
    """
    check_split(split)
    check_count(n)
    return [_story(language, random.Random(f"story/{seed}/{split}/{index}"), split, length) for index in range(n)]


def _story(language: str, rng: random.Random, split: str, length: int) -> str:
    bank = sentences(language)
    people = rng.sample(range(PEOPLE[split]), 3)
    thing, other = rng.sample(THINGS, 2)
    named = nouns(language, split, people, thing) | {"p": Noun(words(language)["objects"][other])}
    count = min(len(bank["middle"]), max(1, length - 2 + rng.randint(-2, 2)))
    plan = [("open", rng.randrange(len(bank["open"])))]
    plan += [("middle", place) for place in rng.sample(range(len(bank["middle"])), count)]
    plan.append(("close", rng.randrange(len(bank["close"]))))
    return words(language).get("space", " ").join(_sentence(language, bank[part][place], rng, split, named) for part, place in plan)


def _sentence(language: str, template: str, rng: random.Random, split: str, named: dict[str, Noun]) -> str:
    """One sentence. Its numbers fall (a > b > c), so what a template says about more and fewer is true."""
    bank = sentences(language)
    c, b, a = sorted(rng.sample(pool(split, "m"), 3))
    numbers = {"a": a, "b": b, "c": c, "s": rng.choice(pool(split, "s")), "h": rng.choice(pool(split, "s"))}
    scene = {slot: Noun({"n": bank[slot][rng.randrange(len(bank[slot]))]}) for slot in ("day", "place")}
    return capital(fill(template, language, named | scene, numbers))


__all__ = ["stories", "story_languages"]
