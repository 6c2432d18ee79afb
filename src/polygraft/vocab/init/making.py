"""A model folder with a new vocabulary: new tables, ids by meaning, the tokenizer, a log of what every new row is made of."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.files import parse_json
from polygraft.tokenfile import FILE, Vocabulary
from polygraft.vocab import control, tables
from polygraft.vocab.init import filling
from polygraft.vocab.init.methods import Material, Method, Rule, rule
from polygraft.vocab.init.mixture import described
from polygraft.vocab.pieces import decompose
from polygraft.vocab.tables import Side, Table
from polygraft.vocab.tokenizer.folder import TokenizerFolder, model_files, read_tokenizer
from polygraft.vocab.writing import Rows, write_model

GENERATION = "generation_config.json"
LINES = 4096  # tokens of one member of the compressed log
MOST = 50  # suspicious tokens that are named


@dataclass(frozen=True)
class Job:
    """A model, its new tokenizer and how many rows its tables will have, checked."""

    weights: Weights
    anatomy: Anatomy
    old: Vocabulary
    tokenizer: TokenizerFolder
    rows: int
    where: str

    @property
    def new(self) -> Vocabulary:
        return self.tokenizer.whole

    @property
    def tables(self) -> dict[Side, Table]:
        return tables.tables(self.weights, self.anatomy)


def job(weights: Weights, tokenizer: TokenizerFolder, multiple: int, where: str) -> Job:
    """Raises InputError for a model whose tokenizer does not fit it, and for ids of its config that the new tokenizer lacks."""
    anatomy = Anatomy.of(weights.config, weights.tensors, where=where)
    if FILE not in weights.extras:
        Vocabulary.open(None, where)  # says so
    old, found = read_tokenizer(weights.extras).whole, tables.tables(weights, anatomy)
    tables.check_fits(old, found, where)
    now = found["in"].shape[0]
    made = Job(weights, anatomy, old, tokenizer, filling.rows_for(old, tokenizer.whole, now, multiple), where)
    config(made)
    return made


def config(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """config.json, and generation_config.json where there is one, with ids by meaning and the new number of rows."""
    remap = partial(control.remap, old=job.old, new=job.new, rows=job.rows)
    more = {}
    if (path := job.weights.extras.get(GENERATION)) is not None:
        found = remap(parse_json(path.read_bytes(), path), where=f"{job.where}: {GENERATION}")
        more[GENERATION] = (files.json.dumps(found, indent=2) + "\n").encode()
    return remap(job.weights.config, where=f"{job.where}: config.json"), more


def material(job: Job, **more: Any) -> Material:
    """What the methods work with; `more` are its other fields."""
    return Material(decompose(job.old, job.new), job.old, job.new, tied="out" not in job.tables, **more)


@dataclass(frozen=True)
class Made:
    """What was written: rules by side, digests of the tensors, and the norms of copied and made rows by side (median)."""

    rules: Mapping[Side, Rule]
    digests: Mapping[str, str]

    def facts(self, job: Job, material: Material) -> dict[str, Any]:
        """The content of init.json but the method and its options."""
        names = material.new.names
        suspicious = sorted({int(t) for r in self.rules.values() for t in r.suspicious})
        return {
            "tied": "out" not in self.rules, "rows": job.rows, "rows before": job.tables["in"].shape[0],
            "tokens": len(names), "tokens before": len(job.old.names), "origins": material.pieces.tally(),
            "mean of old rows": len(material.bare), "pieces of a composed token, mean": _mean(material),
            "sides": {side: dict(r.facts) for side, r in self.rules.items()},
            "suspicious": len(suspicious), "suspicious tokens": [names[t] for t in suspicious[:MOST]],
        }  # fmt: skip


def _mean(material: Material) -> float | None:
    counts = material.pieces.counts[material.composed]
    return round(float(counts.mean()), 3) if len(counts) else None


def write(job: Job, method: Method, material: Material, out: Path) -> Made:
    """Write the model folder `out`: all but embedding and head byte for byte."""
    found = {side: rule(method, material, table, side) for side, table in job.tables.items()}
    made: dict[str, Rows] = {}
    for key, (side, dimensions) in tables.stored(job.weights, job.anatomy).items():
        if dimensions == 1:
            made[key] = partial(_bias, job, material, key)
        elif job.weights.tensors[key].shape[0] == job.tables["in"].shape[0]:
            made[key] = partial(filling.filled, found[side], material, Table(job.weights, key), job.rows)
    settings, more = config(job)
    extras = dict(model_files(job.weights.extras, _folder(job.tokenizer))) | more
    digests = write_model(job.weights, out, job.rows, made, settings, extras)
    return Made(found, digests)


def _folder(tokenizer: TokenizerFolder) -> Path:
    return tokenizer.files[FILE].parent


def _bias(job: Job, material: Material, key: str) -> Iterator[np.ndarray]:
    yield filling.bias(material, job.weights.f32(key), job.rows)


def write_log(made: Made, material: Material, path: Path) -> None:
    """decompositions.jsonl.gz: for every token that was made its id, token, text and the old tokens with their weights by side."""
    tokens = np.union1d(material.composed, material.bare)

    def lines() -> Iterator[bytes]:
        yield gzip.compress(b"", mtime=0)
        for start in range(0, len(tokens), LINES):
            some = [_line(made, material, int(t)) for t in tokens[start : start + LINES]]
            text = "".join(files.json.dumps(line, ensure_ascii=False) + "\n" for line in some)
            yield gzip.compress(text.encode("utf-8", "replace"), mtime=0)

    files.write_atomic(path, lines())


def _line(made: Made, material: Material, token: int) -> dict[str, Any]:
    content = material.new.contents[token]
    names, rules = material.old.names, made.rules.items()
    sides: dict[str, Any] = {side: described(r.mixture, token, names) for side, r in rules if r.mixture is not None}
    return {"id": token, "token": material.new.names[token],
            "text": None if content is None else content.decode("utf-8", "replace"), **sides}
