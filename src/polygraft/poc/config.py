"""What `polygraft poc` takes: models, texts, the user's own evaluation, a budget and prices."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from polygraft.config import Strict, Unfit
from polygraft.evals.settings import Duration
from polygraft.step import DataRef, Language, ModelRef

Stage = Literal["smoke", "pilot", "full"]
STAGES: tuple[Stage, ...] = get_args(Stage)
MethodName = Literal["swap", "slam", "neurons", "lep", "prune", "steer"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)


def _text(path: str) -> str:
    """A text file by its ending; whether it is there is seen when it is opened."""
    from polygraft.data import ENDINGS

    if not path.endswith(ENDINGS):
        raise Unfit("a kind of file that is not read as text", found=path, expected=", ".join(ENDINGS))
    return path


TextRef = Annotated[DataRef, AfterValidator(_text)]


class Prices(Strict):
    """The user's own prices: `prices.yaml`. What has no price here has no money in the report."""

    currency: str = Field(min_length=1, max_length=12, pattern=r"^\S+$", description="what the prices are in: USD, EUR, JPY ...")
    machine_hour: float | None = Field(None, ge=0, description="of an hour of the machine that trains and measures")
    million_tokens: float | None = Field(None, ge=0, description="of serving a million tokens with the model that is there today")

    @model_validator(mode="after")
    def _some(self) -> Prices:
        if self.machine_hour is None and self.million_tokens is None:
            raise Unfit("no price is given", expected="`machine_hour`, `million_tokens` or both")
        return self


class Poc(Strict):
    """Plan and run a proof of concept: methods that apply to a base and a language, each at equal budget, and one decision.

    Compared with doing nothing: the instruct model where one is given, else the task expert, else the base.
    """

    base: ModelRef = Field(description="the base model")
    lang: Language = Field(description="the target language, such as sw")
    instruct: ModelRef | None = Field(None, description="an instruct model that was trained from the base")
    task_expert: ModelRef | None = Field(None, description="a task expert that was trained from the base")
    language_expert: ModelRef | None = Field(None, description="a language expert that was trained from the base")
    eval: DataRef = Field(description="your own evaluation in the language: a task file (.yaml), or .jsonl with question, choices "
                          "and answer (or question and answer)")
    budget: Duration = Field("30m", description="wall time of the whole on this machine, such as 30m or 4h")
    text: TextRef | None = Field(None, description="text in the language to learn from")
    pairs: DataRef | None = Field(None, description="questions in the language with their English: .jsonl with question and en")
    data: TextRef | None = Field(None, description="training examples of a task, to make a task expert from")
    other: dict[Language, DataRef] = Field(
        default_factory=dict, description="text in English and other languages that must not be lost (default: a small sampler)",
        json_schema_extra={"flag": "--other", "metavar": "LANG=PATH"})
    methods: tuple[MethodName, ...] = Field(METHODS, min_length=1, description="methods to look at")
    prices: DataRef | None = Field(None, description="prices.yaml: currency, machine_hour, million_tokens")
    licence: dict[str, str] = Field(default_factory=dict, json_schema_extra={"flag": "--licence", "metavar": "NAME=LICENCE"},
                                    description="licence of base, instruct, text ... where no model card says it")
    stage: Stage = Field("smoke", description="how far to go; each stage goes on from the one before")
    chat: bool = Field(False, description="ask through the chat template")
    tolerated_points: float = Field(2.0, ge=0, description="loss elsewhere that is tolerated, of scores in percent")
    tolerated_bits: float = Field(0.02, ge=0, description="the same in bits per byte of text")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")

    @model_validator(mode="after")
    def _sound(self) -> Poc:
        if self.lang in self.other:
            raise Unfit("`other` names the target language itself", found=self.lang, fix="give its text with --text")
        if self.lang == "en":
            raise Unfit("English is what losses are measured in", found="lang: en", expected="another target language")
        known = {"base", "instruct", "task_expert", "language_expert", "text", "pairs", "data"}
        if unknown := sorted(set(self.licence) - known):
            raise Unfit("`licence` names nothing that goes in", found=unknown[0], expected=", ".join(sorted(known)))
        return self

    @property
    def today(self) -> str:
        """The name in the recipe of the model that doing nothing means."""
        return "instruct" if self.instruct else "task_expert" if self.task_expert else "base"

    @property
    def models(self) -> dict[str, str]:
        """Every model that is given, by its name in the recipe."""
        fields = ("base", "instruct", "task_expert", "language_expert")
        return {name: str(ref) for name in fields if (ref := getattr(self, name)) is not None}
