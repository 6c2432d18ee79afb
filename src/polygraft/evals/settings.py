"""What an evaluation may be told: the config of the `eval` step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from polygraft import languages
from polygraft.config import Strict
from polygraft.errors import RecipeError
from polygraft.evals import tasks
from polygraft.evals.budget import parse_duration
from polygraft.evals.tasks import ProblemKind, TaskFile, foreign, suites
from polygraft.step import DataRef, Detail, ModelRef


def _checked(check: Callable[[str], Any], word: str) -> Any:
    """What `check` makes of a word; its RecipeError as a ValueError, which pydantic turns into a fault with its line or flag."""
    try:
        return check(word)
    except RecipeError as e:
        raise ValueError("; ".join(filter(None, (e.what, e.fix)))) from e


def _task(word: str) -> str:
    """A task's or suite's name, checked; a file's name is read when it is known from which folder."""
    if tasks.is_file(word) or foreign.is_foreign(word):
        return word if word.startswith(foreign.PREFIX) else TaskFile(word)
    _checked(suites.load if suites.is_suite(word) else suites.split, word)
    return word


def _duration(text: str) -> str:
    _checked(parse_duration, text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Language = Annotated[str, AfterValidator(lambda tag: _checked(languages.check, tag))]
TaskName = Annotated[str, AfterValidator(_task)]
PROBLEMS = "which procedural problems are asked: number of steps, operations, split"


class EvalConfig(Strict):
    """Score models on the same items: right answers, likelihoods and bits per byte, with intervals and paired tests.

    Every model is compared with the first one, or with the one that is named as the reference.
    """

    models: tuple[ModelRef, ...] = Field(min_length=1, description="the models", json_schema_extra={"argument": True})
    tasks: tuple[TaskName, ...] = Field(("problems",), description="tasks and suites (`polygraft tasks` lists them), a task file "
                                   "of your own, or lm-eval:NAME for one of lm-eval's; blimp:en asks one language only")
    langs: tuple[Language, ...] = Field(("en",), description="languages of the tasks, as tags such as sw or zh")
    corpora: dict[Language, DataRef] = Field(
        default_factory=dict, json_schema_extra={"flag": "--corpus", "metavar": "LANG=PATH"},
        description="a text for bits per byte: .txt, .jsonl (also .gz, .xz), .parquet; `sampler` is one that comes with polygraft")
    criteria: DataRef | None = Field(default=None, description="criteria.yaml: what must hold; exit 6, when all is written, if not")
    reference: ModelRef | None = Field(None, description="the model that the others are compared with (default: the first)")
    data: DataRef | None = Field(None, description="folder with the tasks' files, such as mgsm/mgsm_sw.tsv (default: the hub)")
    limit: int | None = Field(None, ge=1, description="ask only the first N items of each task; of word problems, N are made "
                              "(default: 100)")
    time_budget: Duration | None = Field(None, description="such as 10m: ask as many items of each task as fit, the same ones of "
                                         "every model, chosen before any answer is seen")
    max_bytes: int = Field(default=200_000, ge=1, description="read a corpus until so many bytes of text")
    problems: ProblemKind = Field(default=ProblemKind(), description=PROBLEMS)
    shots: int | None = Field(default=None, ge=0, description="worked examples before each item (default: as each task says)")
    generate: int = Field(default=0, ge=0, description="word problems a language to answer in writing too, for reading; not scored")
    chat: bool = Field(default=False, description="ask through the model's chat template")
    temperature: float | None = Field(default=None, ge=0, le=10, description="draw written answers at this temperature, by the "
                                      "seed; 0: greedy (default: as each task says, all shipped ones greedy)")
    system: str = Field(default="", description="the system's turn, with `chat` (default: as each task says)")
    trust_task_code: bool = Field(default=False, description="run the Python that a task file of lm-eval's kind brings")
    seed: int = Field(default=0, ge=0, description="seed of the word problems, of the samples shown and of the bootstrap")
    backend: Literal["hf", "vllm"] = Field(
        default="hf", description="what runs the models: hf (transformers) or vllm (extra); a server is a model: server:URL#NAME")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="type to compute in; auto: the checkpoint's own, or float32 where a CPU has no bfloat16")
    device: Annotated[str, Detail] = Field(default="auto", description="cpu, cuda, cuda:1 ...; auto: a GPU where there is one; "
                                           "auto-map: all GPUs, and the CPU where they are full")
    store: Annotated[str | None, Detail] = Field(
        default=None, description="folder of the response store, where answers are found again; `none`: only while this runs")
    batch_tokens: Annotated[int, Detail] = Field(default=1024, ge=1, description="tokens in one batch; less needs less memory")

    @property
    def compared_with(self) -> str:
        return self.reference or self.models[0]
