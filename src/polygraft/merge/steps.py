"""The merges as steps of a recipe: open the sources, plan from headers, write a model or an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.merge import configs, engine, lora, write
from polygraft.merge.configs import Common, Config, Request
from polygraft.merge.write import Job, Named
from polygraft.result import InputRef, Result
from polygraft.selectionfile import pick
from polygraft.sources import Adapter, Source, with_base
from polygraft.step import Context, Plan, Step
from polygraft.versions import MERGING, versions

HALVES = (0.5, 0.5)


def requested(config: Config, context: Context) -> Request:
    """The merge that a config asks for, with the parts that its selection file names."""
    if isinstance(config, configs.Revert) and config.select is not None:
        return config.request(pick(config.select, context.folder))
    return config.request()


def opened(request: Request, context: Context) -> list[Source]:
    """Every source of the request; an adapter that names no base lies on the request's base."""
    sources = [context.model(ref) for ref in request.refs]
    if request.base is None:
        return sources
    return [with_base(s, sources[request.base]) if s.adapter is not None and s.base is None else s for s in sources]


def named(request: Request, sources: list[Source]) -> tuple[Named, ...]:
    return tuple(Named(name, s.weights, s.spec, s.revision, s.kind, hub_ids(s), s.coming)
                 for name, s in zip(request.names, sources))  # fmt: skip


def hub_ids(source: Source) -> tuple[str, ...]:
    """The hub ids that a source is, or stands on."""
    own = (source.spec.split("@")[0],) if source.revision and source.kind in ("hub", "adapter") else ()
    return own + (hub_ids(source.base) if source.base else ())


def job(config: Common, request: Request, sources: list[Source], shares: tuple[float, float] = HALVES) -> Job:
    """The checked merge into full weights. Raises UserError for whatever would make it fail."""
    models = named(request, sources)
    anatomy = write.anatomy_of(models[request.donor(config.donor)], config.anatomy)
    profile = request.make(anatomy, request.names, shares)
    return write.job(
        profile,
        models,
        anatomy,
        request.names[request.donor(config.donor)],
        recipe=recipe(config, request),
        shard_bytes=config.shard_bytes,
    )


def recipe(config: Common, request: Request) -> dict[str, Any]:
    """The step as a recipe would hold it, every default written out."""
    return {"use": f"merge.{request.name}@1", **config.model_dump(mode="json", exclude_defaults=False, exclude={"anatomy"})}


def plan(config: Config, context: Context) -> Plan:
    """From headers alone: the layer map, bytes, memory, time. Raises UserError with the first reason why it would fail."""
    request = requested(config, context)
    sources = opened(request, context)
    if request.space == "adapter":
        return plan_adapter(config, request, sources)
    made = job(config, request, sources)
    planned = plan_job(made, sources[request.donor(config.donor)])
    if not request.measured:
        return planned
    measured = sum(
        s.weights.tensors[k].nbytes
        for s in (made.sources[0], made.sources[1], made.sources[2], made.sources[2])
        for k in s.weights.tensors
    )
    note = "the blends' weights are measured first, from the whole of both experts and the base; shown here as halves"
    return replace(planned, read_bytes=planned.read_bytes + measured, seconds=planned.seconds + measured / 1e9,
                   notes=(*planned.notes, note))


def plan_job(made: Job, donor: Source) -> Plan:
    """What writing a checked merge would cost, from headers."""
    needs = write.needs(made)
    return Plan(
        tuple(made.profile.text(made.anatomy)) + write.counts(needs, made.profile),
        needs.peak,
        needs.disk,
        needs.read,
        needs.seconds,
        made.profile.maps(made.anatomy),
        (),
        made.notes,
        donor if donor.adapter is None else donor.base,
    )


def run(config: Config, context: Context, folder: Path) -> Result:
    """Write `folder/model`, complete with its own manifest."""
    return sealed(folder, lambda model: into(config, context, model))


def sealed(folder: Path, fill: Callable[[Path], tuple[Result, dict[str, Any]]]) -> Result:
    """What `fill` writes into the new `folder/model`, closed with the manifest that it gives."""
    model = folder / "model"
    files.OPS.mkdir(str(model))
    result, manifest = fill(model)
    files.seal(model, manifest)
    return result


def into(config: Config, context: Context, model: Path) -> tuple[Result, dict[str, Any]]:
    """Write the model (or adapter) into an empty folder; returns the Result and the manifest that belongs beside it."""
    request = requested(config, context)
    sources = opened(request, context)
    shares = HALVES
    if request.measured:
        write.compat.check([(s.name, s.weights) for s in named(request, sources)])
        task, language, base = (s.weights for s in sources)
        shares = engine.shares(task, language, base, _progress(context, "measuring changes", (task, language, base, base)))
    if request.space == "adapter":
        return fill_adapter(config, request, sources, shares, model)
    return write.fill(job(config, request, sources, shares), model, context.progress)


def _progress(context: Context, text: str, weights: tuple[Weights, ...]) -> Any:
    total, done = sum(t.nbytes for w in weights for t in w.tensors.values()), 0

    def add(n: int) -> None:
        nonlocal done
        done += n
        context.progress(done, total, text)

    return add


# --------------------------------------------------------------------------------------------------------- adapter space


def adapters_of(request: Request, sources: list[Source]) -> tuple[list[Adapter | None], Source]:
    """The adapters in the profile's order (None for the base itself) and the base they stand on. Raises InputError."""
    found: list[Adapter | None] = []
    for i, (name, source) in enumerate(zip(request.names, sources)):
        if source.adapter is None and i != request.base:
            raise InputError(
                "not an adapter, so there is no adapter space to merge in",
                where=name,
                found=source.kind,
                expected="LoRA adapters on one base",
                fix="use space: weights",
            )
        found.append(source.adapter)
    lora.check([(n, a) for n, a in zip(request.names, found) if a])
    bases = [s.base for s in sources if s.adapter is not None] + [s for s in sources if s.adapter is None]
    base = next((b for b in bases if b is not None), None)
    if base is None:
        raise InputError(
            "the adapters' base is not named", where=request.names[0], fix="name it: {adapter: DIR, base: MODEL}, or base: MODEL"
        )
    if len({b.identity for b in bases if b is not None}) > 1:
        raise InputError(
            "the adapters stand on different bases",
            where=", ".join(request.names),
            found=", ".join(sorted({b.spec for b in bases if b})),
            fix="use space: weights",
        )
    return found, base


def _profile(config: Common, request: Request, base: Source, shares: tuple[float, float]) -> tuple[Any, Any]:
    anatomy = write.anatomy_of(Named("base", base.weights), config.anatomy)
    return request.make(anatomy, request.names, shares), anatomy


def plan_adapter(config: Common, request: Request, sources: list[Source]) -> Plan:
    """What a merge in adapter space would make; the factors are small, so they are held in memory whole."""
    adapters, base = adapters_of(request, sources)
    profile, anatomy = _profile(config, request, base, HALVES)
    size = sum(t.nbytes for a in adapters if a for t in a.tensors.values())
    notes = ("blended layers join the factors of all sources, so their rank is the sum of the ranks",)
    return Plan(
        tuple(profile.text(anatomy)),
        write.resident() + 4 * size,
        size + 20_000,
        size,
        size / 2e8,
        profile.maps(anatomy),
        (),
        notes,
        _lead(config, request, sources),
    )


def _lead(config: Common, request: Request, sources: list[Source]) -> Source:
    """The adapter whose settings lead; never the base."""
    at = request.donor(config.donor)
    return sources[at] if sources[at].adapter is not None else next(s for s in sources if s.adapter is not None)


def fill_adapter(
    config: Common, request: Request, sources: list[Source], shares: tuple[float, float], folder: Path
) -> tuple[Result, dict[str, Any]]:
    """Write the merged adapter; returns the Result and the manifest."""
    started = files.now()
    adapters, base = adapters_of(request, sources)
    profile, anatomy = _profile(config, request, base, shares)
    modules, whole = lora.merge(profile, anatomy, adapters)
    lead = _lead(config, request, sources).adapter
    assert lead is not None
    names = [k.removesuffix(".weight") for k, p in anatomy.parts.items() if p.kind in ("attn", "ffn") and k.endswith(".weight")]
    tensors = lora.write(folder, lora.config(lead, base.spec, modules, names), modules, whole)
    inputs = tuple(_ref(n, s) for n, s in zip(request.names, sources))
    ranks = sorted({m.rank for m in modules.values()})
    summary = (
        f"{len(modules)} modules are adapted, of rank {' and '.join(map(str, ranks))}; the base is {base.spec}.",
        *(line.strip() for line in profile.text(anatomy)[1:]),
    )
    origins = [write.Origin(n, s.spec, hub_ids(s)) for n, s in zip(request.names, sources)]
    text = write.card(profile, anatomy, origins, request.names[0], recipe(config, request), summary[:1], library="peft")
    files.write_atomic(folder / "README.md", text.encode())
    manifest = {
        "kind": "adapter",
        "started": started,
        "tensors": tensors,
        "inputs": [_input(i) for i in inputs],
        "recipe": recipe(config, request),
        "profile": profile.to_json(),
        "versions": versions(MERGING),
    }
    size = sum(p.stat().st_size for p in files.list_files(folder))
    return Result(
        f"merge.{request.name}",
        "",
        f"{request.name} of {', '.join(request.names)}, as an adapter",
        summary,
        profile.maps(anatomy),
        inputs=inputs,
        caveats=("embedding, norms and head change only where the adapters change them",),
        data={"profile": profile.to_json(), "bytes": size, "ranks": ranks},
    ), manifest


def _ref(name: str, source: Source) -> InputRef:
    weights = source.adapter or source.weights
    return InputRef(
        name,
        source.spec,
        source.revision,
        source.identity,
        files.digest({k: weights.tensor_sha256(k) for k in weights.tensors}) if source.adapter else "",
    )


def _input(ref: InputRef) -> Mapping[str, str]:
    return {"name": ref.name, "spec": ref.spec, "revision": ref.revision, "identity": ref.identity, "tensors_sha256": ref.digest}


STEPS = tuple(
    Step(f"merge.{name}", 1, kind, plan, run, makes_model=True)
    for name, kind in (("swap", configs.Swap), ("soup", configs.Soup), ("task", configs.Task), ("ties", configs.Ties),
                       ("dare_ties", configs.DareTies), ("revert", configs.Revert), ("slerp", configs.Slerp))
)  # fmt: skip
