"""What `merge auto` takes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from polygraft.choose.auto.evidence import EvidenceName
from polygraft.choose.auto.proposals import Shape
from polygraft.choose.auto.rules import TAU, WEIGHTS, Rule
from polygraft.choose.auto.units import By
from polygraft.config import Unfit
from polygraft.merge.configs import Common, Make, Request, Space
from polygraft.merge.makers import Policy
from polygraft.step import ModelRef

EvidenceRef = Annotated[str, AfterValidator(EvidenceName)]


class Auto(Common):
    """Layers of a task and a language expert, chosen by what their training changed, or by evidence from reading text."""

    task: ModelRef = Field(description="the task expert")
    language: ModelRef = Field(description="the language expert")
    base: ModelRef = Field(description="what both were trained from")
    rule: Rule = Field("relative", description="relative: who changed a layer relatively more; sign: that, where signs conflict; "
                       "cosine: where changes diverge; neurons, deviation: evidence from reading text")
    by: By = Field("layer", description="choose whole layers, or attention and FFN of each apart")
    shape: Shape = Field("free", description="each layer as the rule says, or the best window of bottom and top layers")
    evidence: EvidenceRef | None = Field(
        None, description="rule neurons: a selection of `analyze neurons`, as FOLDER:sw; rule deviation: the folder of "
        "`analyze deviation`", json_schema_extra={"metavar": "FILE[:NAME]"})  # fmt: skip
    tau: float | None = Field(None, ge=0, description="how far from even a layer must be to go to one expert, in the rule's own "
                              f"unit (default: {', '.join(f'{r} {t:g}' for r, t in TAU.items())})")
    tau_absolute: float | None = Field(None, ge=0, description="rule relative: the published threshold on the difference itself "
                                       "(0.001), which depends on how many layers there are")
    alpha: float = Field(0.5, ge=0, le=1, description="the language expert's share of what is blended")
    embed: Policy | None = Field(None, description="source of the embedding (default: mean)")
    norm: Policy | None = Field(None, description="source of the final norm (default: mean)")
    head: Policy | None = Field(None, description="source of the output head (default: mean)")
    random: int = Field(3, ge=0, le=100, description="random windows of the same width to show beside the proposal")
    space: Space = Field("weights", description="adapter: both experts are LoRA on the base, and the result is an adapter too")

    @model_validator(mode="after")
    def fits(self) -> Auto:
        if (self.rule not in WEIGHTS) != (self.evidence is not None):
            more = self.evidence is not None
            raise Unfit(f"the rule `{self.rule}` {'asks the weights alone' if more else 'needs evidence'}",
                        found=f"evidence: {self.evidence}", fix="use the rule neurons or deviation, or leave evidence out" if more
                        else f"make it with `polygraft analyze {self.rule}` and name its folder as evidence")
        if self.rule not in WEIGHTS and self.by == "part":
            raise Unfit("evidence of neurons lies in the FFN and says nothing of attention", found=f"by: part, rule: {self.rule}",
                        fix="use --by layer")
        if self.tau_absolute is not None and (self.rule != "relative" or self.tau is not None):
            raise Unfit("the published threshold is one of the rule `relative`, in place of tau", found=f"rule: {self.rule}, tau: "
                        f"{self.tau}, tau_absolute: {self.tau_absolute}", fix="leave tau or tau_absolute out")
        return self

    @property
    def threshold(self) -> float:
        """tau, or what the rule takes where none is given."""
        return TAU[self.rule] if self.tau is None else self.tau

    @property
    def policy(self) -> dict[str, Policy | None]:
        return {"embed": self.embed, "norm": self.norm, "head": self.head}

    def request(self, make: Make) -> Request:
        return Request("auto", (self.task, self.language, self.base), ("task", "language", "base"), make, 2, space=self.space)
