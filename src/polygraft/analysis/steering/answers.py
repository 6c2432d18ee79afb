"""Answers with and without edits, side by side, and which language they are in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polygraft import data
from polygraft.analysis.steering.bench import Bench
from polygraft.edits import Edits, applied
from polygraft.errors import InputError
from polygraft.result import Cell, Estimate, Sample, Table
from polygraft.stats import wilson

PLAIN = "unedited"
SHOWN, LENGTH = 3, 200  # prompts shown beside one another, and characters of each answer


def prompts(path: Path) -> list[str]:
    """One prompt a line (.txt), or the field `prompt` of each object (.jsonl). Raises InputError."""
    if data.ending(path).startswith(".jsonl"):
        found = []
        for where, line in data.lines(path):
            try:
                row = json.loads(data.decode(line, where))
            except json.JSONDecodeError as e:
                raise InputError("not a line of JSON", where=where, found=str(e)[:120]) from None
            if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
                raise InputError("no prompt in this line", where=where, expected='{"prompt": "..."}')
            found.append(row["prompt"])
    else:
        found = list(data.open_corpus("und", path).documents())
    if not found:
        raise InputError("no prompts", where=path, expected="one a line")
    return found


def ask(live: Any, edits: Mapping[str, Edits], asked: Sequence[str], bench: Bench, *, max_tokens: int,
        chat: bool) -> dict[str, list[str]]:
    """Answers of the unedited model and under each of `edits`, by their names; every answer greedy."""
    out = {PLAIN: list(bench.write(live, asked, max_tokens, chat))}
    for name, work in edits.items():
        with applied(live, work):
            out[name] = list(bench.write(live, asked, max_tokens, chat))
    return out


def at_random(name: str) -> str:
    """The name of a condition's random control."""
    return f"{name}, random"


def changed(answers: Mapping[str, Sequence[str]], name: str) -> str:
    """How many answers a condition changed, beside those that its random control did, in a sentence."""
    def count(condition: str) -> int:
        return sum(map(str.__ne__, answers[PLAIN], answers[condition]))

    said = f"Under {name}, {count(name)} of {len(answers[name])} answers changed"
    if at_random(name) not in answers:
        return f"{said}; no random control was asked."
    return f"{said}, under a random edit of its size {count(at_random(name))}."


def samples(asked: Sequence[str], answers: Mapping[str, Sequence[str]], bench: Bench) -> tuple[Sample, ...]:
    """Every prompt with its answers."""
    return tuple(Sample(f"prompt {i + 1}", bench.language(prompt), prompt, {name: found[i] for name, found in answers.items()})
                 for i, prompt in enumerate(asked))


def beside(asked: Sequence[str], answers: Mapping[str, Sequence[str]]) -> Table:
    """The first answers of the unedited model and under each edit, cut short; random edits' are left to the samples."""
    shown = [name for name in answers if name == PLAIN or name not in map(at_random, answers)]
    rows = tuple((i + 1, _short(prompt) if name == PLAIN else "", name, _short(answers[name][i]))
                 for i, prompt in enumerate(asked[:SHOWN]) for name in shown)
    said = f"The first {SHOWN} of {len(asked)} prompts" if len(asked) > SHOWN else "All prompts"
    return Table("Answers side by side", ("prompt", "text", "condition", "answer"), rows,
                 f"{said}, to {LENGTH} characters. Whole answers, and those under random edits, are in result.json (samples).")


def _short(text: str) -> str:
    """On one line, and cut."""
    line = " ".join(text.split())
    return f"{line[:LENGTH].rstrip()} ..." if len(line) > LENGTH else line or "(empty)"


def table(answers: Mapping[str, Sequence[str]], language: str, bench: Bench) -> Table:
    """How many answers are in the target language ("": none was named), in none that can be told, and unlike the unedited ones."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in answers.items():
        tags, n = [bench.language(text) for text in found], len(found)
        low, high = wilson(tags.count(language), n)
        own = Estimate(100 * tags.count(language) / n, 100 * low, 100 * high, n, "%") if language else None
        other = sum(a != b for a, b in zip(found, answers[PLAIN]))
        listed = ", ".join(f"{tag} {tags.count(tag)}" for tag in sorted(set(tags), key=lambda t: (-tags.count(t), t)))
        rows.append((name, own, tags.count("und"), other, listed))
    columns = ("condition", f"in {language or 'the target language'}", "cannot be told", "changed", "languages")
    return Table("Language of the answers", columns, tuple(rows),
                 "Wilson intervals; beside each a random edit of its size. Languages are of whole answers, by script and n-grams.")
