"""The methods: when each applies, in one sentence when it does not, and its steps as entries of a recipe.

An entry is what stands under `steps:`. The last entry of a method that makes a model has the method's own name as its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.poc.config import METHODS, Poc, Stage
from polygraft.poc.decision import Reason
from polygraft.poc.facts import WANTED, WINDOW, Facts
from polygraft.poc.texts import ENGLISH, Texts

Entry = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is done, the same for every method. `steps` of training with `rows` examples of at most `length` tokens; `items` of
    each task at most; `read` tokens of each language where a method looks before it acts; `windows` that pruning reads."""

    stage: Stage
    steps: int
    rows: int
    length: int
    items: int
    read: int
    windows: int
    max_bytes: int


@dataclass(frozen=True)
class Method:
    """`lacks(facts)` says why it does not apply; `steps(config, texts, facts, sizes)` makes its entries. `shared` names entries of
    `shared_steps` that it stands on; `trains` whether it takes training steps; `model` whether it writes one."""

    name: str
    title: str
    lacks: Callable[[Facts], Reason | None]
    steps: Callable[[Poc, Texts, Facts, Sizes], list[Entry]]
    shared: tuple[str, ...] = ()
    trains: bool = True
    model: bool = True
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ when it applies


def _text(facts: Facts) -> Reason | None:
    return None if "text" in facts.given else Reason("no-text", {"language": facts.name})


def swap_lacks(facts: Facts) -> Reason | None:
    """Two experts of one base are needed; an instruct model is one of a task."""
    if not facts.given & {"task_expert", "instruct", "data"}:
        return Reason("no-expert", {"missing": "task", "give": "--data with examples of it"})
    if not facts.given & {"language_expert", "text"}:
        return Reason("no-expert", {"missing": "language", "give": "--text"})
    return None


def prune_lacks(facts: Facts) -> Reason | None:
    """A window of the language and one of English are the least that calibration can read."""
    if lacking := _text(facts):
        return lacking
    for language, name, give in ((facts.language, facts.name, "--text"), (ENGLISH, "English", "--other en=FILE")):
        if facts.windows.get(language, 1) < 1:
            return Reason("short-text", {"language": name, "give": give})
    return None


def slam_lacks(facts: Facts) -> Reason | None:
    return _text(facts) if "pairs" in facts.given else Reason("no-pairs", {"language": facts.name})


def lep_lacks(facts: Facts) -> Reason | None:
    """LEP (arXiv 2412.21140) carries what the base learned over to its instruct sibling."""
    if "instruct" not in facts.given:
        return Reason("no-instruct")
    if lacking := _text(facts):
        return lacking
    if facts.vocabulary.why:
        return Reason("tokenizer-fixed", {"why": facts.vocabulary.why})
    if facts.vocabulary.gain < WANTED or not facts.vocabulary.added:
        return Reason("tokenizer-fits", {"gain": f"{facts.vocabulary.gain:.2f}", "wanted": f"{WANTED:g}"})
    return None


# --------------------------------------------------------------------------------------------------------------------- steps


def at(name: str) -> str:
    """A file of the inputs as the recipe names it."""
    return f"inputs/{name}"


def here(path: object) -> str:
    """A file of the user's, from wherever the recipe is read."""
    return str(Path(str(path)).expanduser().absolute())


def _training(sizes: Sizes, config: Poc, steps: int | None = None) -> Entry:
    return {"steps": steps or sizes.steps, "batch": sizes.rows, "length": sizes.length, "seed": config.seed}


def _plain(texts: Texts) -> Entry:
    """Text as it is, cut into rows as long as they may be."""
    return {"data": [at(texts.learn)], "answer_only": False, "blocks": True}


def trained_experts(facts: Facts) -> tuple[bool, bool]:
    """Whether a swap trains its task expert and its language expert."""
    return not facts.given & {"task_expert", "instruct"}, "language_expert" not in facts.given


def swap_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """Layer swapping (arXiv 2410.01335), with its defaults; experts that are missing are trained as LoRA adapters of the base."""
    trained = trained_experts(facts)
    half = max(1, sizes.steps // max(1, sum(trained)))
    task = "swap-task" if trained[0] else "task_expert" if "task_expert" in facts.given else "instruct"
    language = "swap-language" if trained[1] else "language_expert"
    out: list[Entry] = []
    if trained[0]:
        out.append({"id": "swap-task", "use": "tune.sft", "model": "base", "data": [here(config.data)],
                    **_training(sizes, config, half)})
    if trained[1]:
        out.append({"id": "swap-language", "use": "tune.sft", "model": "base", **_plain(texts), **_training(sizes, config, half)})
    return [*out, {"id": "swap", "use": "merge.swap", "task": task, "language": language, "base": "base"}]


def slam_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """SLAM (arXiv 2501.03681) on the layers in which languages differ most."""
    return [{"id": "slam", "use": "tune.slam", "model": facts.today, "select": "layers:chosen",
             "pairs": {config.lang: here(config.pairs)}, "accumulate": 1, **_training(sizes, config)}]


def neuron_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """Sparse subnetwork enhancement (arXiv 2510.13580): the language's own neurons learn from its text."""
    return [{"id": "neurons", "use": "tune.neurons", "model": facts.today, "select": f"owned:{config.lang}", **_plain(texts),
             **_training(sizes, config)}]


def lep_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """LEP: the base learns new tokens, the instruct model takes them over by the conversion that its authors found best."""
    return [
        {"id": "lep-extend", "use": "vocab.extend", "model": "base", "corpus": {config.lang: at(texts.learn)},
         "measure": {config.lang: at(texts.held)}, "size": facts.vocabulary.added},
        {"id": "lep-start", "use": "vocab.init", "model": "base", "tokenizer": "lep-extend"},
        {"id": "lep-donor", "use": "tune.embeddings", "model": "lep-start", "base": "base", "rows": ["new"], "lr": 1e-3,
         **_plain(texts), **_training(sizes, config)},
        {"id": "lep", "use": "vocab.propagate", "base": "base", "instruct": "instruct", "donor": "lep-donor"},
    ]


def prune_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """Wanda (arXiv 2306.11695), calibrated on the language and on English."""
    parts = calibration(facts, sizes)
    corpus = {config.lang: at(texts.learn), ENGLISH: at(texts.others[ENGLISH][0])}
    return [{"id": "prune", "use": "prune", "model": facts.today, "corpus": corpus, "samples": sum(parts.values()),
             "calibrate": parts, "seq_len": min(WINDOW, sizes.length), "seed": config.seed}]


def calibration(facts: Facts, sizes: Sizes) -> dict[str, int]:
    """Windows by language: half are English, or as many as there are; the others are of the language, as far as it has them."""
    half = max(1, sizes.windows // 2)
    english = min(half, facts.windows.get(ENGLISH, half))
    rest = max(1, sizes.windows - english)
    return {facts.language: min(rest, facts.windows.get(facts.language, rest)), ENGLISH: english}


def steer_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> list[Entry]:
    """The language's neurons held at the values that they have in its text; evaluated as it runs, so it is its own evaluation."""
    return [{"id": "steer", "use": "steer", "model": facts.today, "activity": "read", "select": [f"owned:{config.lang}"],
             "way": ["mean"], "controls": 1, "seed": config.seed}]


def shared_steps(config: Poc, texts: Texts, facts: Facts, sizes: Sizes) -> dict[str, Entry]:
    """What several methods stand on: text read once, the language's neurons, the layers in which languages differ."""
    corpus = {config.lang: at(texts.learn)} | {g: at(found) for g, (found, _) in texts.others.items()} if texts.learn else {}
    common = {"model": facts.today, "activity": "read", "seed": config.seed}
    return {
        "read": {"id": "read", "use": "analyze.activity", "model": facts.today, "corpus": corpus, "tokens": sizes.read,
                 "window": min(256, facts.longest), "seed": config.seed},
        "owned": {"id": "owned", "use": "analyze.neurons", **common},
        "layers": {"id": "layers", "use": "analyze.deviation", **common},
    }


TABLE: Mapping[str, Method] = {m.name: m for m in (
    Method("swap", "Layer swap", swap_lacks, swap_steps),
    Method("slam", "SLAM", slam_lacks, slam_steps, ("read", "layers")),
    Method("neurons", "Neuron rows", _text, neuron_steps, ("read", "owned")),
    Method("lep", "New vocabulary (LEP)", lep_lacks, lep_steps, notes=("note-vocabulary", "note-tables")),
    Method("prune", "Calibrated pruning", prune_lacks, prune_steps, trains=False, notes=("note-zeros",)),
    Method("steer", "Steering", _text, steer_steps, ("read", "owned"), trains=False, model=False, notes=("note-edits",)),
)}  # fmt: skip
assert tuple(TABLE) == METHODS


def lacking(facts: Facts) -> dict[str, Reason]:
    """Why each method that does not apply does not."""
    found = {name: m.lacks(facts) if name in facts.asked else Reason("not-asked") for name, m in TABLE.items()}
    return {name: reason for name, reason in found.items() if reason is not None}
