"""What pruning verbs have in common: the text that a model is calibrated on, and how much of what goes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polygraft.config import Strict, Unfit, changed
from polygraft.errors import RecipeError
from polygraft.prune.masks.pattern import Pattern
from polygraft.step import DataRef, Detail, Language, ModelRef, SelectRef

MethodName = Literal["magnitude", "wanda", "wanda-variant", "ria", "sparsegpt"]
Objective = Literal["mean", "worst"]
Allocate = Literal["even", "owl", "across", "worst"]
TOGETHER = 1024  # tokens that a layer sees at once, about: activations of some thousand weigh as much as a layer
Protect = Literal["auto"] | SelectRef  # in this order: `auto` is a word, not a file


class Calibrating(Strict):
    """A model and the text that it reads: corpora by language, and how large a part each has."""

    model: ModelRef = Field(description="the model", json_schema_extra={"argument": True})
    corpus: dict[Language, DataRef] = Field(
        default_factory=dict, description="text by language; one document a line (.txt), object (.jsonl) or row (.parquet)",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    calibrate: dict[Language, float] | None = Field(
        None, description="each language's share of the calibration text (default: equal shares)",
        json_schema_extra={"metavar": "LANG=SHARE"},
    )
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    samples: int = Field(128, ge=1, description="windows of text that are read, in all languages together")
    seq_len: int = Field(2048, ge=2, description="tokens of a window, BOS included")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="numbers that the model computes with")
    device: Annotated[str, Detail] = Field("auto", description="cpu, cuda, or auto")
    batch: Annotated[int | None, Detail] = Field(None, ge=1, description=f"windows read together (default: {TOGETHER:,} tokens)")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        shares = self.calibrate or {}
        if unknown := sorted(set(shares) - set(self.corpus)):
            raise ValueError(f"`calibrate` names {', '.join(unknown)}, which has no corpus: add --corpus {unknown[0]}=PATH")
        if bad := sorted(g for g, share in shares.items() if share < 0):
            raise Unfit(f"a share below 0: {', '.join(bad)}", found=f"{bad[0]}={shares[bad[0]]:g}")
        if shares and not sum(shares.values()) > 0:
            raise ValueError("all shares of `calibrate` are 0: give one that is more")
        return self

    @property
    def rows(self) -> int:
        """Windows read together."""
        return self.batch or max(1, TOGETHER // self.seq_len)


class Masking(Calibrating):
    """How weights are chosen, and how many of them go."""

    method: MethodName = Field("wanda", description="what says which weights matter")
    sparsity: float | None = Field(None, ge=0, le=1, description="the share of weights that become zero (default: 0.5)")
    pattern: str | None = Field(None, description="instead: N:M keeps N of every M neighbours in a row, such as 2:4",
                                json_schema_extra={"metavar": "N:M"})  # fmt: skip
    allocate: Allocate = Field(
        "even", description="sparsity of layers: even, by outliers (owl), by the mean or the largest need of all languages"
    )
    swaps: int = Field(0, ge=0, description="then at most so many swaps in every row that make its error smaller")
    objective: Objective = Field("mean", description="what swaps make smaller: the error on all text, or that of the language that "
                                 "loses most")  # fmt: skip
    damping: float = Field(0.01, gt=0, le=10, description="sparsegpt: added to the Hessian, of its mean diagonal")
    protect: Protect | None = Field(None, description="weights that stay, at the same sparsity in all: a selection, or auto")

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if not self.corpus and self.method != "magnitude":
            raise Unfit(f"{self.method} reads text: give a corpus for each language (--corpus sw=PATH)", found="no corpus")
        if self.swaps and self.method == "sparsegpt":
            raise ValueError("`swaps` are for methods that leave weights as they are: sparsegpt changes them")
        if self.swaps and not self.corpus:
            raise ValueError("`swaps` read text: give a corpus for each language (--corpus sw=PATH)")
        if changed(self, ("objective",)) and not (self.swaps and len(self.corpus) > 1):
            raise ValueError("`objective` is that of swaps, in two languages or more: give `swaps` and a corpus for each language")
        if self.protect and self.allocate != "even":
            raise ValueError("`protect` decides how sparse each matrix becomes: leave `allocate` even")
        if self.allocate != "even" and (self.pattern or not self.corpus):
            raise ValueError(f"`allocate: {self.allocate}` needs text, and no pattern: N:M is as sparse everywhere")
        if changed(self, ("damping",)) and self.method != "sparsegpt":
            raise ValueError("`damping` is sparsegpt's alone")
        try:
            _ = self.asked
        except RecipeError as e:
            raise Unfit(e.what, found=e.found, expected=e.expected, fix=e.fix) from None
        return self

    @property
    def asked(self) -> Pattern:
        """What is asked of every matrix."""
        return Pattern.of(0.5 if self.sparsity is None and self.pattern is None else self.sparsity, self.pattern)
