"""The licence of every source, as its own card says it, and what each method's mix of them obliges to.

No legal advice: what is told is read from `license:` in the front matter of a README.md or from what the user says (--licence),
and what is known of the usual licences. Unknown words stay unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from polygraft.errors import UserError
from polygraft.poc.config import Poc
from polygraft.poc.decision import Licence, Reason
from polygraft.poc.facts import Facts
from polygraft.poc.methods import trained_experts
from polygraft.sources import Source
from polygraft.yamltext import parse_document

NOTICE, ATTRIBUTION, SHARE_ALIKE, NON_COMMERCIAL, TERMS, UNKNOWN = (
    "oblige-notice", "oblige-attribution", "oblige-share-alike", "oblige-non-commercial", "oblige-terms", "oblige-unknown")
LARGEST = 1 << 20  # bytes of a README that are read
SAMPLER = Licence("other", "sampler", "cc0-1.0", "comes with polygraft")
DEMO = "apache-2.0"  # SmolLM2's, which the wheel does not carry

# what a licence obliges to, by the beginning of its identifier (SPDX, or the hub's word); the first that fits counts
KNOWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cc0", ()), ("pddl", ()), ("unlicense", ()), ("public-domain", ()), ("0bsd", ()),
    ("cc-by-nc-sa", (ATTRIBUTION, NON_COMMERCIAL, SHARE_ALIKE)), ("cc-by-nc", (ATTRIBUTION, NON_COMMERCIAL)),
    ("cc-by-sa", (ATTRIBUTION, SHARE_ALIKE)), ("cc-by", (ATTRIBUTION,)), ("odc-by", (ATTRIBUTION,)),
    ("odbl", (ATTRIBUTION, SHARE_ALIKE)), ("gpl", (NOTICE, SHARE_ALIKE)), ("agpl", (NOTICE, SHARE_ALIKE)),
    ("lgpl", (NOTICE, SHARE_ALIKE)), ("apache", (NOTICE,)), ("mit", (NOTICE,)), ("bsd", (NOTICE,)), ("isc", (NOTICE,)),
    ("llama", (NOTICE, TERMS)), ("gemma", (NOTICE, TERMS)), ("openrail", (TERMS,)), ("bigscience", (TERMS,)),
    ("creativeml", (TERMS,)), ("qwen", (NOTICE, TERMS)), ("tongyi", (NOTICE, TERMS)), ("falcon", (NOTICE, TERMS)),
)  # fmt: skip


def made_of(method: str, facts: Facts) -> tuple[str, ...]:
    """What goes into what a method makes. What only chose layers or neurons goes into no model."""
    if method == "swap":
        task, language = trained_experts(facts)
        start = "data" if task else "task_expert" if "task_expert" in facts.given else "instruct"
        return ("base", start, "text" if language else "language_expert")
    own = {"slam": ("pairs",), "neurons": ("text",), "lep": ("base", "instruct", "text"), "prune": ("text",), "steer": ("text",)}
    return (facts.today, *own[method])


def front_matter(readme: str) -> str:
    """`license:` (with `license_name:` where that is `other`) of a model card, "" where it says none."""
    found = re.match(r"\s*---\s*\n(.*?)\n---", readme, re.DOTALL)
    try:
        tree = parse_document(found[1], "README.md", "model card").tree if found else None
    except UserError:
        return ""
    if not isinstance(tree, dict):
        return ""
    word = tree.get("license") or tree.get("licence")
    words = [str(w) for w in (word if isinstance(word, list) else [word]) if isinstance(w, str) and w.strip()]
    name = tree.get("license_name")
    return str(name).strip() if words == ["other"] and isinstance(name, str) and name.strip() else ", ".join(words).strip()


def of_source(name: str, source: Source, said: str = "") -> Licence:
    """What a model's own card says, or what the user said."""
    if said:
        return Licence(name, source.spec, said, "--licence")
    if source.kind == "demo":
        return Licence(name, source.spec, DEMO, "the model's makers")
    card = source.path / "README.md"
    try:
        text = card.read_bytes()[:LARGEST].decode("utf-8", "replace") if card.is_file() else ""
    except OSError:
        text = ""
    return Licence(name, source.spec, front_matter(text), "README.md" if text else "")


def licences(config: Poc, sources: Mapping[str, Source], sampled: bool) -> tuple[Licence, ...]:
    """Of every model, text and set of pairs that is given, and of the sampler where it is used."""
    out = [of_source(name, source, config.licence.get(name, "")) for name, source in sources.items()]
    for name in ("text", "pairs", "data"):
        if (path := getattr(config, name)) is not None:
            said = config.licence.get(name, "")
            out.append(Licence(name, Path(path).name, said, "--licence" if said else ""))
    return (*out, *([SAMPLER] if sampled else []))


def kinds(licence: str) -> tuple[str, ...]:
    """What a licence obliges to; of several words (dual licensing is not guessed) all of them."""
    words = [w.strip().lower().replace("_", "-").replace(" ", "-") for w in licence.split(",") if w.strip()]
    if not words:
        return (UNKNOWN,)
    found = [next((what for start, what in KNOWN if w.startswith(start)), (TERMS,)) for w in words]
    return tuple(dict.fromkeys(k for some in found for k in some))


def obligations(method: str, facts: Facts, given: Sequence[Licence]) -> tuple[Reason, ...]:
    """What the mix that a method's model is made of obliges to, each with the sources that ask for it."""
    asked: dict[str, list[str]] = {}
    for source in given:
        if source.source in made_of(method, facts):
            for kind in kinds(source.licence):
                asked.setdefault(kind, []).append(source.source)
    order = (UNKNOWN, NON_COMMERCIAL, SHARE_ALIKE, TERMS, ATTRIBUTION, NOTICE)
    return tuple(Reason(kind, {"sources": ", ".join(asked[kind])}) for kind in order if kind in asked)
