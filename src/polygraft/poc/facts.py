"""What is there: all that decides which methods apply and how large their steps are. From headers, tokenizers and files alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.config import filled
from polygraft.data import open_corpus
from polygraft.errors import UserError
from polygraft.files import digest, read_json, write_json
from polygraft.poc.config import Poc
from polygraft.poc.texts import ENGLISH, Texts
from polygraft.prune.calibration import BYTES_A_TOKEN
from polygraft.sources import Source
from polygraft.step import Context
from polygraft.vocab.tokenizer.folder import read_tokenizer

WINDOW, WINDOWS = 128, 32  # tokens of a window that pruning is calibrated on (the sampler's English makes one), and windows at most
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
    those of the models that are adapters of the base; `windows`: how many windows of `WINDOW` tokens there are to calibrate
    pruning on, by language (at most `WINDOWS`; a language that is not there was not counted)."""

    language: str
    name: str
    today: str
    given: frozenset[str]
    asked: frozenset[str]
    longest: int
    parameters: int
    vocabulary: Vocabulary
    adapters: frozenset[str] = frozenset()
    windows: Mapping[str, int] = field(default_factory=dict)


def facts(config: Poc, texts: Texts, inputs: Path, sources: Mapping[str, Source]) -> Facts:
    """Look at everything that is given. Raises UserError for a base that is not understood."""
    from polygraft import languages

    base = sources["base"]
    anatomy = Anatomy.of(base.weights.config, base.weights.tensors, where=config.models["base"])
    given = {*config.models, *(n for n in ("text", "pairs", "data") if getattr(config, n) is not None)}
    wanted = "lep" in config.methods and {"instruct", "text"} <= given
    longest = anatomy.context or 2048
    read = {config.lang: texts.learn, ENGLISH: texts.others[ENGLISH][0]} if "prune" in config.methods and texts.learn else {}
    return Facts(config.lang, languages.name(config.lang), config.today, frozenset(given), frozenset(config.methods),
                 longest, sum(t.numel for t in base.weights.tensors.values()),
                 assessed(base, config.lang, inputs / texts.learn) if wanted else Vocabulary(),
                 frozenset(name for name, source in sources.items() if source.adapter is not None),
                 {g: windows(sources[config.today], g, inputs / name, min(WINDOW, longest)) for g, name in read.items()})


def windows(source: Source, language: str, text: Path, length: int) -> int:
    """How many windows of `length` tokens a text makes, at most `WINDOWS`; where no tokenizer.json can count, by its bytes."""
    try:
        tokenizer = read_tokenizer(source.weights.extras).vocabulary.tokenizer
    except UserError:
        return min(WINDOWS, text.stat().st_size // (BYTES_A_TOKEN * length))
    tokens = 0
    for document in open_corpus(language, text).documents():
        tokens += len(tokenizer.encode(document, add_special_tokens=False).ids)
        if tokens >= WINDOWS * length:
            break
    return min(WINDOWS, tokens // length)


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
