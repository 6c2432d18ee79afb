"""An assessment as tables and sentences: the sizes, the costs, the reasons, the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polygraft import languages
from polygraft.result import Cell, Curve, InputRef, Result, Table
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.assess import decide
from polygraft.vocab.assess.costs import Shape, break_even
from polygraft.vocab.assess.decide import Check, Limits, Option, Route
from polygraft.vocab.assess.gains import Sized
from polygraft.vocab.metrics.counting import Counted
from polygraft.vocab.metrics.digits import Digits
from polygraft.vocab.tokenizer.parted import Parted, as_data, said

LEAST = 50_000  # characters held out, below which a gain is a guess
RULES = (  # what others spent on new tables, by source: bytes of text, or tokens
    ("embedding and head alone, new vocabulary (LEP, arXiv 2412.21140: the least, models of 7-8 B)", 40e9, None),
    ("the same, as much as was read in 30,000 steps of 262,144 tokens (there, section 2.4.1)", None, 30_000 * 262_144),
    ("rows from a donor model by OMP, then trained (arXiv 2506.06607)", None, 2e9),
    ("rows from a hypernetwork, then trained (ZeTT, arXiv 2405.07883)", None, 1e9),
)
ROUTES: dict[Route, str] = {
    "none": "leave the vocabulary as it is", "trim": "trim the vocabulary (`vocab trim`); nothing needs training",
    "extend": "extend the vocabulary (`vocab extend`)", "replace": "replace the vocabulary (`vocab train`)",
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """Continued pretraining of embedding and head on `bytes` of text with the new vocabulary: its tokens and operations, and the
    characters (and months at what is served) until serving has saved as many operations; None where it never does."""

    bytes: float
    tokens: float
    operations: float
    characters: float | None
    months: float | None


@dataclass(frozen=True)
class Assessed:
    """All that was found."""

    vocabulary: Vocabulary
    shape: Shape
    found: Sequence[Sized]
    options: Sequence[Option]
    other: Sized | None  # a vocabulary of the same size in place of the old one; None where there is no room for words
    replacement: Option | None
    chosen: Option
    route: Route
    why: str
    kept: int
    counted: Mapping[str, Counted]
    bytes_per_character: float
    available: float
    cost: Training
    digits: Digits
    text: float
    sightings: int
    served: float | None
    months: float
    limits: Limits
    parted: Mapping[str, Parted]

    @property
    def held(self) -> int:
        """Characters that were measured on."""
        from polygraft.vocab.metrics.figures import column

        return int(self.found[0].all[:, column("characters")].sum())

    @property
    def needed(self) -> float:
        """Bytes of text in which the chosen size's new tokens come as often as they should, the rarest tenth aside."""
        return decide.needed(self.chosen, self.sightings, self.bytes_per_character)

    @property
    def verdict(self) -> decide.Verdict:
        if self.route in ("none", "trim"):
            return "go" if self.route == "trim" else "no-go"
        return decide.verdict(self.checks)

    @property
    def checks(self) -> tuple[Check, ...]:
        return checks(self)


def training(shape: Shape, now: Option, chosen: Option, bytes_per_character: float, text: float,
             served: float | None) -> Training:  # fmt: skip
    """What training on `text` bytes costs, and when serving pays it back. Every token served is a forward pass."""
    tokens = text / bytes_per_character / chosen.per_token
    operations = tokens * shape.training(chosen.rows)
    characters = break_even(operations, shape.forward(now.rows) / now.per_token, shape.forward(chosen.rows) / chosen.per_token)
    months = characters / (served * now.per_token) if served and characters is not None else None
    return Training(text, tokens, operations, characters, months)


# --------------------------------------------------------------------------------------------------------------- reasons


def checks(a: Assessed) -> tuple[Check, ...]:
    """Every reason for and against, with its threshold."""
    c, limits = a.chosen, a.limits
    share = a.shape.share(c.rows)
    found = [
        Check("gain in characters per token", f"{c.gain:.2f} x", f"at least {limits.gain:g} x",
              "go" if c.gain >= limits.gain else "no-go"),
        Check("characters generated in the same time", f"{c.speed:.2f} x", f"at least {limits.speed:g} x",
              "go" if c.speed >= limits.speed else "no-go"),
        Check("share of the parameters in embedding and head", f"{share:.0%}", f"at most {limits.share:.0%}",
              "go" if share <= limits.share else "caution"),
        _text(a),
    ]
    if a.served is not None:
        found.append(_pays(a))
    found.append(Check("numbers", a.digits.words, "one scheme for all numbers", "caution" if a.digits.kind == "mixed" else "go"))
    found.append(Check("text measured on", f"{a.held:,} characters", f"at least {LEAST:,}", "go" if a.held >= LEAST else "caution"))
    return tuple(found)


def _text(a: Assessed) -> Check:
    """Whether there is enough to train on: the authors' least, or at least enough to see every new token often."""
    if a.available >= a.text:
        return Check("text to train on", size(a.available), f"at least {size(a.text)}", "go")
    few = f"{size(a.needed)} for {a.sightings} sightings of a new token"
    return Check("text to train on", size(a.available), f"{size(a.text)}, or {few}" if a.needed else size(a.text),
                 "caution" if a.needed and a.available >= a.needed else "no-go")


def _pays(a: Assessed) -> Check:
    name, limit = "months until serving has saved the training", f"at most {a.months:g}"
    if a.cost.months is None:
        return Check(name, "never: a character costs as much as before", limit, "no-go")
    return Check(name, f"{a.cost.months:.3g}", limit, "go" if a.cost.months <= a.months else "no-go")


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


# ---------------------------------------------------------------------------------------------------------------- tables


def result(a: Assessed, inputs: tuple[InputRef, ...], id: str) -> Result:
    made = (sizes(a), by_language(a), reasons(a), rules(a), trimmed(a))
    return Result("vocab.assess", id, f"What another vocabulary would do for {', '.join(a.counted)}", summary(a), tables=made,
                  curves=(curve(a),) if len(a.options) > 1 else (), inputs=inputs, caveats=caveats(a), data=data(a))


def rows_of(a: Assessed) -> list[tuple[str, Option, Sized]]:
    named = [("as it is" if o.added == 0 else f"+{o.added:,}", o, s) for o, s in zip(a.options, a.found)]
    if a.other is not None and a.replacement is not None:
        named.append((f"another of {a.other.added:,}", a.replacement, a.other))
    return named


def sizes(a: Assessed) -> Table:
    """What each size would be."""
    rows: list[tuple[Cell, ...]] = []
    for name, o, s in rows_of(a):
        context = int(a.shape.context * o.per_token) if a.shape.context else None
        rows.append((name, s.estimate(), o.gain, context, o.speed, a.shape.bytes(o.rows) / 1e6, 100 * a.shape.share(o.rows),
                     a.shape.table_parameters(o.rows) / 1e6, a.shape.table_parameters(o.added) / 1e6,
                     decide.needed(o, a.sightings, a.bytes_per_character) / 1e6 or None))  # fmt: skip
    columns = ("vocabulary", "characters per token", "gain, x", "context, characters", "generation, x", "model, MB",
               "tables, % of parameters", "tables, M parameters", "new rows, M parameters", "text, MB")
    return Table("Sizes", columns, tuple(rows), "on text held out of the sample. Generation: characters in the same time, by the "
                 "bytes that a token moves; reading a prompt gains as characters per token do. Text: for "
                 f"{a.sightings} sightings of a new token, the rarest tenth aside. Another: trained on this sample alone")


def by_language(a: Assessed) -> Table:
    rows: list[tuple[Cell, ...]] = [(languages.name(x), *(s.estimate(x) for _, _, s in rows_of(a))) for x in a.counted]
    return Table("Characters per token by language", ("language", *(name for name, _, _ in rows_of(a))), tuple(rows))


def reasons(a: Assessed) -> Table:
    rows = tuple((c.name, c.found, c.threshold, c.verdict) for c in a.checks)
    return Table(f"For and against {_what(a)}", ("reason", "found", "threshold", "verdict"), rows)


def _what(a: Assessed) -> str:
    return f"{a.chosen.added:,} new tokens" if a.chosen is not a.replacement else f"another vocabulary of {a.chosen.added:,} tokens"


def rules(a: Assessed) -> Table:
    """What training would take by rules of thumb, with the chosen vocabulary."""
    wanted = [(name, bytes_ if bytes_ is not None else (tokens or 0) * a.chosen.per_token * a.bytes_per_character)
              for name, bytes_, tokens in RULES]  # fmt: skip
    if a.needed:
        wanted.insert(0, (f"every new token (but the rarest tenth) seen {a.sightings} times, by this sample", a.needed))
    wanted.insert(0, ("what is counted with above", a.cost.bytes))
    rows: list[tuple[Cell, ...]] = []
    for name, text in wanted:
        t = training(a.shape, a.options[0], a.chosen, a.bytes_per_character, text, a.served)
        rows.append((name, size(text), t.tokens / 1e6, t.operations, t.characters, t.months))
    columns = ("how much text", "bytes", "M tokens", "operations", "characters served until saved", "months")
    return Table("Training embedding and head, by rules of thumb", columns, tuple(rows),
                 "operations: 4 a parameter of the body and 6 of the head for each token; saved where a served character takes "
                 f"fewer than before{'; months at what is served' if a.served else ''}")


def trimmed(a: Assessed) -> Table:
    """What trimming alone would save."""
    gone = a.shape.rows - a.kept
    speed = a.shape.moved(a.shape.rows) / a.shape.moved(a.kept)
    rows = ((a.shape.rows, a.kept, a.shape.table_parameters(gone) * a.shape.itemsize / 1e6, 100 * a.shape.share(a.kept), speed),)
    columns = ("rows", "that the text needs", "saved, MB", "tables then, % of parameters", "generation, x")
    return Table("Trimming alone", columns, rows,
                 "tokens of the sample, control tokens, bytes, digits, and the pieces that they are merged from")


def curve(a: Assessed) -> Curve:
    x = tuple(float(o.added) for o in a.options)
    return Curve("What new tokens gain", x, {"characters per token, x": tuple(o.gain for o in a.options),
                                             "generation, x": tuple(o.speed for o in a.options)}, "new tokens", "over the original")


# ----------------------------------------------------------------------------------------------------------------- words


def summary(a: Assessed) -> tuple[str, ...]:
    """The decision, and what it rests on."""
    go = {"go": "Go", "caution": "Go, with care", "no-go": "No-go"}[a.verdict]
    why = f"{a.why[0].upper()}{a.why[1:]}."
    best = a.verdict == "no-go" and a.route != "none"
    lines = [f"{go}. The best there is would be to {ROUTES[a.route]}. {why}" if best else f"{go}: {ROUTES[a.route]}. {why}"]
    c = a.chosen
    if a.route in ("extend", "replace"):
        lines.append(f"{_what(a)}: {c.per_token:.2f} characters a token instead of {a.options[0].per_token:.2f}; generation "
                    f"{c.speed:.2f} times as fast in characters; the model grows by "
                    f"{size(max(0, a.shape.bytes(c.rows) - a.shape.bytes(a.shape.rows)))}.")
        against = [x for x in a.checks if x.verdict != "go"]
        lines += [f"{x.name}: {x.found}; wanted: {x.threshold} ({x.verdict})." for x in against]
    if a.kept < a.shape.rows and a.route == "trim":
        lines.append("What the sample does not hold, other languages too, is then written in smaller pieces.")
    if a.route == "extend" and a.shape.share(c.rows) > a.limits.share:
        lines.append("The tables would be most of the model: `vocab extend --keep N` drops the least used tokens first.")
    return (*lines, *said(a.parted))


def caveats(a: Assessed) -> tuple[str, ...]:
    found = ["Rules of thumb for training come from models of 7 to 8 billion parameters; a short trial (`vocab init --probe`) "
             "tells more about yours.",
             "Gains are those of merges learned from this sample alone; more text of the same kind gives a little more."]
    if a.cost.characters is not None:
        found.append("Arithmetic saved understates what generation saves, which waits for memory and not for arithmetic.")
    if a.route in ("extend", "replace"):
        found.append(f"Numbers are cut so: {a.digits.words}. Keep it: models given rows of a tokenizer that cuts numbers otherwise "
                     "lost 74 to 79 % of GSM8K (arXiv 2506.06607).")
    return tuple(found)


def data(a: Assessed) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "verdict": a.verdict, "route": a.route, "why": a.why, "chosen": asdict(a.chosen), "options": [asdict(o) for o in a.options],
        "replacement": asdict(a.replacement) if a.replacement else None,
        "checks": [asdict(c) for c in a.checks], "training": asdict(a.cost),
        "needed_bytes": a.needed, "available_bytes": a.available, "kept": a.kept, "shape": asdict(a.shape),
        "languages": {x: {n: s.estimate(x).value for n, _, s in rows_of(a)} for x in a.counted},
        "digits": {"kind": a.digits.kind, "longest": a.digits.longest}, "limits": asdict(a.limits), "held_characters": a.held,
        "parted": as_data(a.parted),
    }  # fmt: skip
