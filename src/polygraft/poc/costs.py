"""What methods cost to make and to serve: time, bytes and, where the user gives prices, money. No energy: none was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from polygraft.anatomy import Anatomy
from polygraft.config import parse
from polygraft.data import open_corpus
from polygraft.errors import UserError
from polygraft.poc.config import Prices
from polygraft.poc.decision import Serving, Spent
from polygraft.prune.forecast import parts_of
from polygraft.sources import Source
from polygraft.vocab.tokenizer.folder import read_tokenizer
from polygraft.yamltext import read_document

HOUR, MILLION = 3600.0, 1e6
COUNTED = 200  # documents of held-out text that tokens are counted on


def read_prices(path: Path) -> Prices:
    """The user's price file. Raises RecipeError with its line."""
    return parse(Prices, read_document(path, "price file"))


def priced(spent: Spent, prices: Prices | None) -> Spent:
    """With the price of the machine's time."""
    if prices is None or prices.machine_hour is None:
        return spent
    return replace(spent, money=spent.seconds / HOUR * prices.machine_hour)


def serving_price(serving: Serving, today: Serving, prices: Prices | None) -> Serving:
    """With the price of a million characters of the target language.

    A million characters are so many tokens, and a token's price goes by the bytes that are read for it, relative to today's model:
    the bound for few sequences at once (`prune plan`). Without both the price is not known.
    """
    per = serving.tokens_per_character
    if prices is None or prices.million_tokens is None or per is None or not today.bytes_per_token:
        return serving
    return replace(serving, money=prices.million_tokens * per * serving.bytes_per_token / today.bytes_per_token)


def serving(source: Source, held: Path | None, language: str) -> Serving:
    """From headers, and the tokenizer on held-out text. Raises UserError for a model that is not understood."""
    weights = source.weights
    parts = parts_of(weights, Anatomy.of(weights.config, weights.tensors, where=source.spec))
    documents = islice(open_corpus(language, held).documents(), COUNTED) if held else ()
    return Serving(round(parts.total * parts.stored), round(parts.passed * parts.stored), density(source, documents))


def density(source: Source, documents: Iterable[str]) -> float | None:
    """Tokens a character, None without text or a tokenizer.json."""
    texts = list(documents)
    try:
        tokenizer = read_tokenizer(source.weights.extras).vocabulary.tokenizer if texts else None
    except UserError:
        tokenizer = None
    if tokenizer is None:
        return None
    ids = sum(len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return float(ids / sum(map(len, texts)))
