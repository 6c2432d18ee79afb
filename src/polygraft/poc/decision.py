"""What a proof of concept came to, as plain frozen values: `decision.json`, and all that a report or a meeting page may say.

Sentences are made of a `Reason`: a code of `REASONS` with the values that stand in it, so that another language is one more table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from polygraft.result import Estimate, decode, encode

VERSION = 1
ROLES = ("target", "english", "other", "fidelity", "copy", "refusal")  # what a measure is about, in the order of the report

# What became of a method. "nothing" is doing nothing: what all others are compared with.
STATUSES = {
    "nothing": "what there is today: the others are compared with it",
    "gains": "better in the target language, and nothing else was lost beyond what is tolerated",
    "loses": "better in the target language, but more was lost elsewhere than is tolerated",
    "saves": "not shown to be worse anywhere, and cheaper to serve",
    "even": "no difference in the target language that the items can show",
    "worse": "worse in the target language",
    "unmeasured": "it ran, but there is no difference with an interval to judge by",
    "failed": "it could not be run to the end",
    "dropped": "set aside after an earlier stage",
    "absent": "it does not apply here",
}

# code -> English sentence; the names in braces are the keys of `Reason.values`, which are texts ready to be shown.
REASONS = {
    # why a method does not apply ("absent")
    "no-experts": "There is no {missing} expert, and nothing to train one from: name one, or give {give}.",
    "no-text": "There is no text in {language} to learn from: give --text.",
    "no-contrast": "What belongs to {language} is found beside text in another language: give --other LANG=FILE.",
    "no-pairs": "There are no questions in {language} with their English: give --pairs.",
    "no-instruct": "There is no instruct sibling that could take over the vocabulary: give --instruct.",
    "tokenizer-fits": "The tokenizer already fits: extending it would put {gain} times as much {language} into a token, and "
                      "{wanted} times is wanted.",
    "tokenizer-other": "The tokenizer cannot be extended: {why}.",
    "refused": "Planning refuses it: {why}.",
    "not-asked": "It was left out: --methods does not name it.",
    # what became of a method that was planned
    "nothing": "Doing nothing costs nothing and changes nothing.",
    "failed": "Step `{step}` could not finish: {why}.",
    "dropped": "Set aside after the {stage} stage, where it was worse by {value}.",
    "unmeasured": "It ran, but {measure} gave no difference with an interval.",
    "gains": "{measure} changed by {value}; nothing else was lost beyond what is tolerated.",
    "loses": "{measure} changed by {value}, but {lost} changed by {loss}.",
    "saves": "{measure} changed by {value}, which is no loss that shows, and serving reads {saving} less for a token.",
    "even": "{measure} changed by {value}: not distinguishable from doing nothing with {n} items.",
    "worse": "{measure} changed by {value}: worse than doing nothing.",
    # the verdict
    "adopt": "Adopt {method}: {measure} changed by {value}, for {cost}.",
    "adopt-saving": "No method made {language} better; {method} makes serving cheaper: it reads {saving} less for a token, and no loss "
                    "shows.",
    "keep": "No method beat doing nothing.",
    "keep-loses": "No method beat doing nothing: {methods} made {language} better, but lost more elsewhere than is tolerated.",
    "undecided-smoke": "Nothing is decided yet: the smoke stage shows that {count} of {planned} methods run, not what they are worth.",
    "undecided-unmeasured": "Nothing can be decided: no method could be compared with doing nothing.",
    "undecided-small": "No method was shown to beat doing nothing, but with {n} items a change of less than about {detectable} would not "
                       "have been seen.",
}  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """A sentence: a code of `REASONS` and what stands in it."""

    code: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence in English. Raises KeyError for a code or value that is not there."""
        return REASONS[self.code].format(**self.values)


@dataclass(frozen=True)
class Effect:
    """One measure's change by a method: the method minus doing nothing, on the same items.

    `difference` is in `unit` with its 95 % interval, n items and verdict ("better", "worse", "not distinguishable", or "" where
    none can be told); `before` and `after` are the two scores. `place` is where the number stands in the run folder, such as
    `scores-swap: target sw accuracy` (step id, then the row's words).
    """

    role: str
    measure: str
    language: str
    difference: Estimate
    before: float | None
    after: float | None
    higher_is_better: bool
    place: str
    detectable: float | None = None


@dataclass(frozen=True)
class Spent:
    """What making a method's model took, from the steps that nothing else needs. `money` in the prices' currency; None: no price."""

    seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    peak_bytes: int = 0
    money: float | None = None


@dataclass(frozen=True)
class Serving:
    """What answering with it takes. `bytes_per_token`: weights read to write one token; `relative_tokens`: tokens of the target
    language's text, relative to doing nothing; `money`: of a million characters of that text. None: not known, or no price."""

    stored_bytes: int = 0
    bytes_per_token: int = 0
    relative_tokens: float | None = None
    money: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """A method's row of the decision. `touched`: share of the weights that differ from doing nothing's, None where not counted."""

    method: str
    title: str
    status: str
    reason: Reason
    effects: tuple[Effect, ...] = ()
    spent: Spent = Spent()
    serving: Serving = Serving()
    touched: float | None = None
    notes: tuple[str, ...] = ()
    model: str = ""
    licences: tuple[str, ...] = ()

    def of(self, role: str) -> tuple[Effect, ...]:
        """Its effects of one role; the first of "target" is what decides."""
        return tuple(e for e in self.effects if e.role == role)


@dataclass(frozen=True)
class Licence:
    """The licence of something that a method's model is made of, as its own card says; `licence` is "" where none is said."""

    source: str
    spec: str
    licence: str
    where: str = ""


@dataclass(frozen=True)
class Decision:
    """The whole decision: a pure function of the results in the run folder and of the user's prices.

    `verdict`: "adopt", "keep" (no method beat doing nothing) or "undecided"; `recommended` is a method's name, "nothing" for keep, ""
    while undecided. `equal` says in words what was equal for every method. `stage` is smoke, pilot or full; `budget_seconds` what
    was allowed, `spent_seconds` what this stage's steps took. `currency` is "" without prices.
    """

    stage: str
    language: str
    language_name: str
    reference: str
    verdict: str
    recommended: str
    reason: Reason
    outcomes: tuple[Outcome, ...]
    measures: tuple[str, ...]
    equal: str
    budget_seconds: float
    spent_seconds: float
    licences: tuple[Licence, ...] = ()
    obligations: tuple[str, ...] = ()
    currency: str = ""
    caveats: tuple[str, ...] = ()
    report: str = "report.html"
    version: int = VERSION

    @property
    def sentence(self) -> str:
        """The verdict in plain English."""
        return self.reason.text

    def outcome(self, method: str) -> Outcome:
        """A method's row. Raises KeyError."""
        return {o.method: o for o in self.outcomes}[method]

    def to_json(self) -> dict[str, Any]:
        """The value of `decision.json`: the fields as they are named here, and every sentence in English as `text`."""
        value = encode(self)
        value["reason"]["text"] = self.reason.text
        for row, outcome in zip(value["outcomes"], self.outcomes, strict=True):
            row["reason"]["text"] = outcome.reason.text
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decision:
        """The inverse of `to_json`. Raises TypeError or KeyError on a value of another shape."""
        outcomes = [{**row, "reason": _reason(row["reason"])} for row in value["outcomes"]]
        return decode(cls, {**value, "reason": _reason(value["reason"]), "outcomes": outcomes})


def _reason(value: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k != "text"}
