"""Which way fits a model and a text: nothing, trim, extend, replace. Every threshold is a number of the config, and is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from polygraft.vocab.assess.costs import Shape

Route = Literal["none", "trim", "extend", "replace"]
Verdict = Literal["go", "caution", "no-go"]


@dataclass(frozen=True)
class Option:
    """The model with `added` tokens more: characters per token, and what they mean."""

    added: int
    rows: int
    per_token: float
    gain: float  # over the vocabulary as it is
    speed: float  # characters generated in the same time, by bytes moved, over those as it is
    apart: float  # see gains.Sized


@dataclass(frozen=True)
class Limits:
    """The thresholds."""

    gain: float
    speed: float
    share: float
    trimmed: float
    unwritten: float


@dataclass(frozen=True)
class Check:
    """One reason: what was looked at, what was found, what it is held against."""

    name: str
    found: str
    threshold: str
    verdict: Verdict


def option(shape: Shape, base: float, added: int, rows: int, per_token: float, apart: float) -> Option:
    gain = per_token / base
    return Option(added, rows, per_token, gain, gain * shape.moved(shape.rows) / shape.moved(rows), apart)


def needed(o: Option, sightings: int, bytes_per_character: float) -> float:
    """Bytes of text in which a size's new tokens come so often, the rarest tenth aside."""
    return sightings * o.apart * bytes_per_character


def best(options: Sequence[Option], step: float, enough: Callable[[Option], bool]) -> Option:
    """The size to take: the next larger one as long as it makes generation faster by the share `step` at least, of those that
    there is text for; where there is none for any, of all."""
    fits = [o for o in options[1:] if enough(o)] or list(options[1:])
    chosen = fits[0]
    for o in fits[1:]:
        if o.speed < chosen.speed * (1 + step):
            break
        chosen = o
    return chosen


def route(kind: str, chosen: Option, kept: int, rows: int, unwritten: float, limits: Limits) -> tuple[Route, str]:
    """The way, and why. `kept`: tokens that the text needs with their pieces; `unwritten`: share of tokens that are unknown."""
    if unwritten > limits.unwritten:
        return "replace", f"{unwritten:.2%} of the text cannot be written with this vocabulary at all"
    if chosen.gain >= limits.gain:
        if kind != "BPE":
            return "replace", f"the gain is {chosen.gain:.2f} times, and {kind} has no merges to continue"
        return "extend", f"{chosen.added:,} tokens more put {chosen.gain:.2f} times as much text into a token"
    what = "an extension" if kind == "BPE" else "a new vocabulary of the same size"
    small = f"{what} gains {chosen.gain:.2f} times, less than {limits.gain:g}"
    if 1 - kept / rows >= limits.trimmed:
        return "trim", f"{small}; of {rows:,} rows the text needs {kept:,}"
    return "none", small


def verdict(checks: Sequence[Check]) -> Verdict:
    """The worst of all."""
    found = {c.verdict for c in checks}
    return "no-go" if "no-go" in found else "caution" if "caution" in found else "go"
