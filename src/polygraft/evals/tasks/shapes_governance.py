"""Shapes of the governance tasks: counterfactual sentences, and a user's list of terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polygraft import languages

Row = dict[str, Any]
Words = Mapping[str, Any]


def counterfactuals(rows: list[Row], words: Words) -> list[Row]:
    """category, frame with {term} and {attribute}, pairs of terms, pairs of attributes: one row for each pair with each pair, with
    the four sentences (first term and attribute, second term, then both with the second attribute)."""
    out = []
    for row in rows:
        for n, terms in enumerate(row["terms"]):
            for k, attributes in enumerate(row["attributes"]):
                sentences = [row["frame"].replace("{term}", t).replace("{attribute}", a) for a in attributes for t in terms]
                if len(set(sentences)) != 4:
                    raise ValueError(f"four different sentences are needed: {row['frame']!r} with {terms} and {attributes}")
                out.append({"id": f"{row['category']}-{n}-{k}", "category": row["category"], "sentences": sentences,
                            "terms": " / ".join(terms), "attributes": " / ".join(attributes)})
    return out


def glossary(rows: list[Row], words: Words) -> list[Row]:
    """source, preferred (several with |), optional forbidden (with |), sentence and language: the rows of the asked language."""
    kept = [r for r in rows if not r.get("language") or languages.check(r["language"]) == words["language"]]
    return [{**r, "sentence": str(r.get("sentence") or "").strip() or r["source"].strip(), "preferred": terms(r["preferred"]),
             "forbidden": terms(r.get("forbidden") or "")} for r in kept]


def terms(cell: str) -> list[str]:
    """The terms of a cell, which `|` sets apart."""
    return [t.strip() for t in str(cell).split("|") if t.strip()]


SHAPES: dict[str, Callable[[list[Row], Words], list[Row]]] = {"counterfactuals": counterfactuals, "glossary": glossary}
