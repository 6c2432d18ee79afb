"""What the gate's two models were heard to do, as criteria, tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polygraft import stats
from polygraft.result import Cell, Estimate, InputRef, Result, Sample, Table
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.adoption import adoption, new_tokens
from polygraft.vocab.metrics.rows import undertrained
from polygraft.vocab.tables import Side
from polygraft.vocab.tables import Table as Rows
from polygraft.vocab.tokenizer import checks

if TYPE_CHECKING:
    from polygraft.vocab.gate import Heard, Texts

# the scores that decide: DaruCopy's two (a sentence's length in tokens, a paragraph that is whole), and the characters of both
DECIDE = {"sentence": ("copy length", "copy characters"), "paragraph": ("copy reliability", "copy characters")}
ELSEWHERE = "llama.cpp"  # its conditions are told, and do not decide: a SentencePiece model that loads here may not convert


@dataclass(frozen=True)
class Criterion:
    """One thing that must hold: the values of start and model, their paired difference, how far off it may be, whether it is."""

    name: str
    start: Cell
    model: Cell
    difference: Estimate | None
    bound: str
    ok: bool

    @property
    def reason(self) -> str:
        off = f"{self.difference.value:+.3f}" if self.difference else str(self.model)
        return f"{self.name}: {off}, {self.bound}"


def judged(start: Heard, model: Heard, found: Sequence[checks.Check], drop: float, rise: float) -> list[Criterion]:
    """Every criterion in order. A difference decides by its value; its interval says how sure that is."""
    bad = [c for c in found if c.ok is False and not c.name.startswith(ELSEWHERE)]
    out = [Criterion("files, control tokens, template", None, "; ".join(f"{c.name}: {c.found}" for c in bad) or "as they must be",
                     None, "as before", not bad),
           Criterion("finite numbers", None, model.broken or "all", None, "all", not model.broken)]
    if model.broken:
        return out
    for language, read in start.read.items():
        out.append(bits(language, [(s.nats, s.bytes) for s in read], [(s.nats, s.bytes) for s in model.read[language]], rise))
        for kind, copies in start.copies[language].items():
            for name in DECIDE[kind]:
                one, two = ([c.scores[name] for c in some] for some in (copies, model.copies[language][kind]))
                out.append(copy(f"{name}, {kind}s, {language}", one, two, drop))
    return out


def bits(language: str, start: Sequence[tuple[float, int]], model: Sequence[tuple[float, int]], rise: float) -> Criterion:
    """Bits per byte of the same texts, (nats, bytes) of each: all nats over all bytes; paired bootstrap over the texts."""
    columns = np.hstack([np.asarray(start, np.float64), np.asarray(model, np.float64)])
    columns[:, [0, 2]] /= math.log(2)
    a, b = (float(columns[:, i].sum() / columns[:, i + 1].sum()) for i in (0, 2))
    draws = np.concatenate([stats.paired(s[:, 0] / s[:, 1], s[:, 2] / s[:, 3]) for (s,) in stats.resampled([columns])])
    found = stats.summarise(b - a, draws, len(columns))
    verdict = stats.verdict(b - a, found.p, higher_is_better=False)
    change = Estimate(b - a, found.low, found.high, len(columns), "bits/byte", verdict)
    return Criterion(f"bits per byte, {language}", round(a, 4), round(b, 4), change, f"at most {rise:+g}", b - a <= rise)


def copy(name: str, start: Sequence[float], model: Sequence[float], drop: float) -> Criterion:
    """A mean score of copies, each of one text (a share of 1); paired bootstrap over the texts."""
    columns = np.array([start, model], np.float64).T
    a, b = columns.mean(0).tolist()
    draws = np.concatenate([stats.paired(s[:, 0], s[:, 1]) / len(columns) for (s,) in stats.resampled([columns])])
    found = stats.summarise(b - a, draws, len(columns))
    change = Estimate(b - a, found.low, found.high, len(columns), "", stats.verdict(b - a, found.p))
    return Criterion(name, round(a, 4), round(b, 4), change, f"at least {-drop:+g}", b - a >= -drop)


Files = tuple[Vocabulary, Vocabulary, dict[Side, Rows]]


def told(id: str, name: str, asked: Mapping[str, Texts], heard: Mapping[str, Heard], found: list[checks.Check],
         verdict: Sequence[Criterion], made: Files, inputs: tuple[InputRef, ...]) -> Result:  # fmt: skip
    """The result, with `criteria` in its data, which decide the exit code."""
    failed = [c.reason for c in verdict if not c.ok]
    head = f"{name} passes: all of {len(verdict)} criteria hold." if not failed else (
        f"{name} does not pass: {len(failed)} of {len(verdict)} criteria do not hold.")
    rows = tuple((c.name, c.start, c.model, c.difference, c.bound, "yes" if c.ok else "NO") for c in verdict)
    note = "differences: model - start on the same texts, paired bootstrap; the value decides, the interval says how sure it is"
    table = Table("Acceptance", ("what", "start", "model", "difference", "may be", "holds"), rows, note)
    used, adopted, words = (None, {}, ()) if heard["model"].broken else adopted_tokens(heard["model"], *made)
    samples = tuple(Sample(f"{kind} {i + 1}", language, text,
                           {who: h.copies[language][kind][i].text for who, h in heard.items() if not h.broken}, text, "a copy")
                    for language, t in asked.items() for kind, some in t.copies.items() for i, text in enumerate(some[:2]))
    return Result(
        "vocab.gate", id, f"Acceptance of {name}", (head, *(f"Fails: {reason}." for reason in failed), *words),
        tables=(table, *written(heard), *((used,) if used else ()), checks.table(found, "Files")), samples=samples, inputs=inputs,
        data={"criteria": {"passed": not failed, "reasons": failed}, "adoption": adopted,
              "measured": {c.name: {"start": c.start, "model": c.model, "holds": c.ok} for c in verdict}},
        caveats=("a copy shows that text can be read and written, not that a question is answered well: evaluate tasks, too",),
    )  # fmt: skip


def written(heard: Mapping[str, Heard]) -> tuple[Table, ...]:
    """Characters that a written token stands for, and written in a second, in copies: the gain as the model itself writes."""
    if any(h.broken for h in heard.values()):
        return ()
    rows: list[tuple[Cell, ...]] = []
    for language in heard["start"].copies:
        some = [[c for kind in h.copies[language].values() for c in kind] for h in heard.values()]
        characters = [sum(len(c.text.strip()) for c in copies) for copies in some]
        tokens = [n / max(1, sum(c.tokens for c in copies)) for n, copies in zip(characters, some, strict=True)]
        speed = [n / max(1e-9, h.seconds[language]) for n, h in zip(characters, heard.values(), strict=True)]
        rows += [(language, what, round(a, digits), round(b, digits), round(b / a, 2) if a else None)
                 for what, (a, b), digits in (("characters per token", tokens, 3), ("characters per second", speed, 1))]
    note = "per second: of the copies together, their prompts read too, on this machine as busy as it was"
    return (Table("Speed of copies", ("language", "written", *heard, "ratio"), tuple(rows), note),)


def adopted_tokens(model: Heard, new: Vocabulary, old: Vocabulary, held: dict[Side, Rows]) -> tuple[
        Table | None, dict[str, dict[str, float]], tuple[str, ...]]:  # fmt: skip
    """How much the model writes in its new tokens, by language, and how many of their rows look as if nothing had trained them."""
    ids = new_tokens(new, old)
    if not len(ids):
        return None, {}, ("No token of the model is new.",)
    rows, facts = list[tuple[Cell, ...]](), {}
    for language, copies in model.copies.items():
        for what, some in (("copies", [c for kind in copies.values() for c in kind]), ("free text", model.wrote[language])):
            a = adoption(new, ids, [x.ids for x in some], [x.text for x in some])
            rows.append((language, what, a.written, *(f"{x:.1%}" for x in (a.share, a.own)), a.different, f"{a.used:.1%}"))
            facts[f"{language} {what}"] = {"share": a.share, "own": a.own, "different": float(a.different), "used": a.used}
    low = undertrained(new, held)
    suspects = None if low.suspects is None else int(np.isin(low.suspects, ids).sum())
    words = (f"{suspects:,} of {len(ids):,} new rows look as untrained as rows known to be ({low.measure})." if suspects is not None
             else f"Whether new rows are under-trained cannot be told: {low.measure}.",)
    note = "`if cut anew`: the share of new tokens when the tokenizer cuts the same text; below it, the model writes old pieces"
    columns = ("language", "text", "tokens written", "new ones", "if cut anew", "different new ones", "of all new")
    return Table(f"Adoption of {len(ids):,} new tokens", columns, tuple(rows), note), facts, words
