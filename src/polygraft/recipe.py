"""Recipes: read, plan, run. The same command again resumes, and skips what is unchanged.

This is the door to the recipe engine: `read_recipe` -> `plan` -> `run`, `run_step` for a single verb, and the shapes (`Step`,
`Plan`, `Context`) that a method's `steps.py` fills in. The text is read in `recipetext`, the planning done in `planning`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from polygraft import ranks
from polygraft.errors import InputError, RecipeError, ResourceError, StepFailed, UserError
from polygraft.files import (
    MANIFEST,
    OPS,
    arrive,
    commit,
    list_files,
    now,
    partial_path,
    read_json,
    refuse_overlap,
    refuse_taken,
    resource_errors,
    seal,
    sha256_file,
    verify_folder,
    write_json,
)
from polygraft.lock import lock_output, refuse_held
from polygraft.meter import measured
from polygraft.planning import (
    Resolve,
    RunPlan,
    StepPlan,
    Workspace,
    default_resolve,
    download_notes,
    plan,
    plan_in,
    raise_all,
    room_errors,
)
from polygraft.recipetext import (
    AdapterSpec,
    Recipe,
    StepUse,
    find_step,
    one_step_recipe,
    parse_recipe,
    read_recipe,
    references,
    resolved,
    rooted,
)
from polygraft.result import Result, encode
from polygraft.step import Context, DataRef, Detail, FolderRef, ModelRef, Plan, SelectRef, Step
from polygraft.store import RunFolder, lock, read_result, redact, write_result
from polygraft.timeleft import TimeLeft
from polygraft.versions import versions

__all__ = [
    "AdapterSpec", "Context", "DataRef", "Detail", "Event", "FolderRef", "ModelRef", "Plan", "Recipe", "Run", "RunPlan",
    "SelectRef", "Step", "StepPlan", "StepUse", "find_step", "one_step_recipe", "parse_recipe", "plan", "plan_step",
    "read_recipe", "resolved", "run", "run_step",
]  # fmt: skip

TICK = 0.1  # seconds between two progress events of a step


@dataclass(frozen=True)
class Event:
    """News of a run. `kind`: "note", "skip", "start", "progress", "done". `eta` is seconds left, None while unknown."""

    kind: str
    text: str
    step: str = ""
    index: int = 0
    count: int = 0
    done: float = 0.0
    total: float = 0.0
    seconds: float = 0.0
    eta: float | None = None


Tell = Callable[[Event], None]


def _silent(event: Event) -> None:
    """News that nobody reads."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the results in recipe order, and which steps ran this time."""

    folder: Path
    results: tuple[Result, ...]
    ran: tuple[str, ...]
    skipped: tuple[str, ...]


# ------------------------------------------------------------------------------------------------------------------- run


def run(recipe: Recipe, root: Path = Path("runs"), *, offline: bool = False, tell: Tell = _silent,
        resolve: Resolve = default_resolve) -> Run:
    """Plan, then do what is not done yet, into `root/<name>/`. Earlier steps stay done when a later one fails.

    Raises what the plan found (nothing has been written then), ResourceError when another run holds the folder or the disk is
    full, StepFailed when a step could not finish.
    """
    _refuse_many("a recipe")
    folder = RunFolder(Path(root) / recipe.name)
    space = Workspace(recipe, folder, offline=offline, resolve=resolve)
    run_plan = plan_in(space)
    run_plan.check()
    with lock(folder.path) as cut_off:
        for note in (*([cut_off] if cut_off else []), *run_plan.notes):
            tell(Event("note", note))
        planned = [(s.id, s.use, s.folder) for s in run_plan.steps if s.folder is not None]
        folder.begin(recipe.text, resolved(recipe), planned)
        folder.clear([partial_path(f) for u, (_, _, f) in zip(recipe.steps, planned, strict=True) if u.step.resumable])
        ran: list[str] = []
        skipped: list[str] = []
        for i, use in enumerate(recipe.steps):
            (ran if _run_or_skip(space, use, i, tell) else skipped).append(use.id)
    return Run(folder.path, tuple(folder.results()), tuple(ran), tuple(skipped))


def _run_or_skip(space: Workspace, use: StepUse, index: int, tell: Tell) -> bool:
    """Run one step unless it is done. True if it ran."""
    out, count = space.run.step(use.id, space.keys[use.id]), len(space.recipe.steps)
    why = space.run.state(out)
    if why is None:
        tell(Event("skip", f"Skipping '{use.id}': nothing changed", use.id, index, count))
        return False
    if out.exists():  # damaged: what a step makes can be made again
        with resource_errors(out):
            shutil.rmtree(out)
    tell(Event("start", f"Running '{use.id}' ({use.step.use}): {why}", use.id, index, count))
    start = time.monotonic()
    manifest = _records(space, use)
    with commit(out, manifest, keep=use.step.resumable) as part:
        _perform(space, use, part, _ticker(use.id, index, count, tell))
        manifest["files"] = known_digests(part)
    tell(Event("done", f"Finished '{use.id}'", use.id, index, count, seconds=time.monotonic() - start))
    return True


def _perform(space: Workspace, use: StepUse, part: Path, progress: Callable[..., None]) -> Result:
    """Let the step work in `part`, and write its result there with what it cost and what went in."""
    with _failures(use), measured() as meter:
        result = use.step.run(use.config, space.context(use.id, planning=False, progress=progress), part)
    inputs = result.inputs
    if not (inputs and use.step.makes_model):  # which says all of its inputs, with what it read of them
        inputs = (*(space.input(ref) for ref in dict.fromkeys(ref for _, ref in references(use.config))), *inputs)
    result = replace(result, id=use.id, step=use.step.use, cost=meter.cost, inputs=inputs)
    write_result(part, result)
    return result


@contextmanager
def _failures(use: StepUse) -> Iterator[None]:
    """A step's failure as one sentence with its place; a full disk or memory stays a lack of resources."""
    where = f"{use.where}: step `{use.id}`"
    try:
        yield
    except ResourceError as e:
        raise ResourceError(e.what, where=f"{where}: {e.where}", found=e.found, expected=e.expected, fix=e.fix) from e
    except MemoryError as e:
        raise ResourceError("out of memory", where=where, fix="use a larger machine or a smaller batch") from e
    except UserError as e:
        at = where if e.where is None else f"{where}: {e.where}"
        # what was typed or given is wrong, though only running showed it
        kind = next((k for k in (RecipeError, InputError) if isinstance(e, k)), StepFailed)
        raise kind(e.what, where=at, found=e.found, expected=e.expected, fix=e.fix) from e
    except Exception as e:
        first = str(redact(str(e))).strip().partition("\n")[0][:300]
        raise StepFailed("the step could not finish", where=where, found=f"{type(e).__name__}: {first}",
                         fix="earlier steps are kept: mend the cause and run the same command again") from e


def _ticker(id: str, index: int, count: int, tell: Tell) -> Callable[..., None]:
    """A `progress(done, total, text)` that tells at most ten times a second, with the time left."""
    start = last = time.monotonic()
    left = TimeLeft()

    def progress(done: float, total: float, text: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < TICK and done < total:
            return
        last = now
        tell(Event("progress", text, id, index, count, done, total, now - start, left(now, done, total)))

    return progress


def _records(space: Workspace, use: StepUse) -> dict[str, Any]:
    """What the manifest says about how a step's folder came to be."""
    inputs = [space.input(ref) for ref in dict.fromkeys(ref for _, ref in references(use.config))]
    entry = {"id": use.id, "use": use.step.use, **use.config.model_dump(mode="json")}
    about = {"kind": "step", "key": space.keys[use.id], "recipe": entry, "inputs": encode(inputs), "versions": versions()}
    return redact({**about, "started": now()})


def known_digests(folder: Path) -> dict[str, Any]:
    """Digests that the manifests of complete folders inside `folder` already hold, so that nothing is hashed twice."""
    known = {}
    for inner in (p.parent for p in list_files(folder) if p.name == MANIFEST and p.parent != folder):
        for name, entry in read_json(inner / MANIFEST).get("files", {}).items():
            path = inner / name
            if path.is_file() and path.stat().st_size == entry["size"]:
                known[path.relative_to(folder).as_posix()] = entry
    return known


# -------------------------------------------------------------------------------------------------------------- one step


def _alone(step: Step, config: BaseModel, folder: Path, out: Path, offline: bool, resolve: Resolve,
           probe: bool = False) -> tuple[Workspace, StepUse]:
    use = StepUse(step.name.rpartition(".")[2].replace("_", "-"), step, config, "command line")
    recipe = Recipe(out.name, "", Path(folder).absolute(), {}, (use,), "", "command line")
    return Workspace(recipe, RunFolder(out), offline=offline, probe=probe, resolve=resolve), use


def plan_step(step: Step, config: BaseModel, *, folder: Path = Path(), offline: bool = False, probe: bool = False,
              resolve: Resolve = default_resolve) -> StepPlan:
    """Plan a single step without a recipe; relative paths begin at `folder`. See `StepPlan.errors`."""
    space, use = _alone(step, config, folder, Path(folder) / use_name(step), offline, resolve, probe)
    planned = _plan_alone(space, use, Path(folder))
    return replace(planned, plan=replace(planned.plan, notes=planned.plan.notes + download_notes(space.downloads)))


def _plan_alone(space: Workspace, use: StepUse, where: Path) -> StepPlan:
    planned = space.plan(use)
    short = room_errors(planned.plan.peak_bytes, planned.plan.disk_bytes, where, sum(space.downloads.values()))
    return replace(planned, errors=planned.errors + short)


def use_name(step: Step) -> str:
    """A plain name for what a step makes: merge.dare_ties -> merge-dare-ties."""
    return step.name.replace(".", "-").replace("_", "-")


def run_step(step: Step, config: BaseModel, out: Path, *, folder: Path = Path(), offline: bool = False, force: bool = False,
             tell: Tell = _silent, resolve: Resolve = default_resolve) -> Result:
    """Run a single step straight into `out`, which becomes the model folder of a step that makes one, with result.json in it.

    One process at a time makes an `out`. It must not exist or be empty, unless it holds what this very step made of these very
    inputs: then nothing is done. With `force` an old one is moved to `<out>.replaced-<time>` first. It is absent or complete
    afterwards, and never in, over or around an input. Raises like `run`.
    """
    out = Path(out).absolute()
    if not step.parallel:
        _refuse_many(f"`{step.name}`")
    space, use = _alone(step, config, folder, out, offline, resolve)
    refuse_overlap(out, _local_inputs(space, use))
    if not ranks.rank():
        refuse_held(out)  # at once: planning may read for a while
    planned = _plan_alone(space, use, out.parent)
    if ranks.rank():
        return _assist(space, use, planned, None if force else out)
    if not force and _made_before(out, planned.key):
        tell(Event("skip", f"{out} holds what this makes: nothing changed", use.id, 0, 1))
        shutil.rmtree(partial_path(out), ignore_errors=True)
        return read_result(out)
    if not force:
        refuse_taken(out)
    raise_all(planned.errors)
    with lock_output(out) as cut_off, _moved_aside(out, force, tell):
        if not force:
            refuse_taken(out)  # another may have made it while this was planned
        for note in (*([cut_off] if cut_off else []), *download_notes(space.downloads)):
            tell(Event("note", note))
        tell(Event("start", f"Running {step.use}", use.id, 0, 1))
        start = time.monotonic()
        progress = _ticker(use.id, 0, 1, tell)
        result = (_run_model if step.makes_model else _run_folder)(space, use, out, progress)
        tell(Event("done", f"Wrote {out}", use.id, 0, 1, seconds=time.monotonic() - start))
    return result


def _refuse_many(what: str) -> None:
    if ranks.size() > 1:
        raise RecipeError(f"{what} runs in one process", where="torchrun", found=f"{ranks.size()} processes",
                          fix="run it without torchrun")


def _assist(space: Workspace, use: StepUse, planned: StepPlan, out: Path | None) -> Result:
    """One of several processes beside the first, which alone writes: the same work in a folder that is thrown away."""
    if out is not None and _made_before(out, planned.key):
        return read_result(out)
    raise_all(planned.errors)
    with tempfile.TemporaryDirectory(prefix="polygraft-") as scratch:
        return _perform(space, use, Path(scratch), lambda *_: None)


def _local_inputs(space: Workspace, use: StepUse) -> list[Path]:
    """The files and folders on this machine that the step names."""
    paths = [Path(rooted(ref.target, space.recipe.folder)) for _, ref in references(use.config)]
    return [p for p in paths if os.path.lexists(p)]


def _made_before(out: Path, key: str) -> bool:
    """Whether `out` is complete and of this step: the same command again, or one that was killed after its last rename."""
    try:
        return bool(key) and read_json(out / MANIFEST).get("key") == key and not verify_folder(out, full=False)
    except (UserError, AttributeError):
        return False


def _run_folder(space: Workspace, use: StepUse, out: Path, progress: Callable[..., None]) -> Result:
    manifest = _records(space, use)
    with commit(out, manifest, keep=use.step.resumable) as part:
        result = _perform(space, use, part, progress)
        manifest["files"] = known_digests(part)
    return result


def _run_model(space: Workspace, use: StepUse, out: Path, progress: Callable[..., None]) -> Result:
    """The step works beside `out`; its complete `model/` folder is then renamed to `out`."""
    work, keep = partial_path(out), use.step.resumable
    with resource_errors(out):
        if work.exists() and not keep:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
    try:
        result = _perform(space, use, work, progress)
        model = work / "model"
        with resource_errors(out):
            OPS.rename(str(work / "result.json"), str(model / "result.json"))
            _list_result(model, _records(space, use))
        arrive(model, out)
    except BaseException:
        if not (keep and list_files(work)):
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return result


def _list_result(model: Path, records: dict[str, Any]) -> None:
    """Name result.json in the model's own manifest, or make that manifest."""
    if not (model / MANIFEST).is_file():
        seal(model, records)
        return
    manifest, path = read_json(model / MANIFEST), model / "result.json"
    manifest["key"] = records["key"]
    manifest["files"]["result.json"] = {"sha256": sha256_file(path), "size": path.stat().st_size}
    write_json(model / MANIFEST, manifest)


@contextmanager
def _moved_aside(out: Path, force: bool, tell: Tell) -> Iterator[None]:
    """With `force`, move an old output out of the way, and back if the new one does not come to be."""
    if not (force and out.exists() and (not out.is_dir() or any(out.iterdir()))):
        yield
        return
    aside = out.with_name(f"{out.name}.replaced-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    if aside.exists():
        raise RecipeError("the old output was moved aside a moment ago", where=aside, fix="wait a second and run again")
    with resource_errors(out):
        OPS.rename(str(out), str(aside))
    tell(Event("note", f"Moved the old {out.name} to {aside.name}"))
    try:
        yield
    except BaseException:
        if not out.exists():
            OPS.rename(str(aside), str(out))
        raise
