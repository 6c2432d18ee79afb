"""The three models of a propagation, opened and compared: base, its instruct model, and the donor that learned a new vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.anatomy_rules import PREFIX
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.floats import refuse_not_float
from polygraft.sources import Source
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tables import SIDES, Side, Table, check_fits, stored, tables
from polygraft.vocab.tokenizer.folder import TokenizerFolder, read_tokenizer

FROM = "use the base that both were trained from, the instruct model of that base, and the base with the new vocabulary"


@dataclass(frozen=True)
class Member:
    """One of the three: `name` is its role (base, instruct, donor)."""

    name: str
    source: Source
    weights: Weights
    anatomy: Anatomy
    folder: TokenizerFolder

    @classmethod
    def of(cls, name: str, source: Source, extra: Sequence[Mapping[str, Any]] = ()) -> Member:
        weights = source.weights
        anatomy = Anatomy.of(weights.config, weights.tensors, extra=extra, where=f"{name} {source.spec}")
        return cls(name, source, weights, anatomy, read_tokenizer(weights.extras))

    @property
    def vocabulary(self) -> Vocabulary:
        """With the added tokens that only tokenizer_config.json names."""
        return self.folder.whole

    @cached_property
    def tables(self) -> dict[Side, Table]:
        return tables(self.weights, self.anatomy)

    @cached_property
    def stored(self) -> dict[str, tuple[Side, int]]:
        """Every tensor with a row a token."""
        return stored(self.weights, self.anatomy)

    @cached_property
    def body(self) -> dict[str, str]:
        """Every other parameter: its name without the wrapper's prefix -> key."""
        return {PREFIX.sub("", key, count=1): key for key, part in self.anatomy.parts.items()
                if key not in self.stored and part.kind != "outside" and part.role not in ("rotary", "mask")}

    @cached_property
    def bias(self) -> str | None:
        """The head's bias, where it has one."""
        return next((key for key, (_, dimensions) in self.stored.items() if dimensions == 1), None)


@dataclass(frozen=True)
class Trio:
    """Three models that fit: one architecture, width and way of tying; base and instruct model read the same old vocabulary."""

    base: Member
    instruct: Member
    donor: Member

    @classmethod
    def of(cls, base: Member, instruct: Member, donor: Member) -> Trio:
        """Raises InputError, with both values, for models that do not fit."""
        made = cls(base, instruct, donor)
        for other in (instruct, donor):
            _alike(base, other)
        for member in made.members:
            check_fits(member.vocabulary, member.tables, f"{member.name} {member.source.spec}")
            for table in member.tables.values():
                refuse_not_float(table.dtype, f"{member.name} {table.key}")
        _same_meaning(base, instruct)
        return made

    @property
    def members(self) -> tuple[Member, Member, Member]:
        return self.base, self.instruct, self.donor

    @cached_property
    def shared(self) -> np.ndarray:
        """Old ids that are the same token in base and instruct model, int64."""
        mine, theirs = self.base.vocabulary.names, self.instruct.vocabulary.names
        return np.array(sorted(i for i, token in mine.items() if theirs.get(i) == token), np.int64)


def _alike(base: Member, other: Member) -> None:
    """Raise InputError unless architecture, width, tying and every tensor's shape outside the tables are the same."""
    mine, theirs = base.anatomy, other.anatomy
    pairs = [("model_type", mine.config.get("model_type"), theirs.config.get("model_type")),
             ("layers", mine.layers, theirs.layers), ("tied embeddings", mine.tied, theirs.tied)]
    pairs += [(f"width of the {SIDES[side]}", table.shape[1], other.tables[side].shape[1])
              for side, table in base.tables.items() if side in other.tables]
    pairs += [("bias of the head", base.bias is not None, other.bias is not None)]
    for what, one, two in pairs:
        if one != two:
            raise _differ(base, other, what, one, two)
    for name in sorted(base.body.keys() | other.body.keys()):
        one = _shape(base, name)
        if one != (two := _shape(other, name)):
            raise _differ(base, other, name, one, two)


def _shape(member: Member, name: str) -> str:
    return f"shape {list(member.weights.tensors[member.body[name]].shape)}" if name in member.body else "no such tensor"


def _differ(base: Member, other: Member, what: str, one: object, two: object) -> InputError:
    who = "the donor was not built on" if other.name == "donor" else "the instruct model was not trained from"
    return InputError(f"{who} the base: they differ", where=what,
                      found=f"base ({base.source.spec}): {one}; {other.name} ({other.source.spec}): {two}",
                      expected="the same in both", fix=FROM)


def _same_meaning(base: Member, instruct: Member) -> None:
    """Raise InputError where an id that stands for text stands for other text in the instruct model."""
    for i, (one, two) in enumerate(zip(base.vocabulary.contents, instruct.vocabulary.contents)):
        if one is not None and two is not None and one != two:
            names = f"base: {base.vocabulary.names[i]!r}; instruct: {instruct.vocabulary.names[i]!r}"
            raise InputError("base and instruct model have other vocabularies", where=f"token {i}", found=names,
                             expected="the same token in both", fix=FROM)
