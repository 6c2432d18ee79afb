"""`prune score`: what masks and mixtures cost every language, from kept Gram matrices; and whether that order is real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from polygraft.anatomy import Anatomy
from polygraft.config import Strict, Unfit
from polygraft.errors import InputError, RecipeError, UserError
from polygraft.maps import Cell as Place
from polygraft.maps import layer_map
from polygraft.model import view
from polygraft.prune import harm
from polygraft.prune.config import MethodName
from polygraft.prune.costs import FLOPS, LIBRARIES, Extent
from polygraft.prune.engine import Method
from polygraft.prune.grams import candidates, checking, store
from polygraft.prune.grams.checking import Scored, correlated, correlations, said
from polygraft.prune.grams.gathering import LOCAL
from polygraft.prune.grams.scoring import Candidate, Matrices, score
from polygraft.prune.grams.store import Grams
from polygraft.prune.harm import Bits, Judge
from polygraft.prune.masks import METHODS, Options, nothing
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.masks.swaps import refined
from polygraft.prune.masks.worst import swapped_for_the_worst
from polygraft.prune.pruning import anatomy_of
from polygraft.prune.sites import Site
from polygraft.result import Cell, LayerMap, Result, Table
from polygraft.sources import Source
from polygraft.step import Context, DataRef, Detail, FolderRef, Language, ModelRef, Plan, Step


class Scoring(Strict):
    """What pruned models, masks, or a method on other mixtures cost every language, from kept Gram matrices: nothing is read."""

    model: ModelRef = Field(description="the dense model that the store was made of", json_schema_extra={"argument": True})
    grams: FolderRef = Field(description="a store: what `polygraft prune gram` made")
    pruned: tuple[FolderRef, ...] = Field((), description="pruned models, steps that made them, or masks.safetensors; repeatable")
    mixture: tuple[str, ...] = Field((), description="make a mask for this text, such as sw=0.5+en=0.5; repeatable",
                                     json_schema_extra={"metavar": "MIXTURE"})
    check: int = Field(0, ge=0, description="also so many masks that differ in text and method: do scores order them as bits per "
                       "byte do? 10 or more say something")  # fmt: skip
    worst: int = Field(0, ge=0, description="look for shares whose worst language loses least, in so many rounds")
    method: MethodName = Field("wanda", description="what makes the masks of `mixture` and `worst`")
    swaps: int = Field(0, ge=0, description="the masks of `mixture` also with so many swaps in every row, for the mixture, and for "
                       "the language that loses most")  # fmt: skip
    sparsity: float | None = Field(None, ge=0, le=1, description="their sparsity (default: 0.5)")
    pattern: str | None = Field(None, description="instead: N:M keeps N of every M", json_schema_extra={"metavar": "N:M"})
    count: dict[Language, float] | None = Field(
        None, description="what each language counts in the weighted sum (default: the same)",
        json_schema_extra={"metavar": "LANG=WEIGHT"})  # fmt: skip
    evaluate: dict[Language, DataRef] = Field(
        default_factory=dict, description="held-out text that is read with every mask: do scores order masks as bits per byte do?",
        json_schema_extra={"metavar": "LANG=PATH"})  # fmt: skip
    documents: int = Field(64, ge=2, description="documents of each language that are evaluated")
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="numbers that the model computes with")
    device: Annotated[str, Detail] = Field("auto", description="cpu, cuda, or auto")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.pruned or self.mixture or self.worst or self.check):
            raise ValueError("nothing to score: name `pruned` models, a `mixture`, masks to `check`, or rounds for the `worst` "
                             "language")  # fmt: skip
        if self.check and not self.evaluate:
            raise ValueError("`check` holds scores against bits per byte: give text that is held out (--evaluate LANG=PATH)")
        if self.swaps and (self.method == "sparsegpt" or not self.mixture):
            raise ValueError("`swaps` refine the masks of a `mixture`, by a method that leaves weights as they are")
        try:
            _ = self.asked, self.mixtures
        except RecipeError as e:
            raise Unfit(e.what, found=e.found, expected=e.expected, fix=e.fix) from None
        if self.count is not None and not (min(self.count.values(), default=0) >= 0 and sum(self.count.values()) > 0):
            raise ValueError("`count` needs a weight above 0, and none below")
        return self

    @property
    def asked(self) -> Pattern:
        return Pattern.of(0.5 if self.sparsity is None and self.pattern is None else self.sparsity, self.pattern)

    @property
    def mixtures(self) -> dict[str, dict[str, float]]:
        return {text: candidates.shares_of(text) for text in self.mixture}

    @property
    def made(self) -> Method:
        """What makes the masks of mixtures."""
        return self.by(self.method)

    def by(self, method: str) -> Method:
        return METHODS[method][0](self.asked, Options())


# -------------------------------------------------------------------------------------------------------------------- step


def plan(config: Scoring, context: Context) -> Plan:
    """From headers, and the store's index where it is there already."""
    source = context.model(config.model)
    anatomy = anatomy_of(source)
    extent = Extent.of(source.weights, anatomy)
    problems = list[UserError](harm.faults(config, context))
    swapped = (len(config.mixture) + 1) * bool(config.swaps)
    masks, size = len(config.pruned) + len(config.mixture) + swapped + config.check + config.worst, 0
    lines = (f"{masks} masks",)
    try:
        grams = opened(config, context, source)
        lines = (f"{masks} masks in {', '.join(grams.languages)}",)
        size = store.nbytes([kept.width for kept in grams.sites.values()], len(grams.languages))
        named(config, grams)
    except UserError as e:
        problems.append(e)
    for ref in config.pruned:
        try:
            candidates.on_disk(context.folder(ref), anatomy)
        except UserError as e:
            problems.append(e)
    largest = max(max(out * w, w * w) for out, w in extent.matrices.values())
    work = masks * sum(out * w * w for out, w in extent.matrices.values())
    read = 2 * sum(extent.sizes.values()) * harm.READ * config.documents * len(config.evaluate) * (masks + 1)
    whole = sum(t.numel * 4 for t in source.weights.tensors.values()) if config.evaluate else 0
    return Plan(lines, LIBRARIES + 40 * largest + whole, 0, masks * size, (work + read) / FLOPS, problems=tuple(problems))


def opened(config: Scoring, context: Context, source: Source) -> Grams:
    """The store. Raises InputError where it is of another model, or lacks a language that is asked for."""
    grams = Grams(context.folder(config.grams))
    if grams.identity != source.identity:
        raise InputError("the store is of another model", where=config.grams, found=str(grams.about.get("spec", ""))[:200],
                         expected=source.spec, fix="gather it again: polygraft prune gram")  # fmt: skip
    for shares in (*config.mixtures.values(), config.count or {}):
        grams.check(shares)
    return grams


def run(config: Scoring, context: Context, _folder: Path, judge: Judge) -> Result:
    source = context.model(config.model)
    anatomy = anatomy_of(source)
    grams, held = opened(config, context, source), harm.texts(config, context)
    live = judge.load(source, config.dtype, config.device) if held else None
    before = harm.bits(judge, live, held)
    search = None
    every = {str(ref): candidates.on_disk(context.folder(ref), anatomy) for ref in config.pruned} | named(config, grams)
    if config.worst:
        search = candidates.for_the_worst(grams, source.weights, anatomy, config.made, config.worst)
        every[f"{config.method} for the worst"] = candidates.mixed(grams, config.made, search.best.shares)
    rows = []
    for i, (name, candidate) in enumerate(every.items()):
        found = score(grams, source.weights, anatomy, candidate if live is None else into(live, candidate))
        rows.append(Scored(name, found, harm.bits(judge, live, held)))
        context.progress(i + 1, len(every), name)
    return told(config, source, anatomy, grams, rows, before, search)


def named(config: Scoring, grams: Grams) -> dict[str, Candidate]:
    """The masks that are made here. Raises RecipeError where fewer differ than are to be checked."""
    found, how = dict[str, Candidate](), f"{config.swaps} swaps"
    for text, shares in config.mixtures.items():
        found[f"{config.method} on {text}"] = candidates.mixed(grams, config.made, shares)
        if config.swaps:
            method = refined(config.made, config.asked, config.swaps, nothing)
            found[f"{config.method} on {text}, {how}"] = candidates.mixed(grams, method, shares)
    if config.swaps:
        method = refined(config.made, config.asked, config.swaps, nothing, swapped_for_the_worst)
        found[f"{config.method}, {how} for the worst"] = candidates.mixed(grams, method, None, each=True)
    for name, text in checking.different(config.method, grams.languages, config.check) if config.check else ():
        label = name if name == checking.UNREAD else f"{name} on {text}"
        found.setdefault(label, candidates.mixed(grams, config.by(name), candidates.shares_of(text)))
    return found


def into(live: Any, candidate: Candidate) -> Candidate:
    """The same, which also puts the matrices into a model in memory."""
    import torch

    def of(site: Site, before: Matrices) -> Mapping[str, np.ndarray]:
        after = candidate(site, before)
        with torch.no_grad():
            for key, w in after.items():
                target = view(live.model, live.anatomy, key)
                assert target is not None
                target.copy_(torch.from_numpy(np.ascontiguousarray(w.T if live.anatomy.traits.transposed else w)))
        return after

    return of


# ---------------------------------------------------------------------------------------------------------------- in words


def told(config: Scoring, source: Source, anatomy: Anatomy, grams: Grams, rows: list[Scored], before: Bits,
         search: candidates.Search | None) -> Result:  # fmt: skip
    kind = min(rows, key=lambda r: r.score.worst[1])
    even = min(rows, key=lambda r: r.score.weighted(config.count))
    loser, lost = kind.score.worst
    summary = [f"{kind.name} is best for the worst language: {loser} loses {lost:.2%} of its matrices' output, on average. "
               f"{even.name} is best by the weighted sum, {even.score.weighted(config.count):.2%}."]  # fmt: skip
    tables = [losses(config, rows)]
    if search:
        shares = ", ".join(f"{g} {s:.3f}" for g, s in search.best.shares.items())
        summary.append(f"The shares whose worst language loses least, of {len(search.rounds)} tried: {shares}.")
        tables.append(searched(search))
    related = correlations(rows, before)
    if before:
        tables += [costs(rows, before), correlated(related, len(rows))]
        summary.append(said(related, len(rows)))
    data = {"languages": list(grams.languages), "masks": {r.name: _data(r, config) for r in rows},
            "rank correlation": {g: r for g, (r, _) in related.items()},
            "rank correlation of column norms": {g: r for g, (_, r) in related.items()},
            "shares": search.best.shares if search else None}  # fmt: skip
    return Result("prune.score", "", f"Masks of {config.model}, scored in {len(grams.languages)} languages", tuple(summary),
                  (drawn(kind, anatomy),), tuple(tables), inputs=(source.ref("model"),), caveats=(LOCAL,), data=data)  # fmt: skip


def _data(row: Scored, config: Scoring) -> dict[str, Any]:
    score = row.score
    errors, norms = (dict(zip(score.languages, map(float, v), strict=True)) for v in (score.by_language, score.by_norms))
    return {"error": errors, "error by column norms": norms, "weighted": score.weighted(config.count), "worst": score.worst[1],
            "bits per byte": {g: harm.value(read) for g, read in row.bits.items()}}  # fmt: skip


def losses(config: Scoring, rows: list[Scored]) -> Table:
    columns = ("mask", *rows[0].score.languages, "weighted sum", "worst", "which is")

    def row(r: Scored) -> tuple[Cell, ...]:
        loser, lost = r.score.worst
        return (r.name, *_rounded(r.score.by_language), round(r.score.weighted(config.count), 5), round(lost, 5), loser)

    return Table("What each language loses", columns, tuple(map(row, sorted(rows, key=lambda r: r.score.worst[1]))),
                 "relative error of the matrices' outputs, |Wx - W'x|^2 / |Wx|^2, mean over matrices; less is better")  # fmt: skip


def searched(search: candidates.Search) -> Table:
    languages = search.best.score.languages
    columns = ("round", *(f"share of {g}" for g in languages), *(f"{g} loses" for g in languages), "")

    def row(i: int, r: candidates.Round) -> tuple[Cell, ...]:
        shares = _rounded(r.shares[g] for g in languages)
        return (i + 1, *shares, *_rounded(r.score.by_language), "best" if r is search.best else "")

    return Table("Shares for the worst language", columns, tuple(row(i, r) for i, r in enumerate(search.rounds)))


def costs(rows: list[Scored], before: Bits) -> Table:
    def row(name: str, bits: Bits) -> tuple[Cell, ...]:
        return (name, *_rounded([harm.value(bits[g]) for g in before]))

    return Table("Bits per byte of held-out text", ("mask", *before), (row("dense", before), *(row(r.name, r.bits) for r in rows)),
                 "the model reads it with each mask in place")  # fmt: skip


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(v), 5) for v in values)


def drawn(row: Scored, anatomy: Anatomy) -> LayerMap:
    """Of the mask that is best for the worst language: what that language loses, matrix by matrix."""
    i = row.score.languages.index(row.score.worst[0])
    found: dict[Place, list[float]] = {}
    for key, errors in row.score.errors.items():
        if np.isfinite(errors[i]):
            found.setdefault((anatomy.parts[key].label, anatomy.parts[key].layer), []).append(float(errors[i]))
    cells: dict[Place, float | None] = {cell: float(np.mean(some)) for cell, some in found.items()}
    return layer_map(anatomy, cells, f"What {row.score.worst[0]} loses by {row.name}", unit="relative error", low=0.0)


def score_step(judge: Judge) -> Step:
    return Step("prune.score", 1, Scoring, plan, partial(run, judge=judge))
