"""Language tags: BCP-47 primary tag, with a script or region only where it says more than the language itself.

The table beside this module has one language a line: tag, ISO 639-3, usual script, English name, own name, other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from polygraft.errors import RecipeError, did_you_mean

RTL_SCRIPTS = {"Arab", "Hebr", "Thaa", "Syrc", "Nkoo", "Adlm", "Rohg", "Mand", "Samr", "Yezi"}
SCRIPT = re.compile(
    "Arab|Armn|Beng|Bopo|Cans|Cher|Copt|Cyrl|Deva|Ethi|Geor|Goth|Grek|Gujr|Guru|Hang|Hani|Hans|Hant|Hebr|Hira|Java|Jpan|Kana|Khmr|Knda|"
    "Kore|Laoo|Latn|Mlym|Mong|Mtei|Mymr|Olck|Orya|Sinh|Sund|Taml|Telu|Tfng|Tglg|Thai|Tibt|Xsux|Yiii|Thaa|Syrc|Nkoo|Adlm|Rohg|Mand|Samr|Yezi"
)
SCRIPT_NAMES = {"Hant": "Traditional", "Hans": "Simplified", "Latn": "Latin", "Cyrl": "Cyrillic", "Arab": "Arabic script"}
SHOWN = 20  # languages that a message lists
SHAPE = re.compile(r"^(?P<lang>[A-Za-z]{2,3})(?:[-_](?P<script>[A-Za-z]{4}))?(?:[-_](?P<region>[A-Za-z]{2}|[0-9]{3}))?$")
PRIVATE = re.compile(r"^x-[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*$")
HANT_REGIONS = {"TW", "HK", "MO"}
# ISO 639-2's bibliographic codes, which no language has in ISO 639-3
BIBLIOGRAPHIC = {
    "alb": "sq", "arm": "hy", "baq": "eu", "bur": "my", "chi": "zh", "cze": "cs", "dut": "nl", "fre": "fr", "geo": "ka",
    "ger": "de", "gre": "el", "ice": "is", "mac": "mk", "mao": "mi", "may": "ms", "per": "fa", "rum": "ro", "slo": "sk",
    "tib": "bo", "wel": "cy",
}
# countries' codes, which people write for the language: those that are no language's, and those that are another one's
COUNTRIES = {"cn": "zh", "tw": "zh-Hant", "jp": "ja", "cz": "cs", "gr": "el", "dk": "da", "ua": "uk", "vn": "vi", "ir": "fa",
             "il": "he", "us": "en", "gb": "en"}
MISTAKEN = {"kr": "ko", "se": "sv", "ee": "et", "si": "sl"}


@dataclass(frozen=True)
class Language:
    """One line of the table."""

    tag: str
    iso3: str
    script: str
    name: str
    native: str
    others: tuple[str, ...]


@lru_cache(1)
def table() -> dict[str, Language]:
    """Every known language by its tag."""
    rows = (line.split("\t") for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines())
    padded = ([*row, "", ""][:6] for row in rows)
    return {r[0]: Language(r[0], r[1], r[2], r[3], r[4], tuple(o.replace("_", " ") for o in r[5].split())) for r in padded}


@lru_cache(1)
def _words() -> dict[str, str]:
    """Every code and name, case-folded, to its tag."""
    words: dict[str, str] = {}
    for lang in table().values():
        for word in (lang.tag, lang.iso3, lang.name, lang.native, *lang.others):
            if word:
                words.setdefault(word.casefold(), lang.tag)
    return words | {code: tag for code, tag in BIBLIOGRAPHIC.items() if tag in table()}


def check(tag: str) -> str:
    """The canonical tag: `sw`, `zh-Hant`, `pt-BR`, `sr-Latn`, from BCP-47, ISO 639-3, FLORES (`swh_Latn`), NTREX or a name.

    A script that the language usually has is left out. `x-NAME` stands for a language that the table lacks. Raises RecipeError
    with the nearest known tag.
    """
    tag = tag.strip() if isinstance(tag, str) else ""
    if tag in table():
        return tag
    if PRIVATE.match(tag):
        return tag.lower()
    if whole := _words().get(tag.casefold()):
        return whole
    m = SHAPE.match(tag)
    lang = _words().get(m["lang"].casefold()) if m else None
    if m is None or lang is None or (m["script"] and not SCRIPT.fullmatch(m["script"].title())):
        raise _unknown(tag)
    return _compose(lang, (m["script"] or "").title(), (m["region"] or "").upper())


def _compose(lang: str, script: str, region: str) -> str:
    if lang == "zh":
        return "zh-Hant" if script == "Hant" or (not script and region in HANT_REGIONS) else "zh"
    usual = {table()[lang].script} | ({"Hang"} if lang == "ko" else set())
    return "-".join(p for p in (lang, "" if script in usual else script, region) if p)


def _unknown(tag: str) -> RecipeError:
    near = _meant(tag)
    hint = f"did you mean `{near}` ({name(near)})?" if near else "check the spelling;"
    return RecipeError(
        "no such language tag",
        where="language",
        found=repr(tag)[:80],
        expected="a BCP-47 tag such as sw, zh-Hant or pt-BR",
        fix=f"{hint} a language that is not in the table can be named x-NAME",
    )


def _meant(tag: str) -> str | None:
    """What a tag that is none was likely meant to be: a country's language, a script with a slip, a word that is near."""
    if tag.lower() in COUNTRIES:
        return COUNTRIES[tag.lower()]
    m = SHAPE.match(tag)
    if m and m["script"] and m["lang"].casefold() in _words():
        near = did_you_mean(m["script"], SCRIPT.pattern.split("|"))
        return f"{m['lang']}_{near}" if near else _words()[m["lang"].casefold()]
    word = did_you_mean(tag, _words())
    return _words()[word.casefold()] if word else None


def nearest(tag: str, known: Iterable[str]) -> str:
    """A ready `fix` line for a checked tag that is not among the known ones: the language without its region or with another, the
    one that a country's code was meant for, or the known ones (at most 20)."""
    known = sorted(known)
    own, meant = tag.partition("-")[0], MISTAKEN.get(tag, "")
    if near := next((k for k in known if own in table() and k.partition("-")[0] == own), None):
        return f"did you mean `{near}` ({name(own)})?"
    if meant in known:
        return f"did you mean `{meant}` ({name(meant)})? `{tag}` is {name(tag)}"
    return "known: " + ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")


def split(tag: str) -> tuple[str, str, str]:
    """(language, script, region) of a checked tag; the script is the usual one where the tag names none."""
    parts = tag.split("-")
    if parts[0] == "x":
        return tag, "Latn", ""
    script = next((p for p in parts[1:] if len(p) == 4), table()[parts[0]].script)
    return parts[0], script, next((p for p in parts[1:] if len(p) in (2, 3)), "")


def name(tag: str, *, native: bool = False) -> str:
    """`Swahili`, `Chinese (Traditional)`, `Portuguese (BR)`; its own name with `native`, where the table has it."""
    if tag.startswith("x-"):
        return tag.removeprefix("x-")
    lang, script, region = split(check(tag))
    entry = table()[lang]
    more = [p for p in (SCRIPT_NAMES.get(script, script) if script != entry.script else "", region) if p]
    return ((native and entry.native) or entry.name) + (f" ({', '.join(more)})" if more else "")


def rtl(tag: str) -> bool:
    """Whether text in this language runs from right to left, by its script."""
    return split(check(tag))[1] in RTL_SCRIPTS


def iso3(tag: str) -> str:
    """ISO 639-3 of a tag's language: the key of most multilingual data sets."""
    return table()[split(check(tag))[0]].iso3 if not tag.startswith("x-") else tag
