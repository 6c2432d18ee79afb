"""What a search may be told: the fields of `merge.search`, the flags of `polygraft merge search`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from polygraft.choose.search.numbers import Numbers
from polygraft.config import Strict, Unfit
from polygraft.evals.settings import PROBLEMS, Duration, EvalConfig, TaskName
from polygraft.evals.tasks import ProblemKind
from polygraft.merge.makers import PARTS, Policy, Weighting
from polygraft.step import DataRef, Detail, Language, ModelRef

SELECT, CONFIRM = 4, 6  # the least items of a task that a choice and its confirmation may rest on: a test of 5 shows nothing
EVAL = ("tasks", "langs", "corpora", "data", "limit", "max_bytes", "problems", "shots", "chat", "system", "seed")  # as in `eval`


def _parts(word: str) -> str:
    kinds = word.split("+")
    if sorted(set(kinds)) != sorted(kinds) or not set(kinds) <= set(PARTS):
        raise Unfit("not kinds of parts", found=word[:40], expected="attn, ffn, norm, or several such as attn+norm")
    return "+".join(p for p in PARTS if p in kinds)


Parts = Annotated[str, AfterValidator(_parts)]
EVERY = "+".join(PARTS)


class Search(Strict):
    """Find which layers to take from which expert by evaluating candidates, none of which is ever written.

    All candidates share the layers that they have in common. The best is confirmed on items that took no part in the choice.
    """

    task: tuple[ModelRef, ...] = Field(min_length=1, description="the task expert, which gives the middle; several are all tried")
    language: tuple[ModelRef, ...] = Field(min_length=1, description="the language expert, which gives the outer layers; several "
                                           "are all tried, each with each task expert")
    base: ModelRef | None = Field(None, description="what they were trained from: a control, and a source of embeddings")
    strategy: Literal["grid", "halving", "greedy", "optuna"] = Field(
        "grid", description="every window on all items; all windows on few items, the better half on more; one layer after "
        "another; or mixtures of layers proposed by Optuna (extra: search)")
    bottoms: Numbers | None = Field(None, description="numbers of bottom layers to try, such as 0..14 (default: to under a half)")
    tops: Numbers | None = Field(None, description="numbers of top layers to try, such as 0..8 (default: to about a quarter)")
    transitions: Numbers = Field("0", description="widths of the transition to try, such as 0,1")
    weights: tuple[Weighting, ...] = Field(("plain",), min_length=1, description="how transitions blend; several are all tried")
    parts: tuple[Parts, ...] = Field((EVERY,), min_length=1, description="kinds of parts that are swapped, such as attn+norm; "
                                     "several are all tried, and greedy and optuna choose each of them by itself")
    embed: tuple[Policy, ...] = Field((), description="sources of the embedding to try (default: mean)")
    norm: tuple[Policy, ...] = Field((), description="sources of the final norm to try (default: mean)")
    head: tuple[Policy, ...] = Field((), description="sources of the output head to try (default: mean)")
    tasks: tuple[TaskName, ...] = Field(("problems",), description="tasks that candidates are scored on, as in `eval`; written "
                                        "answers are asked of the finalists only")
    langs: tuple[Language, ...] = Field(("en",), description="languages of the tasks, as tags such as sw or zh")
    corpora: dict[Language, DataRef] = Field(
        default_factory=dict, json_schema_extra={"flag": "--corpus", "metavar": "LANG=PATH"},
        description="a text for bits per byte, or for `kl`; `sampler` is one that comes with polygraft")
    kl: dict[Language, Literal["task", "language", "base"]] = Field(
        default_factory=dict, json_schema_extra={"metavar": "LANG=task|language|base"},
        description="stay near this source on the corpus of this language: Kullback-Leibler divergence, without labels")
    objectives: tuple[str, ...] = Field((), description="what decides, in this order: a language, a task (bpb, kl), or TASK:LANG; "
                                        "with several there is a Pareto front (default: everything asked)")
    metric: str = Field("nats", description="which of a task's metrics decides, where it has it (default: the finest)")
    tolerance: float = Field(0.0, ge=0, description="how much worse than `against` the best may be in the other objectives")
    against: Literal["task", "language", "soup", "default"] = Field("task", description="what candidates are drawn against")
    data: DataRef | None = Field(None, description="folder with the tasks' files (default: the hub)")
    limit: int | None = Field(None, ge=1, description="take only the first N items of each task; of word problems, N are made")
    max_bytes: int = Field(default=200_000, ge=1, description="read a corpus until so many bytes of text")
    problems: ProblemKind = Field(default=ProblemKind(), description=PROBLEMS)
    shots: int | None = Field(default=None, ge=0, description="worked examples before each item (default: as each task says)")
    chat: bool = Field(default=False, description="ask through the model's chat template")
    system: str = Field(default="", description="the system's turn, with `chat`")
    confirm: float = Field(default=0.5, gt=0, lt=1, description="share of the items, picked by hash, that only confirm the choice")
    windows: int = Field(default=3, ge=0, le=50, description="random windows as wide as the best that it must beat")
    rounds: int = Field(default=8, ge=1, description="greedy: changes at most; halving: rounds at most")
    trials: int = Field(default=64, ge=1, description="optuna: candidates")
    groups: int = Field(default=10, ge=1, description="optuna and greedy: runs of neighbouring layers that change together")
    time_budget: Duration | None = Field(None, description="such as 8m: as many items as fit are asked, then as many candidates")
    write: Literal["none", "best"] = Field("none", description="best: also write the chosen merge, to `model` in the output folder")
    shard_bytes: int = Field(1_000_000_000, gt=0, description="a larger model is written in files of at most so many bytes")
    seed: int = Field(default=0, ge=0, description="seed of the problems, of the split, of random windows and of the bootstrap")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="type to compute in; auto: the checkpoints' own, or float32 where a CPU has no bfloat16")
    device: Annotated[str, Detail] = Field(default="auto", description="cpu, cuda, cuda:1 ...; auto: a GPU where there is one")
    workers: Annotated[int, Detail] = Field(default=1, ge=1, description="processes that share the candidates (extra: ray)")

    @model_validator(mode="after")
    def _fits(self) -> Search:
        if missing := [tag for tag in self.kl if tag not in self.corpora]:
            raise Unfit("`kl` reads the text of `corpora`, and there is none in this language", found=missing[0],
                        expected=", ".join(self.corpora) or "--corpus LANG=PATH")
        named = [*self.kl.values(), *self.embed, *self.norm, *self.head]
        if self.base is None and ("base" in named or "magnitude" in self.weights):
            raise Unfit("`base` is not named", expected="what both experts were trained from, for kl, policies and magnitude")
        if len(set(self.sources)) != len(self.sources):
            raise Unfit("`task` and `language` name one model twice", expected="each model once")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Every model, as it was named: task experts, language experts, the base."""
        return (*self.task, *self.language, *((self.base,) if self.base else ()))

    def evaluation(self, **changed: Any) -> EvalConfig:
        """The settings of `eval` that ask the same items of the first task expert."""
        given = {name: getattr(self, name) for name in EVAL if name in EvalConfig.model_fields}
        if "langs" not in self.model_fields_set:
            del given["langs"]
        return EvalConfig(**{"models": (self.task[0],), **given, **changed})
