"""What may be asked of the examples before training sees them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from polygraft.config import Strict, Unfit
from polygraft.step import DataRef


class Mix(Strict):
    """How sources are mixed, what is filtered out, what is held out. Without any of it examples are taken as they come."""

    weights: dict[str, float] = Field(default_factory=dict, description="share of each label among the examples",
                                      json_schema_extra={"flag": "--mix", "metavar": "LABEL=X,..."})
    alpha: float | None = Field(default=None, ge=0, le=1, description="instead of weights: shares proportional to size to this "
                                "power (1: as they are, 0.3: mT5's, 0: all alike)")
    examples: int | None = Field(default=None, ge=1, description="examples in the mixture (default: as many as need none twice; "
                                 "with repeat, as many as there are)")
    repeat: bool = Field(default=False, description="an example may come again where its label has too few")
    dedup: Literal["none", "exact", "near"] = Field(
        default="none", json_schema_extra={"flag": "--dedup"},
        description="exact: leave out what differs only in case, white space or normal form; near: also what shares 80 % of its "
        "5-grams with an earlier example")
    min_chars: int = Field(default=0, ge=0, description="leave out shorter examples (characters of all its texts)",
                           json_schema_extra={"flag": "--min-chars"})
    max_chars: int | None = Field(default=None, ge=1, description="leave out longer examples",
                                  json_schema_extra={"flag": "--max-chars"})
    dev: float = Field(default=0.0, ge=0, lt=1, json_schema_extra={"flag": "--dev"},
                       description="share held out by the hash of its content; its loss is measured before and after")
    dev_every: int | None = Field(default=None, ge=1, description="also measure it after every so many steps",
                                  json_schema_extra={"flag": "--dev-every"})
    leaks: Literal["drop", "refuse", "keep"] = Field(
        default="drop", json_schema_extra={"flag": "--leaks"},
        description="examples that hold an item of the tasks that are watched or named by `against`: leave them out, stop, or "
        "only say so")
    against: tuple[str, ...] = Field(default=(), description="tasks whose items must not be trained on, such as mgsm:sw",
                                     json_schema_extra={"flag": "--against"})
    against_data: DataRef | None = Field(default=None, description="folder with these tasks' files (default: the watch's, or the "
                                         "hub)", json_schema_extra={"flag": "--against-data"})
    ngram: Literal[8, 13] = Field(default=8, description="words in a run that an item and an example share (characters in scripts "
                                  "without spaces)", json_schema_extra={"flag": "--ngram"})

    @model_validator(mode="after")
    def _sound(self) -> Mix:
        if self.weights and self.alpha is not None:
            raise Unfit("`weights` and `alpha` both say how to mix", fix="leave one of them out")
        if bad := [f"{label}={w:g}" for label, w in self.weights.items() if not 0 <= w < float("inf")]:
            raise Unfit("not a weight", found=", ".join(bad), expected="0 or more", fix="a label with weight 0 is left out")
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise Unfit("`max_chars` is below `min_chars`: nothing would be left", fix="raise `max_chars` or lower `min_chars`")
        if self.dev_every and not self.dev:
            raise Unfit("`dev_every` without `dev`: nothing is held out", fix="add `dev`, such as 0.02, or leave `dev_every` out")
        if self.repeat and not self.mixed:
            raise Unfit("`repeat` without `weights`, `alpha` or `examples`: nothing is drawn", fix="add one of them, or leave it")
        if self.against_data is not None and not self.against:
            raise Unfit("`against_data` without `against`: the files of which tasks?", fix="name tasks, such as mgsm:sw")
        return self

    @property
    def mixed(self) -> bool:
        """Whether examples are drawn, rather than taken as they come."""
        return bool(self.weights) or self.alpha is not None or self.examples is not None
