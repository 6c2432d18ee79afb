"""Calibration against evaluation: what each language loses by each calibration, and which one to use for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.prune.study.compare import Compared, chosen, differences
from polygraft.prune.study.config import Study, roles
from polygraft.prune.study.found import Found, Group
from polygraft.result import Cell, Curve, Estimate, Table
from polygraft.stats import BETTER, UNCLEAR, WORSE

FLOOR = "another seed of the same text"
TEXT = "text"
ORDER = ("target", "reference", "hybrid", "protected", "equal", "mixture")


def harm(found: Found, group: Group, bits: Mapping[str, Compared]) -> Table:
    """Bits per byte that every language loses."""
    languages = list(bits)
    pairs = [(c, i, None) for c in range(len(languages)) for i in range(len(group.settings))]
    judged = differences(list(bits.values()), pairs)
    rows: list[tuple[Cell, ...]] = [("the dense model's bits per byte", *(round(bits[g].dense, 4) for g in languages))]
    rows += [(s, *(judged[c, i] for c in range(len(languages)))) for i, s in enumerate(group.settings)]
    return Table(f"What every language loses: {group.name}", ("calibrated on", *languages), tuple(rows),
                 f"bits per byte above the dense model's, mean of {len(group.seeds)} seeds; 95 % paired bootstrap over documents, "
                 "verdicts by Holm over the table; less is better; compare within a column", heat=True)  # fmt: skip


def against_reference(found: Found, group: Group, bits: Mapping[str, Compared]) -> tuple[Table, dict[tuple[str, str], Estimate]]:
    """The same against the reference calibration, with the floor; and (setting, language) -> difference."""
    languages, reference = list(bits), found.config.against
    at = group.settings.index(reference) if reference in group.settings else None
    if at is None:
        return Table("", (), ()), {}
    others = [i for i in range(len(group.settings)) if i != at]
    judged = differences(list(bits.values()), [(c, i, at) for c in range(len(languages)) for i in others])
    rows: list[tuple[Cell, ...]] = [(group.settings[i], *(judged[c, i] for c in range(len(languages)))) for i in others]
    rows.append((FLOOR, *(None if (f := bits[g].floor) is None else round(f, 4) for g in languages)))
    note = (f"bits per byte, each calibration minus {reference}; less is better. A difference is called one where it passes (Holm "
            f"over the table) and exceeds the last row: the largest difference between two seeds of one calibration.")
    table = Table(f"Against calibration on {reference}: {group.name}", ("calibrated on", *languages), tuple(rows), note, heat=True)
    return table, {(group.settings[i], g): judged[c, i] for c, g in enumerate(languages) for i in others}


def tasks(group: Group, asked: Mapping[str, Compared]) -> Table | None:
    """Scores of every task under every calibration."""
    if not asked:
        return None
    some = range(len(group.settings))
    rows: list[tuple[Cell, ...]] = [(name, c.dense_estimate(), *map(c.estimate, some)) for name, c in asked.items()]
    return Table(f"Tasks: {group.name}", ("task", "dense", *group.settings), tuple(rows),
                 f"mean of {len(group.seeds)} seeds, 95 % bootstrap over items")


def purposes(found: Found, group: Group, bits: Mapping[str, Compared], asked: Mapping[str, Compared]) -> Table:
    """Use this calibration for this purpose: for each target language, its text and its tasks."""
    rows = list[tuple[Cell, ...]]()
    for target in found.config.languages:
        about = {(TEXT, "bits per byte"): bits[target]}
        about |= {tuple(name.split(" ", 1)): c for name, c in asked.items() if c.column.language == target}  # type: ignore[misc]
        for (purpose, what), c in about.items():
            rows.append((target, purpose, what, *_beside(found.config, group, target, c)))
    note = ("best first; all that are named cannot be told apart: paired bootstrap, Holm within the row, and a difference larger "
            "than another seed makes. The reference is " + found.config.against)
    columns = ("for", "purpose", "measured by", "use", *ORDER)
    return Table(f"Which calibration for which purpose: {group.name}", columns, tuple(rows), note)


def _beside(config: Study, group: Group, target: str, c: Compared) -> list[Cell]:
    """The advice, and the value under every role."""
    known = {role: group.settings.index(s) for role, s in roles(config, target).items() if s in group.settings}
    best = chosen(c, list(known.values()))
    names = {i: role for role, i in known.items()}
    advice = "no difference found" if len(best) == len(known) else " or ".join(names[i] for i in best)
    if len(known) == 1:
        advice = f"{names[best[0]]}: nothing to compare it with"
    return [advice, *(c.estimate(known[role]) if role in known else None for role in ORDER)]


# ------------------------------------------------------------------------------------------------------------------ in words


def summary(found: Found, group: Group, bits: Mapping[str, Compared], judged: Mapping[tuple[str, str], Estimate]) -> list[str]:
    """What the matrix says of target-language calibration, in sentences."""
    config, alone = found.config, [s for s in group.settings if s in bits]
    if len(alone) < 2:
        return []
    lowest = [g for g in alone if min(alone, key=lambda s: bits[g].values[group.settings.index(s)]) == g]
    told = [f"{group.name}: in {len(lowest)} of {len(alone)} languages bits per byte are lowest by calibration on their own text"
            + (f" ({', '.join(lowest)})." if lowest else ".")]  # fmt: skip
    own = {g: judged[g, g].verdict for g in alone if (g, g) in judged}
    if own:
        words = {BETTER: "less", WORSE: "more", UNCLEAR: "no differently"}
        counted = [f"{sum(v == verdict for v in own.values())} lose {word}" for verdict, word in words.items()]
        told.append(f"Calibrated on their own text instead of {config.against}: {', '.join(counted)}, beyond what a seed does.")
    return told


def data(group: Group, bits: Mapping[str, Compared]) -> dict[str, Any]:
    """The whole matrix, by seed."""
    return {"group": group.name, "settings": list(group.settings), "seeds": list(group.seeds), "languages": list(bits),
            "dense": {g: c.dense for g, c in bits.items()}, "floor": {g: c.floor for g, c in bits.items()},
            "bits": {g: c.by_seed.tolist() for g, c in bits.items()}}  # fmt: skip


# -------------------------------------------------------------------------------------------------------------------- axes


def axes(found: Found, all_bits: Mapping[str, Mapping[str, Compared]]) -> list[Curve]:
    """Bits per byte of every language under its own calibration, along the number of windows and the share of noise."""
    curves = []
    for label, at in (("windows", 2), ("share of tokens dealt anew", 3)):
        by: dict[tuple[str, str], list[tuple[float, Group]]] = {}
        for group in found.groups:
            method, pattern, samples, noise = next(iter(group.cells.values())).group
            if (noise if at == 2 else samples != found.config.samples):
                continue
            by.setdefault((method, pattern), []).append((float((samples, noise)[at - 2]), group))
        for (method, pattern), some in by.items():
            if len(some) > 1:
                curves.append(_axis(f"{method} at {pattern}, each language calibrated on its own text", label,
                                    sorted(some, key=lambda s: s[0]), all_bits))  # fmt: skip
    return curves


def _axis(title: str, label: str, some: Sequence[tuple[float, Group]], all_bits: Mapping[str, Mapping[str, Compared]]) -> Curve:
    languages = [g for g in all_bits[some[0][1].name] if all(g in group.settings for _, group in some)]
    series = {g: tuple(float(all_bits[group.name][g].values[group.settings.index(g)]) for _, group in some) for g in languages}
    return Curve(title, tuple(x for x, _ in some), dict(series), label, "bits per byte")
