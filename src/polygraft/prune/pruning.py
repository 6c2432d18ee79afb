"""`prune`: the weights that text in some languages needs least become zero, layer by layer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from polygraft import __version__, files
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError, UserError
from polygraft.prune import costs, report
from polygraft.prune.allocating import Allocated, allocated
from polygraft.prune.calibration import Calibration, Spoken, calibration, planned
from polygraft.prune.config import Calibrating, Masking
from polygraft.prune.costs import Extent
from polygraft.prune.engine import Module, Overlay, Work, prune
from polygraft.prune.masks import METHODS, Options, Protected
from polygraft.prune.masks.swaps import refined
from polygraft.prune.masks.worst import swapped_for_the_worst
from polygraft.prune.protect import protection
from polygraft.prune.writing import MASKS, ORDER, verified, write_masks, write_model
from polygraft.result import InputRef, Result
from polygraft.sources import Source
from polygraft.step import Context, Detail, Plan, SelectName, Step
from polygraft.versions import versions

LAYERS, WORK = "layers", "work"


class Prune(Masking):
    """Weights that text in some languages needs least become zero. The result is a plain dense model with its masks beside it."""


def anatomy_of(source: Source) -> Anatomy:
    """Raises InputError for what is no decoder."""
    return Anatomy.of(source.weights.config, source.weights.tensors, where=source.spec)


# -------------------------------------------------------------------------------------------------------------------- plan


def plan(config: Masking, context: Context) -> Plan:
    """From headers: what can go, what it takes, and why it would fail."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    extent = Extent.of(weights, anatomy)
    problems = list[UserError]()
    try:
        costs.unfit(config, extent.matrices)
    except UserError as e:
        problems.append(e)
    text = planned(config, context, anatomy)
    size, whole = sum(extent.sizes.values()), sum(t.numel for t in weights.tensors.values())
    lines = (
        f"{config.method} at {config.asked}: {int(size * config.asked.sparsity):,} of {size:,} weights in {len(extent.matrices):,} "
        f"matrices of {anatomy.layers} layers; {1 - size / whole:.1%} of the parameters (embeddings, norms, head) are left alone",
        *text.lines,
    )
    return Plan(lines, costs.peak(config, weights, anatomy, extent), costs.disk(config, weights, anatomy, extent),
                sum(t.nbytes for t in weights.tensors.values()) + text.read_bytes, costs.seconds(config, extent),
                problems=(*problems, *text.problems), notes=(report.DENSE,), like=source)  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------- run


def run(config: Masking, context: Context, folder: Path, spoken: Spoken | None = None,
        forget: Callable[[], None] = lambda: None) -> Result:  # fmt: skip
    """Write `model/` with its masks; finished layers of an interrupted run are taken up from `layers/`."""
    source = context.model(config.model)
    anatomy = anatomy_of(source)
    extent = Extent.of(source.weights, anatomy)
    costs.unfit(config, extent.matrices)
    text = read(config, context, source, spoken)
    forget()
    layers = taken_up(folder / LAYERS, work_key(config, context, source, text))
    allocation = allocated(config, source, extent, text, layers, context.progress)
    stays = protection(config, context, source, extent, lambda c: read(c, context, source, None), layers, context.progress)
    by_key = {**stays.sparsities(extent, config.asked), **allocation.by_key}
    modules = prune(work(config, source, text, by_key, stays.of), layers, context.progress)
    overlay = Overlay(source.weights, layers, anatomy.layers)
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)  # of a run that was killed while it wrote
    written = write_model(overlay, model, context.progress)
    digest = write_masks(overlay, model)
    zeros = verified(model, modules, config.asked, anatomy.traits.transposed)
    result = told(config, source, anatomy, text, allocation, modules, zeros, digest)
    if stays.words:
        data = result.data | {"protected": sum(stays.counts.values())}
        result = replace(result, summary=(*result.summary, stays.words), data=data)
    files.seal(model, {"kind": "model", **written, "recipe": {"use": "prune@1", **config.model_dump(mode="json")},
                       "inputs": [vars(ref) for ref in result.inputs], "calibration": text.provenance if text else None,
                       "masks": result.data["masks"], "versions": versions()})  # fmt: skip
    shutil.rmtree(layers)
    return result


def read(config: Calibrating, context: Context, source: Source, spoken: Spoken | None) -> Calibration | None:
    """The calibration text; None where there is none. Raises InputError for a model without a tokenizer."""
    from polygraft.model import load_tokenizer, quiet

    if not config.corpus:
        return None
    with quiet():
        tokenizer = load_tokenizer(source.path) or (load_tokenizer(source.base.path) if source.base else None)
    if tokenizer is None:
        raise InputError("the model has no tokenizer, so it cannot read text", where=source.spec,
                         fix="put its tokenizer.json there")
    return calibration(config, context, tokenizer, spoken)


def work(config: Masking, source: Source, text: Calibration | None, by_key: Mapping[str, float], protected: Protected) -> Work:
    """What the engine does, from the words of a config."""
    from polygraft.model import device_for, dtype_for

    device = device_for(config.device)
    maker, gram = METHODS[config.method]
    options = Options(by_key=by_key, protected=protected, damping=config.damping)
    method = maker(config.asked, options)
    worst = config.objective == "worst" and text is not None
    if config.swaps:
        swap = swapped_for_the_worst if worst else None
        method, gram = refined(method, config.asked, config.swaps, options.protected, swap), True
    batches, weighing = (text.batches, text.weighing) if text else ((), ())
    of = text.of if text and worst else None
    return Work(source, batches, weighing, method, gram, dtype_for(device, config.dtype)[0], device, of)


def work_key(config: Calibrating, context: Context, source: Source, text: Calibration | None) -> str:
    """What decides every byte of a finished layer."""
    said = {name: value for name, value in config.model_dump(mode="json").items()
            if not any(m is Detail for m in type(config).model_fields[name].metadata)}  # fmt: skip
    protect = getattr(config, "protect", None)
    picked = files.data_identity(context.folder(protect.target)) if isinstance(protect, SelectName) else ""
    return files.digest([said | {"model": source.identity, "corpus": text.digest if text else ""}, picked, __version__])


def taken_up(layers: Path, key: str) -> Path:
    """The folder of finished layers, emptied unless the same work made them."""
    mark = layers / WORK
    with files.resource_errors(layers):
        if layers.exists() and not (mark.is_file() and mark.read_bytes() == key.encode()):
            shutil.rmtree(layers)
        layers.mkdir(parents=True, exist_ok=True)
    files.write_atomic(mark, key.encode())
    return layers


# ---------------------------------------------------------------------------------------------------------------- in words


def told(config: Masking, source: Source, anatomy: Anatomy, text: Calibration | None, allocation: Allocated,
         modules: Mapping[str, Module], zeros: Mapping[str, int], digest: str) -> Result:  # fmt: skip
    """The result: how much of every matrix went, what its output lost, on which text."""
    inputs = [source.ref("model"), *(InputRef(t.language, t.path, digest=t.digest) for t in (text.told if text else ()))]
    swaps = f", {config.swaps} swaps a row at most{' for the worst language' * (config.objective == 'worst')}"
    how = f"{config.method} at {config.asked}" + (swaps if config.swaps else "")
    data = {
        "method": config.method, "sparsity": config.asked.sparsity, "pattern": config.pattern, "allocate": config.allocate,
        "swaps": config.swaps, "objective": config.objective, "layers": allocation.layers,
        "calibration": text.provenance if text else None,
        "masks": {"file": MASKS, "sha256": digest, "order": ORDER}, "modules": report.data(modules, zeros),
    }  # fmt: skip
    parameters = sum(t.numel for t in source.weights.tensors.values())
    tables = (report.table(modules, anatomy), *((text.table,) if text else ()))
    return Result("prune", "", f"{config.model}, pruned by {how}", report.summary(how, modules, parameters, zeros),
                  report.maps(modules, anatomy), tables, allocation.curves, inputs=tuple(inputs),
                  caveats=(*(text.notes if text else ()), *report.caveats(modules)), data=data)  # fmt: skip


def prune_step(spoken: Spoken | None = None, forget: Callable[[], None] = lambda: None) -> Step:
    """`spoken(text, tag)` says whether calibration text is in its language, None where it cannot be said; `forget()` gives back
    what memory it took for that."""
    return Step("prune", 1, Prune, plan, partial(run, spoken=spoken, forget=forget), makes_model=True, resumable=True)
