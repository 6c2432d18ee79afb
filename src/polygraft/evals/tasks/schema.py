"""What a task file may say. Names are lm-eval's where lm-eval has the idea; see docs/tasks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from polygraft import languages
from polygraft.config import Strict

CHOICE, WRITTEN = "multiple_choice", "generate_until"
Scalar = str | int | float | bool


class Hub(Strict):
    """A hub dataset: one configuration and split of it, or (`file`) one of its files, read like a local one."""

    path: str = Field(description="hub id, such as facebook/belebele")
    name: str = Field("", description="configuration, often the language: `{code}`")
    names: tuple[str, ...] = Field((), description="several configurations, read one after the other; a row's `part` says which")
    split: str = Field("test", description="split")
    revision: str | None = Field(None, description="commit, so that the data can never change")
    file: str = Field("", description="a file of the dataset, instead of a configuration")


class Rows(Strict):
    """Where rows come from: the first of `files` that is in the data folder, or the hub when no data folder is named."""

    files: tuple[str, ...] = Field((), description="paths in the data folder, tried in order; .txt .jsonl .json .csv .tsv .parquet "
                                    "also .gz and .xz; with `*` all that fit, and a row's `part` is the name of its file")
    hub: Hub | None = Field(None, description="used when no data folder is named")
    columns: tuple[str, ...] = Field((), description="names of the columns of a .csv or .tsv that has no header")
    beside: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="fields from files of the same folder that have "
                                               "a line for each of its lines: the first that is there; none: without the field")
    where: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict, description="keep the rows whose field is this (or one "
                                                    "of these)")
    shape: str = Field("", description="a function of tasks/shapes.py that turns these rows into others")
    same: str = Field("", description="a field that a worked example shares with the question it stands before, such as subject")


class Source(Rows):
    """A task's own rows: read, or (`generator`) made by the package."""

    generator: Literal["", "problems"] = ""


class Generation(Strict):
    """How an answer is written: new tokens at most, and strings (templates) that end it."""

    max_gen_toks: int = Field(ge=1, description="new tokens at most")
    until: tuple[str, ...] = Field((), description="strings that end an answer")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0: greedy; else answers are drawn, by the evaluation's seed")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the likeliest tokens that make up this share")


class Task(Strict):
    """One task file. Templates are Jinja2 over the row's fields, `language`, and the language's words as `w.<name>`."""

    task: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="the task's name")
    like: str = Field("", description="a shipped task: every key that is not given here is as it is there")
    version: int = Field(1, ge=1, description="a change that moves scores is a new version")
    output_type: Literal["multiple_choice", "generate_until"] = Field(description="choose by likelihood, or write")
    source: Source = Field(description="where the rows come from")
    examples: Rows | None = Field(None, description="where worked examples come from (default: the head of the asked rows)")
    num_fewshot: int = Field(0, ge=0, description="worked examples unless the evaluation says otherwise")
    description: str = Field("", description="a headline that stands once, before the worked examples; in a chat the system's turn")
    doc_to_text: str = Field("", description="the question, as a template")
    doc_to_choice: tuple[str, ...] | str = Field((), description="the choices: templates, or the name of a list field")
    doc_to_target: str = Field("", description="multiple choice: the right choice (0-based, or a key of `labels`); written: what a "
                               "worked example answers (default: the first gold)")
    labels: dict[str, int] = Field(default_factory=dict, description="what the data calls the choices, to 0-based places")
    golds: tuple[str, ...] | str = Field((), description="right answers: template, templates, or the name of a list field")
    target_delimiter: str = Field(" ", description="between question and answer")
    fewshot_delimiter: str = Field("\n\n", description="between worked examples")
    system: str = Field("", description="the system's turn, with a chat template")
    prefix: str = Field("", description="begins the answer: after the question, or in the assistant's turn")
    id: str = Field("", description="an item's id (default: language and row number)")
    stratum: str = Field("", description="subject, phenomenon ...: samples are drawn evenly over it")
    group: str = Field("", description="items of one group count as one")
    extra: dict[str, str] = Field(default_factory=dict, description="what a metric needs: templates or names of fields")
    metrics: tuple[str, ...] = Field((), description="metrics by name (default: accuracy, or exact_match if written)")
    generation: Generation | None = Field(None, description="needed by generate_until")
    plain: bool = Field(False, description="the task is the text itself: never asked through a chat template")
    cut_to_shortest: bool = Field(False, description="score of each choice only as many tokens as the shortest has")
    words: str = Field("", description="a file of data/words/ that `languages` is laid over")
    languages: dict[str, dict[str, Any]] = Field(default_factory=dict, description="language to its words")
    _folder: Path | None = PrivateAttr(None)  # a user's task: the folder of its file, where its data are looked for
    _lines: dict[str, str] = PrivateAttr(default_factory=dict)  # a user's task: `file:line` of the files of `source` and `examples`
    _changed: str = PrivateAttr("")  # how its questions are made untidy: governance/perturb.py

    @property
    def name(self) -> str:
        return f"{self.task}@{self.version}"

    @property
    def written(self) -> bool:
        return self.output_type == WRITTEN

    @property
    def folder(self) -> Path | None:
        return self._folder

    def line(self, name: str) -> str:
        """`file:line` where a user's task names the files of `source` or `examples`; "" of a shipped one."""
        return self._lines.get(name, "")

    @model_validator(mode="after")
    def _whole(self) -> Task:
        if self.written != (self.generation is not None):
            raise ValueError("generate_until needs `generation:`" if self.written else "`generation:` belongs to generate_until")
        if self.source.generator:
            return self
        if not self.source.files and self.source.hub is None:
            raise ValueError("`source:` needs `files:` or `hub:`")
        if not self.written and not (self.doc_to_choice and self.doc_to_target):
            raise ValueError("multiple_choice needs `doc_to_choice:` and `doc_to_target:`")
        return self

    def known_languages(self) -> tuple[str, ...]:
        """The languages of the task; empty when any will do."""
        if self.source.generator == "problems":
            from polygraft.evals.tasks import problems

            return tuple(problems.languages())
        return tuple(self.languages)

    def words_of(self, language: str) -> dict[str, Any]:
        """The language's words, with `language` itself, its English `name`, and `code`, which file names are made of."""
        return {"code": language, "name": languages.name(language), **self.languages.get(language, {}), "language": language}
