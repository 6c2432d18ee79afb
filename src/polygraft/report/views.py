"""Results turned into what the template prints: plain values, cut to size, foreign text cleaned. No HTML but the drawings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from polygraft import languages
from polygraft.errors import UserError
from polygraft.report import charts, intervals, layermap
from polygraft.report.escape import clean, csv_text, one_line
from polygraft.report.numbers import duration, number, size
from polygraft.report.strings import EN, Strings, fixed, name_of, named
from polygraft.result import Cell, Curve, Estimate, Result, Sample, Table

CONCLUDES = ("Yes:", "No:")  # how the sentence begins that answers a step's question


@dataclass(frozen=True)
class Limits:
    """How much of everything a page shows. `render` tightens them until the page is under its size."""

    rows: int = 200
    samples: int = 24
    chars: int = 1500
    maps: int = 60
    detail: int = 2
    tables: int = 40
    recipe: int = 40_000


@dataclass(frozen=True)
class Meta:
    """What the page says beyond the results: the run's name and question, its recipe's text, versions and times.

    `folders` maps a step's id to its folder, `missing` names steps without a result, `csv_folder` is where the caller writes
    the tables that are too long for the page ("" for nowhere), `language` is the report's own (`strings.LANGUAGES`).
    """

    name: str = "polygraft"
    question: str = ""
    recipe: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    folders: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    csv_folder: str = ""
    language: str = "en"


# ---------------------------------------------------------------------------------------------------------------- tables


def cell_view(cell: Cell, axes: dict[tuple[str, bool], intervals.Axis], hide_n: bool, chars: int, t: Strings,
              head: str = "") -> dict[str, Any]:
    """A table cell: its text, and for an estimate the interval in words, the drawing and the verdict."""
    if isinstance(cell, Estimate):
        value, interval = intervals.words(cell, t)
        drawing = intervals.plot(cell, axes[intervals.kind(cell)])
        return {"kind": "estimate", "text": clean(value), "interval": interval, "plot": drawing,
                "verdict": one_line(cell.verdict, 40), "mark": intervals.MARKS.get(cell.verdict, ""),
                "n": "" if hide_n or cell.n is None else f"n = {cell.n:,}"}
    if isinstance(cell, int | float) or cell is None:
        return {"kind": "number", "text": number(cell, t=t)}
    text = shorten(cell, min(400, chars))
    return {"kind": "text", "text": fixed(t, head, text)}


def heat_view(cell: Cell, names: tuple[str, str], reaches: dict[tuple[str, bool], float], t: Strings) -> dict[str, Any]:
    """What a matrix's cell shows of an estimate beside `cell_view`: its colour, and everything about it in a tooltip."""
    if not isinstance(cell, Estimate):
        return {}
    value, interval = intervals.words(cell, t)
    said = f"{' · '.join(names)}, {value}" + f" ({interval})" * bool(interval)
    said += f", {t.get(cell.verdict, cell.verdict)}" * bool(cell.verdict)
    return {"kind": "heat", "block": intervals.block(cell, reaches.get(intervals.kind(cell), 0.0), layermap.attr(said)),
            "interval": interval}


def shorten(text: object, chars: int, more: str = "…") -> str:
    """Clean text, at most `chars` characters of it and then `more`, which may name {left}."""
    whole = str(text)
    line = clean(whole[:2 * chars + 200])
    left = len(line) + len(whole[2 * chars + 200:]) - chars
    return line if left <= 0 else line[:chars].rstrip() + more.format(left=f"{left:,}")


def table_view(table: Table, limits: Limits, csv: str, t: Strings) -> dict[str, Any]:
    """A table with its first rows; what was left out is said, and where to find it."""
    shown = replace(table, rows=table.rows[:limits.rows])
    counts = {c.n for row in shown.rows for c in row if isinstance(c, Estimate)}
    same = len(counts) == 1 and counts != {None}
    axes = intervals.axes(shown)
    rows = [[cell_view(c, axes, same, limits.chars, t, head) for c, head in zip(row, table.columns)] for row in shown.rows]
    if table.heat:
        reaches, heads = intervals.reaches(table), table.columns
        for told, row in zip(rows, shown.rows):
            for j, cell in enumerate(row):
                told[j] |= heat_view(cell, (str(row[0]), heads[j]), reaches, t)
    numeric = [bool(rows) and all(row[i]["kind"] == "number" for row in rows) for i in range(len(table.columns))]
    notes = [named(t, shorten(table.note, limits.chars))] if table.note else []
    notes = [n if n[-1:] in ".!?。" else n + "." for n in notes]  # others follow it
    if table.heat and rows:
        notes.append(t["heat"])
    if same:
        notes.append(t["items_each"].format(n=number(next(iter(counts)))))
    if len(table.rows) > limits.rows:
        notes.append(t["rows_more"].format(shown=number(limits.rows), total=number(len(table.rows)), where=csv or t["in_result"]))
    if not rows:
        notes.append(t["no_rows"])
    columns = [{"text": named(t, one_line(c, min(120, limits.chars))), "numeric": n} for c, n in zip(table.columns, numeric)]
    return {"title": named(t, one_line(table.title, 200)), "columns": columns, "rows": rows, "notes": notes, "heat": table.heat,
            "wide": len(columns) > 6}


def anchor(step: str) -> str:
    """The id on the page of the step with this id, for links into a report."""
    return "step-" + re.sub(r"[^A-Za-z0-9_-]+", "-", step)[:80].strip("-")


def csv_name(result: Result, index: int) -> str:
    """A plain file name for a step's table."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", result.id)[:80].strip("-") + f"-{index + 1}.csv"


def csv_file(table: Table) -> str:
    """A whole table as CSV; an estimate takes three columns."""
    wide = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    head = [n for c, w in zip(table.columns, wide) for n in ([c, f"{c} low", f"{c} high"] if w else [c])]
    return csv_text([head, *(flat_row(row, wide) for row in table.rows)])


def flat_row(row: tuple[Cell, ...], wide: list[bool]) -> list[object]:
    """Cells with estimates spread over value, low, high."""
    out: list[object] = []
    for cell, three in zip(row, wide):
        if isinstance(cell, Estimate):
            out += [cell.value, cell.low, cell.high]
        else:
            out += [cell, None, None] if three else [cell]
    return out


def has_estimates(table: Table) -> bool:
    return any(isinstance(c, Estimate) for row in table.rows for c in row)


# ------------------------------------------------------------------------------------------------------- answer and steps


def is_answer(result: Result) -> bool:
    """True for a step that measured something with an interval."""
    return any(has_estimates(t) for t in result.tables)


def verdicts(result: Result) -> dict[str, int]:
    """How many differences of a step are better, worse, not distinguishable."""
    found = [c.verdict for t in result.tables for row in t.rows for c in row if isinstance(c, Estimate)]
    return {kind: found.count(kind) for kind in intervals.MARKS}


def conclusions(summary: Iterable[str]) -> list[str]:
    """The sentences with a yes or no first, the others after them in their order."""
    return sorted(summary, key=lambda s: not s.startswith(CONCLUDES))


def spoken(sentence: str, t: Strings) -> str:
    """A step's sentence with the yes or no in front of it, or the whole verdict that it is, in the report's language."""
    lead = next((c for c in CONCLUDES if sentence.startswith(c)), "")
    return named(t, lead) + sentence[len(lead):] if lead else named(t, sentence)


def in_answer(results: list[Result]) -> list[int]:
    """Which steps answer, the last first; those that conclude or compare before those that only measured."""
    told = [any(s.startswith(CONCLUDES) for s in r.summary) or any(verdicts(r).values()) for r in results]
    return sorted((i for i, r in enumerate(results) if is_answer(r)), key=lambda i: (told[i], i), reverse=True)


def step_view(result: Result, meta: Meta, limits: Limits, t: Strings) -> dict[str, Any]:
    """One step: who it is, its sentences, its tables and caveats."""
    tables = []
    for i, table in enumerate(result.tables[:limits.tables]):
        csv = f"{meta.csv_folder}/{csv_name(result, i)}" if meta.csv_folder else ""
        tables.append({**table_view(table, limits, csv, t), "scored": has_estimates(table)})
    return {"id": one_line(result.id, 80), "step": one_line(result.step, 80), "title": one_line(result.title or result.id, 200),
            "anchor": anchor(result.id),
            "summary": [spoken(shorten(s, limits.chars), t) for s in conclusions(result.summary)[:40]], "tables": tables,
            "answer": is_answer(result), "verdicts": verdicts(result), "folder": one_line(meta.folders.get(result.id, ""), 300)}


# --------------------------------------------------------------------------------------------- maps, curves and samples


def map_groups(results: list[Result], limits: Limits, t: Strings) -> tuple[list[list[dict[str, Any]]], int]:
    """Layer maps grouped by their number of layers, each group drawn in one frame; and how many were left out."""
    found = [(r, m) for r in results for m in r.maps]
    groups: dict[int, list[tuple[Result, Any]]] = {}
    for result, m in found[:limits.maps]:
        groups.setdefault(m.layers, []).append((result, m))
    drawn = []
    for members in groups.values():
        frame = layermap.Frame.of((m for _, m in members), t)
        drawn.append([{"title": one_line(m.title, 200), "step": one_line(r.id, 60), "note": shorten(m.note, 1000),
                       "width": frame.width, "svg": layermap.svg(m, frame, limits.detail)} for r, m in members])
    return drawn, max(0, len(found) - limits.maps)


def curve_view(curve: Curve, prefix: str, t: Strings) -> dict[str, Any]:
    """A chart with its legend as text."""
    drawn, _, step = charts.thin(curve)
    notes = [shorten(curve.note, 1000)] if curve.note else []
    if step > 1:
        notes.append(t["thinned"].format(shown=number(len(drawn)), total=number(len(curve.x))))
    keys = [{"name": one_line(n, 60), "colour": f"var(--c{i % 8})", "dash": ("", "5 3", "5 2 1 2", "1 2")[i // 8 % 4]}
            for i, n in enumerate(curve.series)]
    return {"title": one_line(curve.title, 200), "x": named(t, one_line(curve.x_label, 80)),
            "y": named(t, one_line(curve.y_label, 80)), "notes": notes,
            "keys": keys, "svg": charts.svg(curve, prefix)}


def by_hash(samples: Iterable[Sample], count: int) -> list[Sample]:
    """`count` samples picked by the SHA-256 of their names, in their own order: nobody chose them."""
    kept = list(samples)
    names = [f"{s.language}\0{s.id}".encode("utf-8", "replace") for s in kept]
    ranked = sorted(range(len(kept)), key=lambda i: hashlib.sha256(names[i]).digest())
    return [kept[i] for i in sorted(ranked[:count])]


def sample_view(s: Sample, chars: int, t: Strings) -> dict[str, Any]:
    """One prompt with each model's answer, cut to `chars`."""
    def text(value: str) -> str:
        return shorten(value, chars, t["text_more"]).strip("\n")

    outputs = [{"model": one_line(name, 120), "text": text(answer)} for name, answer in list(s.outputs.items())[:24]]
    return {"id": one_line(s.id, 80), "lang": language_tag(s.language), "language": language_name(s.language, t),
            "prompt": text(s.prompt), "gold": text(s.gold), "note": shorten(s.note, 400), "outputs": outputs}


def language_tag(tag: str) -> str:
    """A tag fit for `lang`, or "" for anything else."""
    return tag if re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,6}", tag) else ""


def language_name(tag: str, t: Strings = EN) -> str:
    """`Arabic (ar)`, or what came where it is not a known tag."""
    try:
        known = languages.check(tag)
        return f"{name_of(t, known) or languages.name(known)} ({tag})"
    except UserError:
        return one_line(tag, 120)


# -------------------------------------------------------------------------------------------------- cost and provenance


def cost_view(results: list[Result], t: Strings = EN) -> dict[str, Any]:
    """Time, memory and bytes of each step, and of all: times and bytes add up, memory is the greatest."""
    longest = max((r.cost.seconds for r in results), default=0) or 1
    rows = [{"id": one_line(r.id, 60), "time": duration(r.cost.seconds, t), "share": round(100 * r.cost.seconds / longest, 1),
             "memory": amount(r.cost.peak_bytes), "read": amount(r.cost.read_bytes), "written": amount(r.cost.written_bytes)}
            for r in results]
    costs = [r.cost for r in results]
    total = {"time": duration(sum(c.seconds for c in costs), t), "memory": amount(max((c.peak_bytes for c in costs), default=0)),
             "read": amount(sum(c.read_bytes for c in costs)), "written": amount(sum(c.written_bytes for c in costs))}
    return {"rows": rows, "total": total}


def amount(count: int) -> str:
    return size(count) if count else "–"


def input_views(results: list[Result], limit: int) -> list[dict[str, str]]:
    """Every distinct input once, in the order of first use; a digest that one step took holds for the others too."""
    seen: dict[tuple, dict[str, str]] = {}
    for ref in (i for r in results for i in r.inputs):
        row = {k: one_line(getattr(ref, k), 300) for k in ("name", "spec", "revision", "identity", "digest")}
        key = tuple(row.values())[:4]
        if key not in seen or not seen[key]["digest"]:
            seen[key] = row
        elif row["digest"] not in ("", seen[key]["digest"]):
            seen[(*key, row["digest"])] = row  # the same name with another content must be seen
    return list(seen.values())[:limit]


def caveat_views(results: list[Result], chars: int) -> list[dict[str, Any]]:
    """Every caveat once, with the steps that it belongs to."""
    seen: dict[str, list[str]] = {}
    for result in results:
        for caveat in result.caveats:
            seen.setdefault(shorten(caveat, chars), []).append(one_line(result.id, 60))
    return [{"text": text, "steps": list(dict.fromkeys(ids))} for text, ids in list(seen.items())[:100]]
