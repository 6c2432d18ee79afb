"""What a world writes: texts and examples, parallel sentences, tasks for `polygraft eval`, the model to train."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.world import meaning, texts
from polygraft.world.grammar import Language

Rows = Iterable[Mapping[str, Any]]
TASKS = {
    "sums": {"doc_to_text": "{{question}}", "doc_to_choice": "options", "stratum": "verb"},
    "facts": {"doc_to_choice": "options", "target_delimiter": "", "stratum": "told"},
    "order": {"doc_to_choice": "options", "target_delimiter": ""},
}
CHANCE = {"sums": 1 / meaning.CHOICES, "facts": 1 / meaning.CHOICES, "order": 1 / 2}


@dataclass(frozen=True)
class Sizes:
    """How much of everything. `base` and `language` count documents, `shares` says how the base's are dealt to the languages."""

    base: int
    shares: tuple[float, ...]
    translation: float
    noted: float
    language: int
    stories: int
    items: int
    parallel: int
    sentences: int


def contents(told: Sequence[Language], seed: int, size: Sizes) -> dict[str, list[str] | list[dict[str, Any]]]:
    """Every text file by its name: lines of `.txt`, rows of `.jsonl`."""
    facts = meaning.facts(seed)
    known = [texts.known(facts, i) for i in range(len(told))]
    everywhere = [f for f in facts if f.everywhere]
    train, test = meaning.stories(size.stories, seed, "train"), meaning.stories(size.items, seed, "test")
    found: dict[str, list[str] | list[dict[str, Any]]] = {"train/base.jsonl": _base(told, known, seed, size)}
    for i, language in enumerate(told):
        tag = language.tag
        more = texts.plain(language, known[i], size.language, f"language/{seed}/{tag}", size.sentences, size.noted)
        found[f"train/language-{tag}.jsonl"] = [{"text": t} for t in more]
        found[f"train/sums-{tag}.jsonl"] = list(texts.sums(language, train))
        if i:
            found[f"train/reading-{tag}.jsonl"] = list(texts.read_as(language, told[0], train))
        for part in ("find", "read"):
            told_in = (language, everywhere, size.parallel, f"{part}/{seed}", size.sentences, size.noted)
            found[f"parallel/{tag}.{part}.txt"] = texts.plain(*told_in)
        found[f"tasks/sums_{tag}.jsonl"] = list(texts.asked_sums(language, test, seed))
        found[f"tasks/facts_{tag}.jsonl"] = list(texts.asked_facts(language, facts, seed))
        found[f"tasks/order_{tag}.jsonl"] = list(texts.asked_order(language, size.items, seed))
    return found


def _base(told: Sequence[Language], known: Sequence[Sequence[meaning.Fact]], seed: int, size: Sizes) -> list[dict[str, Any]]:
    """The mixture that the model learns first: documents of every language, and translations of every pair."""
    across = round(size.base * size.translation)
    found = texts.translations(told, known[0], across, f"translation/{seed}", max(1, size.sentences // 2),
                               size.noted)  # fmt: skip
    for language, facts, share in zip(told, known, size.shares, strict=True):
        found += texts.plain(language, facts, round((size.base - across) * share), f"base/{seed}/{language.tag}", size.sentences,
                             size.noted)  # fmt: skip
    return [{"text": t} for t in found]


def write(folder: Path, found: Mapping[str, list[str] | list[dict[str, Any]]], told: Sequence[Language]) -> None:
    """Write the files of `contents` and the tasks that ask them."""
    for name, rows in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name, asked in TASKS.items():
        (folder / "tasks" / f"{name}.yaml").write_text(task(name, asked, told), encoding="utf-8")


def task(name: str, asked: Mapping[str, str], told: Sequence[Language]) -> str:
    """A task file in the words of docs/tasks.md; a JSON string is a YAML one."""
    said = {"task": f"world-{name}", "output_type": "multiple_choice", **asked, "doc_to_target": "{{answer}}", "id": "{{id}}",
            "source": {"files": [f"{name}_{{code}}.jsonl"]}, "languages": {language.tag: {} for language in told}}
    if "doc_to_text" not in said:
        said["doc_to_text"] = ""
    return f"# chance: {CHANCE[name]:.0%}\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in said.items())
