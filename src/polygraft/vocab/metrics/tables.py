"""What several tokenizers do to the same text, as tables, curves and samples: the first beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from polygraft import languages, stats
from polygraft.result import Cell, Curve, Estimate, Sample, Table
from polygraft.vocab.metrics import figures
from polygraft.vocab.metrics.counting import is_utf8
from polygraft.vocab.metrics.study import Parity, Studied, differences, gains

DRAWN = 8  # languages that get a curve
LISTED = 15  # rows like untrained ones, and unreachable tokens, that are listed
CUT = 160  # characters of a sample
COMPARED = ("fertility", "continued words", "STRR of running words", "byte fallback", "documents unchanged by a round trip")
WORDS = ("words are what stands between white space, without the punctuation around it, cut as they stand in text (after a space); "
         "the list holds the most frequent words of the text that are letters only")  # fmt: skip


def per_token(found: Sequence[Studied]) -> Table:
    """Characters per token: a row a language, a column a tokenizer, and the gain of the others over the first."""
    changes = [verdicts(gains(found[0], other), True) for other in found[1:]]
    rows = []
    for language in found[0].counted:
        cells: list[Cell] = [languages.name(language), *(s.estimates[language].get("characters per token") for s in found)]
        for gained in changes:
            e = gained.get(language)
            cells.append(replace(e, unit="%", n=len(found[0].counted[language].sums)) if e else None)
        rows.append(tuple(cells))
    columns = ("language", *(s.name for s in found), *(f"gain of {s.name}" for s in found[1:]))
    return Table("Characters per token", columns, tuple(rows), "total characters over total tokens; intervals over documents")


def verdicts(found: Mapping[str, stats.Bootstrap], higher: bool) -> dict[str, Estimate]:
    """Differences with a verdict each, adjusted for their number (Holm)."""
    adjusted = stats.holm([b.p for b in found.values()])
    return {key: Estimate(b.value, b.low, b.high, verdict=stats.verdict(b.value, p, higher_is_better=higher))
            for (key, b), p in zip(found.items(), adjusted)}  # fmt: skip


def words(found: Sequence[Studied]) -> Table | None:
    """Fertility and how many words stay whole, by language and tokenizer; None where no language parts words by spaces."""
    rows: list[tuple[Cell, ...]] = []
    for language in found[0].counted:
        for s in found:
            made = s.counted[language].words
            listed = made.retention() if made else None
            e = s.estimates[language]
            if listed:
                rows.append((languages.name(language), s.name, *(e.get(f) for f in COMPARED[:3]), 100 * listed[0], 100 * listed[1]))
    columns = ("language", "tokenizer", *COMPARED[:3], "STRR of the list, %", "STRR of the list, bare, %")
    return Table("Words", columns, tuple(rows), WORDS) if rows else None


def use(found: Sequence[Studied]) -> Table:
    """How a vocabulary is used and what it cannot write, by language and tokenizer."""
    rows: list[tuple[Cell, ...]] = []
    for language in found[0].counted:
        for s in found:
            c, e = s.counted[language], s.estimates[language]
            rows.append((languages.name(language), s.name, c.total("tokens"), e["bytes per token"].value, s.renyi(language),
                         100 * s.used(language), e["byte fallback"].value, e["unknown"].value,
                         e["documents unchanged by a round trip"].value))  # fmt: skip
    columns = ("language", "tokenizer", "tokens", "bytes per token", "Rényi efficiency", "tokens used, %", "parts of characters, %",
               "unknown, %", "unchanged by a round trip, %")  # fmt: skip
    return Table("The vocabulary in use", columns, tuple(rows), f"Rényi efficiency with alpha {figures.ALPHA:g} over all tokens of "
                 "the vocabulary, used or not; parts of characters: byte tokens, and tokens that are no whole characters")


def changes(found: Sequence[Studied]) -> Table | None:
    """Differences from the first tokenizer on the same documents; None of one tokenizer."""
    rows: list[tuple[Cell, ...]] = []
    units = {f.name: f for f in figures.FIGURES}
    for other in found[1:]:
        both = differences(found[0], other)
        columns = {f: verdicts({lang: d[f] for lang, d in both.items() if f in d}, units[f].higher) for f in COMPARED}
        for language in both:
            cells = (columns[f].get(language) for f in COMPARED)
            rows.append((languages.name(language), other.name,
                         *(replace(c, unit=units[f].unit) if c else None for f, c in zip(COMPARED, cells))))  # fmt: skip
    return Table(f"Differences from {found[0].name}", ("language", "tokenizer", *COMPARED), tuple(rows),
                 "on the same documents; verdicts adjusted for the number of languages (Holm)") if rows else None


def vocabularies(found: Sequence[Studied]) -> Table:
    """What the vocabularies are, a row each."""
    rows: list[tuple[Cell, ...]] = []
    for s in found:
        v, suspects = s.vocabulary, None if s.rows is None or s.rows.suspects is None else len(s.rows.suspects)
        rows.append((s.name, f"{v.kind}, {v.alphabet}", s.tokens, len(v.holes), len(v.control), s.digits.words, len(s.unreachable),
                     len(s.parted_control), *(_added(found, s) if len(found) > 1 else ()), suspects))
    more = ("added", "added and used") if len(found) > 1 else ()
    columns = ("tokenizer", "kind", "tokens", "ids without a token", "control tokens", "numbers", "unreachable",
               "control tokens not one id", *more, "rows like untrained ones")  # fmt: skip
    return Table("Vocabularies", columns, tuple(rows), "unreachable: encoding the token's own text gives others. Added: tokens "
                 "whose bytes the first vocabulary lacks; used: at least once in the text. Rows are looked at of models only")


def _added(found: Sequence[Studied], s: Studied) -> tuple[Cell, Cell]:
    return (None, None) if s is found[0] else (len(s.added), s.emitted)


def parities(found: Sequence[Parity]) -> Table:
    """Tokens of every language over those of the reference, on the same sentences."""
    rows: list[tuple[Cell, ...]] = [(languages.name(x), *(p.premiums[x] for p in found)) for x in found[0].premiums]
    rows.append(("Gini over languages", *(p.gini for p in found)))
    return Table(f"Cost on parallel text, {languages.name(found[0].reference)} = 1", ("language", *(p.tokenizer for p in found)),
                 tuple(rows), "tokens for the same sentences; Gini: 0 where all languages cost the same")


def token_text(studied: Studied, i: int) -> str:
    """A token as its text, in quotes; bytes that are no text in hex."""
    content = studied.vocabulary.contents[i]
    return repr(content.decode()) if content is not None and is_utf8(content) else (content or b"").hex(" ")


def suspects(studied: Studied) -> Table | None:
    """The rows most like untrained ones, lowest first."""
    if studied.rows is None or studied.rows.suspects is None or not len(studied.rows.suspects):
        return None
    values, new = studied.rows.indicator, set(studied.added.tolist())
    rows = tuple((int(i), token_text(studied, int(i)), float(values[i]), "yes" if int(i) in new else "")
                 for i in studied.rows.suspects[:LISTED])  # fmt: skip
    return Table(f"Rows like untrained ones: {studied.name}", ("id", "token", studied.rows.measure, "added"), rows,
                 f"{len(studied.rows.suspects):,} tokens have no more than {studied.rows.threshold:.3g}, as 95 % of "
                 f"{len(studied.rows.unused):,} rows known to be unused; the lowest are listed")


def curves(found: Sequence[Studied]) -> tuple[Curve, ...]:
    """Of each language, what share of its text the most frequent tokens are."""
    drawn = []
    for language in list(found[0].counted)[:DRAWN]:
        shares = {s.name: figures.coverage(s.counted[language].counts) for s in found}
        most = max(len(c) for c in shares.values())
        ranks = np.unique([*(1 << np.arange(most.bit_length())), most])
        series: dict[str, tuple[float | None, ...]] = {
            name: tuple(100 * float(c[min(int(r), len(c)) - 1]) for r in ranks) for name, c in shares.items()}
        drawn.append(Curve(f"Share of the text that the most frequent tokens are: {languages.name(language)}",
                           tuple(float(x) for x in np.log2(ranks)), series, "log2 of the number of tokens", "% of its tokens"))
    return tuple(drawn)


def samples(found: Sequence[Studied], first: Mapping[str, str]) -> tuple[Sample, ...]:
    """The beginning of each language's text with the boundaries of tokens, and a document that a round trip changes."""
    made = []
    for language, text in first.items():
        cut = text[:CUT]
        made.append(Sample(f"cut-{language}", language, cut, {s.name: s.reader.shown(cut) for s in found},
                           note="| between tokens; <D0> a byte that is no character by itself"))
    for s in found:
        for language, c in s.counted.items():
            for text in c.changed[:1]:
                back = s.vocabulary.tokenizer.decode(s.vocabulary.tokenizer.encode(text, add_special_tokens=False).ids,
                                                     skip_special_tokens=False)
                at = next((i for i, (a, b) in enumerate(zip(text, back)) if a != b), min(len(text), len(back)))
                near = slice(max(0, at - 40), at + 40)
                made.append(Sample(f"changed-{language}-{s.name}", language, text[near], {s.name: back[near]},
                                   note="a round trip (encode, decode) does not give the text back"))
    return tuple(made)


def as_data(found: Sequence[Studied], parallel: Sequence[Parity]) -> dict[str, Any]:
    """Every figure, for programs."""
    return {"tokenizers": {s.name: _studied(s) for s in found},
            "parallel": {p.tokenizer: {"reference": p.reference, "gini": p.gini.value, "tokens": p.tokens,
                                       "premium": {x: e.value for x, e in p.premiums.items()}} for p in parallel}}  # fmt: skip


def _studied(s: Studied) -> dict[str, Any]:
    by_language = {}
    for language, c in s.counted.items():
        made = c.words.retention() if c.words else None
        by_language[language] = {
            "totals": dict(zip(figures.COLUMNS, map(int, c.totals))),
            "figures": {n: e.value for n, e in s.estimates[language].items()},
            "tokens_per_byte": c.total("tokens") / c.total("bytes"),
            "renyi_efficiency": s.renyi(language), "tokens_used": int((c.counts > 0).sum()),
            "frequency_95": figures.percentile_frequency(c.counts), "added_used": int((c.counts[s.added] > 0).sum()),
            "strr_list": {"spaced": made[0], "bare": made[1], "types": made[2]} if made else None,
        }  # fmt: skip
    rows = s.rows
    return {
        "size": s.tokens, "kind": s.vocabulary.kind, "alphabet": s.vocabulary.alphabet, "holes": len(s.vocabulary.holes),
        "digits": {"kind": s.digits.kind, "longest": s.digits.longest}, "control": s.vocabulary.control,
        "control_parted": s.parted_control, "unreachable": {str(i): why for i, why in s.unreachable.items()},
        "added": len(s.added), "added_used": s.emitted, "alpha": figures.ALPHA, "languages": by_language,
        "rows": None if rows is None else {
            "measure": rows.measure, "threshold": rows.threshold, "known_unused": len(rows.unused),
            "suspects": None if rows.suspects is None else [int(i) for i in rows.suspects],
            "suspects_added": None if rows.suspects is None else int(np.isin(rows.suspects, s.added).sum())},
    }  # fmt: skip
