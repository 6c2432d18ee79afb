"""What is there: all that decides which methods apply and how large their steps are. From headers, tokenizers and files alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.config import filled
from polygraft.errors import UserError
from polygraft.files import digest, read_json, write_json
from polygraft.poc.config import Poc
from polygraft.poc.texts import Texts
from polygraft.sources import Source
from polygraft.step import Context

SAMPLE = 400_000  # characters that an extension of the vocabulary is tried on
SIZES = (500, 1000, 2000, 4000, 8000)  # tokens that are tried
WANTED = 1.3  # characters a token, new over old: `vocab assess`'s own bar (LEP's extension gained as much, arXiv 2412.21140)


@dataclass(frozen=True)
class Vocabulary:
    """What an extension would gain: `gain` in characters a token with `added` tokens more; `why` it cannot be, if so."""

    gain: float = 1.0
    added: int = 0
    why: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything a method's rule may look at. `given`: names of models, and of text, pairs and data, that there are; `adapters`:
    those of the models that are adapters of the base."""

    language: str
    name: str
    today: str
    given: frozenset[str]
    asked: frozenset[str]
    longest: int
    parameters: int
    vocabulary: Vocabulary
    adapters: frozenset[str] = frozenset()


def facts(config: Poc, texts: Texts, inputs: Path, sources: Mapping[str, Source]) -> Facts:
    """Look at everything that is given. Raises UserError for a base that is not understood."""
    from polygraft import languages

    base = sources["base"]
    anatomy = Anatomy.of(base.weights.config, base.weights.tensors, where=config.models["base"])
    given = {*config.models, *(n for n in ("text", "pairs", "data") if getattr(config, n) is not None)}
    wanted = "lep" in config.methods and {"instruct", "text"} <= given
    return Facts(config.lang, languages.name(config.lang), config.today, frozenset(given), frozenset(config.methods),
                 anatomy.context or 2048, sum(t.numel for t in base.weights.tensors.values()),
                 assessed(base, config.lang, inputs / texts.learn) if wanted else Vocabulary(),
                 frozenset(name for name, source in sources.items() if source.adapter is not None))


def assessed(base: Source, language: str, text: Path) -> Vocabulary:
    """`vocab assess` on a part of the text, kept beside it."""
    kept = text.parent / f"vocabulary-{digest([base.identity, text.name, SAMPLE, SIZES])[:12]}.json"
    if not kept.is_file():
        write_json(kept, _assess(base, language, text))
    return Vocabulary(**read_json(kept))


def _assess(base: Source, language: str, text: Path) -> dict[str, Any]:
    from polygraft.vocab.assess import steps

    config = filled(steps.Assess, {"model": "base", "corpus": {language: str(text)}, "sample": SAMPLE, "sizes": SIZES,
                                   "gain": WANTED})
    with TemporaryDirectory(prefix="polygraft-") as scratch:
        try:
            found = steps.run(config, Context(lambda _: base, Path), Path(scratch)).data
        except UserError as e:
            return {"why": e.what}
    chosen, route = found["chosen"], found["route"]
    if route == "replace" and chosen["gain"] >= WANTED:
        return {"gain": chosen["gain"], "why": str(found["why"])}
    return {"gain": chosen["gain"], "added": chosen["added"]}
