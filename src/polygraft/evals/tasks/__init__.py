"""Tasks: small YAML files that say where the items lie, how they are asked and what counts as an answer; run by lm-eval.

`data/*.yaml` are the shipped ones. A task is named with its version (`mgsm@1`): a change that moves scores is a new version.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from polygraft.config import Strict, parse
from polygraft.errors import RecipeError, suggestion
from polygraft.evals import answers
from polygraft.evals.tasks.reading import Item, Labels, ProblemKind, Source, load_items
from polygraft.yamltext import read_document

FOLDER = Path(__file__).parent / "data"
CHOICE = "multiple_choice"


class Generation(Strict):
    """lm-eval's generation options: new tokens at most, and strings that end an answer besides the next question's label."""

    max_gen_toks: int
    until: tuple[str, ...] = ()


class Task(Strict):
    """One task file. `languages` is empty for tasks whose items bring their own prompts."""

    task: str
    version: int
    output_type: Literal["multiple_choice", "generate_until"]
    source: Source
    generation: Generation | None = None
    languages: dict[str, Labels] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.task}@{self.version}"

    def known_languages(self) -> tuple[str, ...]:
        if self.source.kind == "problems":
            from polygraft.evals.tasks import problems

            return tuple(problems.languages())
        return tuple(self.languages)


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in FOLDER.glob("*.yaml")))


@cache
def load(name: str) -> Task:
    """The task of this name, with or without its version. Raises RecipeError for a name or version that is not shipped."""
    stem, _, version = name.partition("@")
    if stem not in names():
        raise RecipeError("no such task", found=name, fix=suggestion(stem, names()))
    task = parse(Task, read_document(FOLDER / f"{stem}.yaml"))
    if version not in ("", str(task.version)):
        raise RecipeError("this version of the task is not here", found=name, expected=task.name,
                          fix="use the version that is here, or the polygraft release that had the other one")
    return task


def check_language(task: Task, language: str) -> None:
    """Raises RecipeError for a language that the task does not have."""
    if language not in task.known_languages():
        raise RecipeError(f"{task.task} has no such language", found=language, fix=suggestion(language, task.known_languages()))


def items(task: Task, language: str, *, data: Path | None = None, limit: int | None = None, seed: int = 0, shots: int = 0,
          kind: ProblemKind | None = None, offline: bool = False) -> list[Item]:
    """The task's items in one language, the first `limit` of them: the same ones, in the same order, in every language.

    Raises InputError for data that is missing or damaged, RecipeError for a language or number of shots that does not exist.
    """
    check_language(task, language)
    return load_items(task.source, task.languages.get(language), language, data=data, limit=limit, seed=seed, shots=shots,
                      kind=kind or ProblemKind(), offline=offline)


def markers(task: Task, language: str) -> tuple[str, ...]:
    labels = task.languages.get(language)
    return tuple(labels.markers) if labels else ()


def lm_eval_config(task: Task, language: str, found: Sequence[Item]) -> dict[str, Any]:
    """The task as lm-eval takes it. Prompts are already written out, so that what lm-eval sends is what the records hold."""
    from datasets import Dataset

    docs = Dataset.from_list([{"id": i.id, "prompt": i.prompt, "gold": i.gold, "choices": list(i.choices)} for i in found])
    config: dict[str, Any] = {
        "task": f"{task.task}.{language}", "custom_dataset": lambda **_: {"test": docs}, "test_split": "test",
        "output_type": task.output_type, "doc_to_text": "prompt", "num_fewshot": 0, "metadata": {"version": task.version},
    }
    if task.output_type == CHOICE:
        return config | {"doc_to_choice": "choices", "doc_to_target": 0, "target_delimiter": " ",
                         "process_results": score_choice, "metric_list": _metrics("accuracy", "nats", "margin")}
    assert task.generation is not None
    labels = task.languages.get(language)
    stops = [*task.generation.until, *([labels.question.strip()] if labels else [])]
    options = {"max_gen_toks": task.generation.max_gen_toks, "until": stops, "do_sample": False}
    return config | {"doc_to_target": "gold", "generation_kwargs": options, "metric_list": _metrics("accuracy"),
                     "process_results": lambda doc, results: score_text(results[0], doc["gold"], markers(task, language))}


def _metrics(*found: str) -> list[dict[str, Any]]:
    return [{"metric": m, "aggregation": "mean", "higher_is_better": m != "nats"} for m in found]


def score_choice(doc: dict[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """The gold continuation comes first. `nats` is what it costs, `margin` by how much it beats the likeliest wrong one.

    A tie is not a win: a model that cannot tell them apart has not answered. Without wrong ones the answer is right if each of
    its tokens is the likeliest, so that greedy writing would produce it.
    """
    likelihood = [float(r[0]) for r in results]
    if len(likelihood) == 1:
        return {"accuracy": float(bool(results[0][1])), "nats": -likelihood[0], "margin": 0.0}
    margin = likelihood[0] - max(likelihood[1:])
    return {"accuracy": float(margin > 0), "nats": -likelihood[0], "margin": margin}


def score_text(text: str, gold: str, found_after: Sequence[str]) -> dict[str, float]:
    return {"accuracy": float(answers.correct(text, gold, found_after))}
