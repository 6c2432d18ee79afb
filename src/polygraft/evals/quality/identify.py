"""Which language a text is in: the script first, then a naive-Bayes model of byte n-grams (py3langid) among those who share it.

"und" (undetermined) is an answer: for a few words, for digits, for what the model is not sure of, and for languages that it was
never taught and whose script is shared. docs/quality.md has the measured accuracy per language.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from polygraft import languages
from polygraft.errors import RecipeError
from polygraft.evals.quality import script
from polygraft.evals.quality.prose import prose

UNDETERMINED = "und"
LETTERS = 20  # fewer letters say nothing
SURE = 0.7  # the share of the probability that a language needs
ENOUGH = 1_500  # characters looked at, from the beginning, the middle and the end: the model grows unsure of long loops
KANA = 0.05  # a Japanese text of this length has at least this share of kana among its signs
RENAMED = {"no": "nb", "gug": "gn", "kik": "ki", "grc": "el", "hbo": "he", "fuv": "ff", "uzs": "uz", "sdh": "ckb", "dz": "bo"}
# written alike, so that a model of short texts takes one for the other: an answer in one passes for the other
FAMILIES = (
    ("id", "ms"), ("bs", "hr", "sr", "sh", "cnr"), ("nb", "nn", "no"), ("zh", "wuu", "yue", "gan", "hak", "hsn", "lzh"),
    ("ar", "arz", "ary", "acm", "acq", "aeb", "ajp", "apc", "arq", "ars"), ("tl", "fil"), ("fa", "prs"), ("gom", "kok"),
    ("bo", "dz", "adx", "khg"),
)  # fmt: skip
# letters of a language that the model was not taught, and that the others of its script hardly use
OWN_LETTERS = {"Ethi": ("ti", "ኣሓሒዑቐቑቒቓቔቕቖኹኺኻኼኽኾ"), "Arab": ("sd", "ٻڀٺٽٿڄڃڇڌڏڊڍڙڦڱڳڻ")}
HINDI_WORDS = frozenset((
    "hai", "hain", "tha", "thi", "ho", "hoon", "hum", "main", "mein", "mera", "meri", "mujhe", "aap", "aapka", "aapki",
    "aapko", "tum", "tumhara", "kya", "kyon", "kyun", "kaise", "kab", "kahan", "kaun", "ka", "ki", "ke", "ko", "se", "par",
    "aur", "ya", "nahi", "nahin", "bhi", "toh", "yah", "yeh", "voh", "woh", "iska", "uska", "unka", "kar", "karo", "karna",
    "karte", "karta", "raha", "rahi", "rahe", "sakta", "sakte", "gaya", "gayi", "liye", "saath", "baad", "pehle", "bahut",
    "accha", "acha",
))  # fmt: skip
HINDI_ONLY = frozenset(("hai", "hain", "mein", "nahi", "nahin", "kya", "aap", "mujhe", "aur", "kyon", "kaise", "raha", "rahe"))


@dataclass(frozen=True)
class Found:
    """A language tag ("und" when it cannot be said; `hi-Latn` for romanised Hindi) and how sure that is, 0 to 1."""

    tag: str
    confidence: float


@lru_cache(1)
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def forget() -> None:
    """Give the model's 70 MB back, for work that needs the memory; who asks again reads it again."""
    _model.cache_clear()


@lru_cache(1)
def taught() -> dict[str, str]:
    """The model's labels that have a tag here -> that tag."""
    out = {}
    for label in _model().labels:
        try:
            out[label] = languages.check(RENAMED.get(label, label))
        except RecipeError:
            continue  # French creoles, Gun, "no language": they have no line in the table of languages
    return out


@lru_cache(1)
def told() -> frozenset[str]:
    """Languages whose absence can be told: taught to the model, or alone in their script."""
    families = {family(t) for t in taught().values()}
    alone = {next(iter(w)) for w in _writers().values() if len(w) == 1}
    return frozenset({t for t in languages.table() if family(t) in families} | alone)


@lru_cache(1)
def _writers() -> dict[str, frozenset[str]]:
    """Every script -> the languages of the table that are written in it."""
    out: dict[str, set[str]] = {}
    for tag in languages.table():
        for s in script.possible(tag):
            out.setdefault(s, set()).add(tag)
    return {s: frozenset(tags) for s, tags in out.items()}


@lru_cache(4096)
def family(tag: str) -> str:
    """A name for the languages that are not told apart: the tag itself for most."""
    lang = languages.split(tag)[0]
    return next((f[0] for f in FAMILIES if lang in f), lang)


def identify(text: str, candidates: Collection[str] = ()) -> Found:
    """The language of a text, of `candidates` where some are given (tags), else of all that are known."""
    return _identify(prose(text), frozenset(languages.split(languages.check(c))[0] for c in candidates))


@lru_cache(64)  # the same answer is asked about by several metrics, one after the other
def _identify(text: str, candidates: frozenset[str]) -> Found:
    counts = script.letters(text)
    total = sum(counts.values())
    if total < LETTERS:
        return Found(UNDETERMINED, 0.0)
    main = _main_script(counts)
    share = counts.get(main, 0) / total
    writers = _writers().get(main, frozenset())
    if main == "Kana":
        return Found("ja", 1.0) if not candidates or "ja" in candidates else Found(UNDETERMINED, 0.0)
    alone = writers & candidates if candidates else writers
    if len(alone) == 1:
        return Found(next(iter(alone)), share)
    if main == "Latn" and romanised_hindi(text) and (not candidates or "hi" in candidates):
        return Found("hi-Latn", share)
    if main in OWN_LETTERS:
        tag, own = OWN_LETTERS[main]
        if sum(text.count(c) for c in own) > 0.02 * total:
            return Found(tag if tag in alone else UNDETERMINED, share)
    return _by_model(text, alone, main)


def _main_script(counts: dict[str, int]) -> str:
    """The script of most letters; Japanese (as "Kana") where kana stand among the Han signs."""
    kana, han = counts.get("Hira", 0) + counts.get("Kana", 0), counts.get("Hani", 0)
    merged = {s: n for s, n in counts.items() if s not in ("Hira", "Kana", "Hani", "Hang")}
    merged["Hang"] = counts.get("Hang", 0)
    merged["Kana" if kana > KANA * (kana + han) else "Hani"] = kana + han
    return max(merged, key=merged.__getitem__)


def _by_model(text: str, allowed: Iterable[str], main: str) -> Found:
    """The model's ranking among languages of this script, families summed; undetermined where no family is sure enough."""
    ranked = ranking(text, frozenset(allowed))
    if not ranked:
        return Found(UNDETERMINED, 0.0)
    best = max(ranked, key=ranked.__getitem__)
    sums: dict[str, float] = {}
    for tag, p in ranked.items():
        sums[family(tag)] = sums.get(family(tag), 0.0) + p
    name = max(sums, key=sums.__getitem__)
    if sums[name] < SURE:
        return Found(UNDETERMINED, sums[name])
    if family(best) != name:
        best = max((t for t in ranked if family(t) == name), key=ranked.__getitem__)
    usual = script.expected(best)
    return Found(best if main in usual or main == "Hani" else f"{best}-{main}", sums[name])


def ranking(text: str, allowed: frozenset[str]) -> dict[str, float]:
    """Probability of each allowed language that the model was taught; empty where it gives none of them any."""
    out: dict[str, float] = {}
    known, most = taught(), 0.0
    for label, p in _model().rank(_pieces(text)):  # likeliest first
        if p < 1e-4 * most:
            break  # no later one changes a verdict
        tag = known.get(label, "")
        if tag in allowed:
            most = max(most, p)
            out[tag] = out.get(tag, 0.0) + float(p)
    total = sum(out.values())
    return {t: p / total for t, p in out.items()} if total > 0 else {}


def _pieces(text: str) -> str:
    third, middle = ENOUGH // 3, len(text) // 2
    if len(text) <= ENOUGH:
        return text
    return f"{text[:third]} {text[middle - third // 2:middle + third // 2]} {text[-third:]}"


def romanised_hindi(text: str) -> bool:
    """Whether a text in Latin letters is Hindi: by its commonest little words."""
    words = [w.strip(".,!?;:\"'()") for w in _pieces(text).casefold().split()]
    hits = [w for w in words if w in HINDI_WORDS]
    return len(set(hits)) >= 3 and len(hits) >= 0.25 * len(words) and not HINDI_ONLY.isdisjoint(hits)


def spoken(text: str, language: str) -> bool | None:
    """Whether a text is in `language`, or one of its family; None where that cannot be said.

    A text mostly in a script that the language is never written in is not. For a language that the model was not taught, and
    whose script others share, the script is all that can be judged: then only a wrong one counts, and English, which every
    model falls back to, where it is beyond doubt.
    """
    text = prose(text)
    counts = script.letters(text)
    total = sum(counts.values())
    if total < LETTERS:
        return None
    if sum(counts.get(s, 0) for s in script.possible(language)) < 0.5 * total:
        return False
    lang = languages.split(languages.check(language))[0]
    found = _identify(text, frozenset())
    if found.tag != UNDETERMINED and family(found.tag) == family(lang):
        return True
    if lang not in told():
        return False if found.tag == "en" and found.confidence > 0.99 else None
    return None if found.tag == UNDETERMINED else False


def fidelity_by_line(text: str, language: str) -> tuple[int, int]:
    """(lines in the language, lines whose language can be told) of the prose of a text."""
    said = [v for line in _lines(text) if (v := spoken(line, language)) is not None]
    return sum(said), len(said)


def _lines(text: str) -> list[str]:
    from polygraft.evals.quality.prose import lines

    return lines(prose(text))
