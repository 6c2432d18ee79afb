"""`prune study`: one command from a model and texts to matrices of calibration against evaluation, cell by cell."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import __version__, arrays, files
from polygraft.blocks import whole_bytes
from polygraft.data import open_corpus
from polygraft.errors import InputError, UserError
from polygraft.prune import costs
from polygraft.prune.calibration import Spoken, planned
from polygraft.prune.costs import FLOPS, Extent
from polygraft.prune.pruning import anatomy_of
from polygraft.prune.study import cell as cells_
from polygraft.prune.study import inputs, states
from polygraft.prune.study.around import Around
from polygraft.prune.study.cell import CELLS, WORK, Bed
from polygraft.prune.study.config import Study, asked, cells, masking, settings
from polygraft.prune.study.found import Found
from polygraft.prune.study.told import told
from polygraft.result import Result
from polygraft.step import Context, Detail, Plan, Step
from polygraft.windows import budgeted, check_window, tokenized

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.windows import Batch

UNDERSTANDING, KNOWLEDGE = "understanding", "knowledge"
LONGEST = 4000  # characters of a document that are read


# -------------------------------------------------------------------------------------------------------------------- plan


def plan(config: Study, context: Context, around: Around) -> Plan:
    """How many prunings, what they take, and why it would fail."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    extent, todo = Extent.of(weights, anatomy), cells(config)
    first = masking(config, todo[0])
    problems = list[UserError]()
    for one in {c.pattern: c for c in todo}.values():
        problems += _faults(lambda one=one: costs.unfit(masking(config, one), extent.matrices))  # type: ignore[misc]
    problems += _faults(lambda: check_window(anatomy, config.seq_len)) + list(_texts(config, context))
    each = {(*c.group[:3], c.setting): c for c in todo}.values()
    problems += {str(p): p for c in each for p in planned(masking(config, c), context, anatomy).problems}.values()
    read, written, wrong = 0.0, 0, list[UserError]()
    for wanted in _purposes(config).values():
        r, w, faults = around.planned(_evaluation(config, wanted), context)
        read, written, wrong = read + r, written + w, [*wrong, *faults]
    size, states_ = sum(t.numel for t in weights.tensors.values()), 2 * config.diagnose * len(config.languages)
    passes = config.tokens * len(config.languages) + states_ + read + written
    seconds = sum(costs.seconds(masking(config, c), extent) for c in todo) + (len(todo) + 1) * passes * size / FLOPS
    names = settings(config)
    lines = (f"{len(todo):,} prunings: {len(names)} calibrations ({', '.join(names)}), {len(config.methods)} method(s), "
             f"{len(config.sparsity) + len(config.patterns)} sparsity(s), {config.seeds} seed(s), compared with {config.against}",
             f"after each, {config.tokens:,} tokens of {len(config.languages)} languages are read")  # fmt: skip
    disk = (costs.disk(first, weights, anatomy, extent) + sum(extent.sizes.values()) // 8 * len(todo)
            + states_ // 2 * anatomy.layers * anatomy.sizes.hidden * 4)  # fmt: skip
    return Plan(lines, costs.peak(first, weights, anatomy, extent) + whole_bytes(weights, config.dtype), disk,
                sum(t.nbytes for t in weights.tensors.values()) * (len(todo) + 1), seconds, problems=(*problems, *wrong),
                notes=_notes(config), like=source)  # fmt: skip


def _faults(check: Any) -> list[UserError]:
    try:
        check()
    except UserError as e:
        return [e]
    return []


def _notes(config: Study) -> tuple[str, ...]:
    notes = []
    if config.seeds < 2:
        notes.append("with one seed there is no floor, so no difference between calibrations is called one: --seeds 3")
    if config.diagnose and not config.parallel and len(config.languages) > 1:
        notes.append("the texts read are not said to be parallel: their topics can pass for languages in subspaces and neurons")
    return tuple(notes)


def _purposes(config: Study) -> dict[str, tuple[str, ...]]:
    named = {UNDERSTANDING: config.understanding, KNOWLEDGE: config.knowledge}
    return {purpose: tasks for purpose, tasks in named.items() if tasks}


def _evaluation(config: Study, tasks: tuple[str, ...]) -> Mapping[str, Any]:
    same = {name: getattr(config, name) for name in ("data", "limit", "shots", "seed")}
    return {**same, "tasks": tasks, "langs": config.languages}


def _texts(config: Study, context: Context) -> list[UserError]:
    """What is wrong with the texts that are read after each pruning, as far as names and first lines show it."""
    problems = list[UserError]()
    for g in config.languages:
        try:
            corpus = open_corpus(g, context.data(config.evaluate[g]), config.field)
            next(corpus.documents())
            if corpus.path.resolve() == context.data(config.corpus[g]).resolve():
                problems.append(InputError("the text that is read is the calibration text itself", where=corpus.path,
                                           expected="text that the model is not pruned by", fix=f"another --evaluate {g}=PATH"))
        except UserError as e:
            problems.append(e)
    return problems


# --------------------------------------------------------------------------------------------------------------------- run


def run(config: Study, context: Context, folder: Path, around: Around, spoken: Spoken | None = None) -> Result:
    """Every cell leaves a file in `cells/`, and one that lies there is not measured again."""
    for problem in _texts(config, context):
        raise problem
    bed = prepared(config, context, folder, around, spoken)
    columns = cells_.dense(bed)
    todo = cells(config)
    for i, one in enumerate(todo):
        context.progress(i, len(todo), one.told)
        cells_.measured(bed, one)
    context.progress(len(todo), len(todo), "comparing")
    reads = {one: arrays.Arrays(bed.path(one)) for one in todo}
    found = Found(config, bed.anatomy, bed.extent, reads, arrays.Arrays(bed.path(None)), columns)
    result = told(found, bed, _notes(config))
    shutil.rmtree(folder / WORK)
    return result


def prepared(config: Study, context: Context, folder: Path, around: Around, spoken: Spoken | None) -> Bed:
    """The dense model in memory, read in every language."""
    from polygraft.model import device_for, dtype_for

    source = context.model(config.model)
    anatomy = anatomy_of(source)
    extent = Extent.of(source.weights, anatomy)
    for pattern in {asked(c) for c in cells(config)}:
        for key, (_, width) in extent.matrices.items():
            pattern.check(key, width)
    check_window(anatomy, config.seq_len)
    base = _base(config, context, source.identity)
    work = taken(folder, base)
    live = around.judge.load(source, config.dtype, config.device)
    if live.tokenizer is None:
        raise InputError("the model has no tokenizer, so it cannot read text", where=source.spec,
                         fix="put its tokenizer.json there")
    documents = {g: _documents(config, context, g, live.tokenizer) for g in config.languages}
    device = device_for(config.device)
    dense = _dense(config, context, live, around, work)
    bed = Bed(config, context, source, anatomy, extent, live, around, documents, folder, base, dense, spoken=spoken)
    bed.evaluations = {p: around.make(_evaluation(config, t), context, source) for p, t in _purposes(config).items()}
    if dense is not None:
        _inputs(bed, dense.texts, dtype_for(device, config.dtype)[0], device)
    return bed


def _base(config: Study, context: Context, identity: str) -> str:
    """Digest of all that decides a cell beside the cell."""
    said = {k: v for k, v in config.model_dump(mode="json").items()
            if not any(m is Detail for m in type(config).model_fields[k].metadata)}  # fmt: skip
    texts = [files.data_identity(context.data(ref)) for ref in (*config.corpus.values(), *config.evaluate.values())]
    return files.digest([said, identity, texts, __version__])


def taken(folder: Path, base: str) -> Path:
    """The folder of what is not kept; it and finished cells are emptied unless the same study left them."""
    work, mark = folder / WORK, folder / WORK / "study.json"
    if not (mark.is_file() and files.read_json(mark) == base):
        for left in (work, folder / CELLS):
            shutil.rmtree(left, ignore_errors=True)
            left.mkdir()
        files.write_json(mark, base)
    return work


def _documents(config: Study, context: Context, language: str, tokenizer: Any) -> list[str]:
    """The first documents, up to `tokens` tokens and at least two. Raises InputError where there are fewer."""
    corpus = open_corpus(language, context.data(config.evaluate[language]), config.field)
    stream = tokenized(corpus, tokenizer, most=config.tokens)
    n = max(2, int(np.searchsorted(stream.starts, config.tokens, side="right")) - 1)
    texts = [text[:LONGEST] for text in islice(corpus.documents(), n)]
    if len(texts) < 2:
        raise InputError("too few documents for an interval", where=corpus.path, found=len(texts), expected="at least 2")
    return texts


def _dense(config: Study, context: Context, live: Live, around: Around, work: Path) -> states.Dense | None:
    """What the dense model does on both parts of the texts; None where states are not compared."""
    if not config.diagnose:
        return None
    streams = {g: tokenized(open_corpus(g, context.data(config.evaluate[g]), config.field), live.tokenizer,
                            most=None if config.parallel else 2 * config.diagnose, aligned=config.parallel)
               for g in config.languages}  # fmt: skip
    taken_, _ = budgeted(streams, tokens=2 * config.diagnose, parallel=config.parallel)
    parts = {g: states.halves(s, config.parallel) for g, s in taken_.items()}
    for g, (first, second) in parts.items():
        if not (first.tokens and second.tokens):
            raise InputError("too little text to compare states on", where=streams[g].path, found=f"{streams[g].tokens:,} tokens",
                             fix="more text, or --diagnose 0")  # fmt: skip
    batches = [{g: states.cut(p[i], config.seq_len, config.rows) for g, p in parts.items()} for i in (0, 1)]
    return states.Dense.of(live, batches[0], batches[1], around.lsar, work)


def _inputs(bed: Bed, texts: Mapping[str, Any], dtype: str, device: str) -> None:
    """Keep some of what the dense model's matrices read."""
    import torch

    fed, weighing, of = [], [], []
    for language, some in texts.items():
        batch: Batch
        for batch in some:
            weights = torch.ones(batch.ids.shape)
            weights[:, : batch.skip] = 0
            fed.append({"input_ids": torch.from_numpy(batch.ids)})
            weighing.append(weights)
            of.append(language)
    inputs.gather(bed.source, bed.extent, fed, weighing, of, bed.folder / WORK, dtype, device)


def study_step(around: Around, spoken: Spoken | None = None) -> Step:
    """`around`: whoever evaluates and analyses; `spoken(text, tag)`: whether a text is in that language."""
    return Step("prune.study", 1, Study, partial(plan, around=around), partial(run, around=around, spoken=spoken), resumable=True)
