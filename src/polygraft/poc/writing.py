"""The recipe of a stage: the steps of the methods that apply, each method evaluated beside doing nothing, and the files they read.

`poc.yaml` is an ordinary recipe that can be read, changed and run by hand. One evaluation a method, so that a method that fails
takes no other with it; what doing nothing answered is found again in the response store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.files import write_atomic
from polygraft.poc.config import Poc
from polygraft.poc.evaluation import Target
from polygraft.poc.facts import Facts
from polygraft.poc.methods import TABLE, Entry, Sizes, at, shared_steps
from polygraft.poc.texts import Texts
from polygraft.recipetext import VERSION, dump, rooted

FILE, INPUTS = "poc.yaml", "inputs"
SCORES, CHANGE = "scores-", "change-"
TODAY = {"base": "base model", "instruct": "instruct model", "task_expert": "task expert"}
PROBLEMS = ("en", "es", "fr", "de", "ru", "sw", "ja")  # the languages of the procedural problems


@dataclass(frozen=True)
class Written:
    """A recipe's text, and to which methods each of its steps belongs."""

    text: str
    owners: dict[str, tuple[str, ...]]


def recipe(name: str, config: Poc, target: Target, texts: Texts, facts: Facts, sizes: Sizes, methods: Sequence[str]) -> Written:
    """The recipe of these methods at these sizes."""
    shared = shared_steps(config, texts, facts, sizes)
    steps: list[Entry] = []
    owners: dict[str, tuple[str, ...]] = {}
    for id, entry in shared.items():
        if users := tuple(m for m in methods if id in TABLE[m].shared):
            steps.append(entry)
            owners[id] = users
    for m in methods:
        own = [_apart(e, config, target) for e in TABLE[m].steps(config, texts, facts, sizes)]
        own = [*own, *_measured(m, config, target, texts, facts, sizes)] if TABLE[m].model else [
            *own[:-1], own[-1] | asked(config, target, texts, sizes)]
        steps += own
        owners |= {e["id"]: (m,) for e in own}
    return Written(_text(name, config, facts, sizes, steps), owners)


def _apart(entry: Entry, config: Poc, target: Target) -> Entry:
    """A training leaves out every example that holds an item of the evaluation; any other step is as it was."""
    if not entry["use"].startswith("tune."):
        return entry
    return {**entry, "mix": {"against": [at(target.task)]}, "watch": {"langs": [config.lang]}}


def _measured(method: str, config: Poc, target: Target, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """The evaluation of a method's model beside doing nothing, and where its weights changed."""
    corpora = {g: at(held) for g, (_, held) in texts.others.items()}
    corpora |= {config.lang: at(texts.held)} if texts.held else {}
    scores = {"id": f"{SCORES}{method}", "use": "eval", "models": [facts.today, method], "corpora": corpora,
              "max_bytes": sizes.max_bytes, **asked(config, target, texts, sizes)}
    change = {"id": f"{CHANGE}{method}", "use": "analyze.delta", "base": facts.today, "models": [method], "top": 0,
              "draw": ["unchanged", "frobenius"]}
    return [scores] if method == "lep" else [scores, change]


def asked(config: Poc, target: Target, texts: Texts, sizes: Sizes) -> Entry:
    """What every method is asked, the same items of each."""
    own = [at(target.task), *(at(t) for t in (texts.write, texts.copy) if t)]
    others = [f"problems:{g}" for g in texts.others if g in PROBLEMS]
    return {"tasks": [*own, *others], "langs": [config.lang], "limit": sizes.items, "chat": config.chat, "seed": config.seed}


def _text(name: str, config: Poc, facts: Facts, sizes: Sizes, steps: list[Entry]) -> str:
    head = (f"# Written by `polygraft poc`, {sizes.stage} stage. A recipe like any other: read it, change a copy, run it by hand.\n"
            f"#   polygraft plan {FILE} --root ..\n#   polygraft run {FILE} --root ..\n")
    question = f"Which method makes the {TODAY[facts.today]} better in {facts.name}, at what loss elsewhere and at what cost?"
    tree: dict[str, Any] = {"recipe": VERSION, "name": name, "question": question,
                            "models": {k: _model(k, v, facts) for k, v in config.models.items()}, "steps": steps}
    return head + dump(tree)


def _model(name: str, spec: str, facts: Facts) -> str | dict[str, str]:
    """A model as the recipe names it, from wherever it is read."""
    found = rooted(spec, Path.cwd())
    return {"adapter": found, "base": "base"} if name in facts.adapters else found


def write_inputs(folder: Path, target: Target, texts: Texts) -> None:
    """Put the files that the recipe reads below `folder`; their names tell their content, so what is there is left."""
    for name, data in {**target.files, **texts.files}.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != len(data):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
