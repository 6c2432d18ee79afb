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
    "no-expert": "There is no {missing} expert and nothing to train one from: name one, or give {give}.",
    "no-text": "There is no text in {language} to learn from: give --text.",
    "no-pairs": "There are no questions in {language} with their English: give --pairs.",
    "no-instruct": "There is no instruct sibling that could take over the vocabulary: give --instruct.",
    "tokenizer-fits": "The tokenizer already fits: an extension would put {gain} times as much text into a token, and {wanted} "
                      "times is wanted.",
    "tokenizer-fixed": "The tokenizer cannot be extended: {why}.",
    "short-text": "There is not enough text in {language} to calibrate on: give more with {give}.",
    "no-neurons": "No neuron of {language}'s own was found in the text that was read; more text or a later stage may show some.",
    "refused": "Planning refuses it: {why}.",
    "not-asked": "It was left out: --methods does not name it.",
    # what became of a method that was planned
    "nothing": "Doing nothing costs nothing and changes nothing.",
    "failed": "Step `{step}` could not finish: {why}.",
    "dropped": "Set aside after the {stage} stage, where {measure} changed by {value}.",
    "unmeasured": "It ran, but there is no difference with an interval to judge by.",
    "gains": "{measure} changed by {value}; nothing else was lost beyond what is tolerated.",
    "loses": "{measure} changed by {value}, but {lost} changed by {loss}.",
    "saves": "{measure} changed by {value}, which is no loss that shows, and serving takes {saving} less.",
    "even": "{measure} changed by {value}: not distinguishable from doing nothing with {n} items.",
    "even-loses": "{measure} changed by {value}: not distinguishable from doing nothing with {n} items; {lost} changed by {loss}.",
    "worse": "{measure} changed by {value}: worse than doing nothing.",
    # the verdict
    "adopt": "Adopt {method}: {measure} changed by {value}, for {cost}.",
    "adopt-saving": "No method was better in {language}; {method} makes serving cheaper by {saving}, and no loss shows.",
    "keep": "No method beat doing nothing.",
    "keep-loses": "No method beat doing nothing: better in {language} was {methods}, at a loss elsewhere that is not tolerated.",
    "keep-small": "No method was shown to beat doing nothing; with {n} items a change of less than about {detectable} would not "
                  "show.",
    "undecided-smoke": "Nothing is decided yet: the smoke stage shows that {count} of {planned} methods run, not what they are "
                       "worth.",
    "undecided-unmeasured": "Nothing can be decided: no method could be compared with doing nothing.",
    # what was equal
    "equal": "Every method that trains had {steps} steps of {rows} rows of at most {length} tokens (two experts: half of them "
             "each), and all were asked the same items.",
    # what should be known of a method
    "note-zeros": "Zeros are stored and read like other numbers: nothing becomes smaller or faster.",
    "note-edits": "The model is edited while it runs, which vLLM cannot do; its files stay as they are.",
    "note-vocabulary": "A new tokenizer: whatever counts tokens, and every cache of them, changes with it.",
    "note-tables": "Embedding and head were counted as changed as a whole.",
    "note-calibration": "It was calibrated on {own} windows of {language} and {english} of English: there is no more English text, "
                        "and --other en=FILE gives some.",
    "note-half": "Two experts were trained, each with half of the steps.",
    "note-tokens": "It saw {tokens} training tokens, {share} of what the method with the most saw.",
    "note-unsure": "{measure} may have changed by more than is tolerated: {value}.",
    # caveats of the whole
    "caveat-chosen": "A method is chosen by the same items that tell its gain: expect somewhat less on others.",
    "caveat-family": "Verdicts on the target are corrected for {count} methods compared; each interval stands for itself.",
    "caveat-losses": "Changes elsewhere are each judged by their own test, without correction, so that no loss is overlooked: of "
                     "twenty without a cause, one shows.",
    "caveat-sampler": "Text in {languages} is the small sampler that comes along: losses there show when they are large.",
    "caveat-text": "Only the first {size} of the text were used.",
    "caveat-rounds": "The text was read {rounds} times over: more text would do more.",
    "caveat-budget": "It took {spent}, more than its part of the budget ({allowed}).",
    "caveat-earlier": "The budget has no room for more training than the {stage} stage had.",
    # what the licences of a method's sources oblige to
    "oblige-notice": "{sources}: keep the copyright notice and the licence's text with what is passed on.",
    "oblige-attribution": "{sources}: name the authors, and say that it was changed.",
    "oblige-share-alike": "{sources}: pass on what is made of it under the same licence only.",
    "oblige-non-commercial": "{sources}: no commercial use.",
    "oblige-terms": "{sources}: its own terms of use hold for what is made of it, too; read them.",
    "oblige-unknown": "{sources}: no licence is said, so nothing may be assumed; ask, or say it with --licence.",
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
    `scores-swap: target sw accuracy` (step id, then the row's words). `detectable` is the true difference that so many items would
    show with a power of 80 %, `p` of the paired test, before it is adjusted over the methods.
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
    p: float | None = None


@dataclass(frozen=True)
class Spent:
    """What making a method's model took, with the steps that it shares. `money` in the prices' currency; None: no price."""

    seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    peak_bytes: int = 0
    money: float | None = None


@dataclass(frozen=True)
class Serving:
    """What answering with it takes. `bytes_per_token`: weights read to write one token; `tokens_per_character` of the target
    language's text; `money`: of a million characters of that text. None: not known, or no price."""

    stored_bytes: int = 0
    bytes_per_token: int = 0
    tokens_per_character: float | None = None
    money: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A method's row of the decision. `touched`: share of the weights that differ from doing nothing's, None where not counted;
    `model`: the folder of what it made, within the run folder; `obligations`: of the licences of what that is made of."""

    method: str
    title: str
    status: str
    reason: Reason
    effects: tuple[Effect, ...] = ()
    spent: Spent = Spent()
    serving: Serving = Serving()
    touched: float | None = None
    notes: tuple[Reason, ...] = ()
    model: str = ""
    obligations: tuple[Reason, ...] = ()

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

    `verdict`: "adopt", "keep" (no method beat doing nothing) or "undecided"; `recommended` is a method's name, "nothing" for keep,
    "" while undecided. `reference` is the model that doing nothing means, `measure` what decides. `stage` is smoke, pilot or full;
    `budget_seconds` what was allowed in all, `spent_seconds` what this stage's steps took. `currency` is "" without prices.
    """

    stage: str
    language: str
    language_name: str
    reference: str
    verdict: str
    recommended: str
    reason: Reason
    outcomes: tuple[Outcome, ...]
    measure: str
    equal: Reason
    budget_seconds: float
    spent_seconds: float
    licences: tuple[Licence, ...] = ()
    currency: str = ""
    caveats: tuple[Reason, ...] = ()
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
        """The value of `decision.json`: the fields as they are named here; every `Reason` has its English sentence as `text`."""
        return _told(encode(self))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decision:
        """The inverse of `to_json`. Raises TypeError or KeyError on a value of another shape."""
        return decode(cls, _untold(value))


def _is_reason(value: Any) -> bool:
    return isinstance(value, dict) and {"code", "values"} <= value.keys()


def _told(value: Any) -> Any:
    """A JSON value with the sentence of every reason in it."""
    if _is_reason(value):
        return value | {"text": Reason(value["code"], value["values"]).text}
    if isinstance(value, dict):
        return {k: _told(v) for k, v in value.items()}
    return [_told(v) for v in value] if isinstance(value, list) else value


def _untold(value: Any) -> Any:
    if _is_reason(value):
        return {k: v for k, v in value.items() if k != "text"}
    if isinstance(value, dict):
        return {k: _untold(v) for k, v in value.items()}
    return [_untold(v) for v in value] if isinstance(value, list) else value
