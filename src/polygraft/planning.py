"""What a recipe would do: step keys, what is done already, and every reason why it would fail, from headers alone.

A step's key is the digest of its name and version, its config with every reference replaced by the identity of what it leads to,
and this package's version. Fields marked `Detail` are left out of it: they say how, not what.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from polygraft import __version__
from polygraft.errors import InputError, RecipeError, ResourceError, UserError
from polygraft.files import MANIFEST, data_identity, digest, disk_of, free_space, read_json, verify_folder
from polygraft.meter import memory_limit
from polygraft.recipetext import AdapterSpec, Recipe, StepUse, inside, references, rooted
from polygraft.result import InputRef
from polygraft.step import Context, DataName, Detail, FolderName, ModelName, Name, Plan, SelectName
from polygraft.store import RunFolder

if TYPE_CHECKING:
    from polygraft.sources import Source

LATER = "planned in full when it can be"  # how the note begins on a step whose inputs other steps have yet to make
DATA_SUFFIXES = {".txt", ".jsonl", ".json", ".tsv", ".csv", ".parquet", ".gz", ".xz"}


class NotMade(InputError):
    """What a step that has not run yet will write, where its plan does not tell enough of it."""


@dataclass(frozen=True)
class StepPlan:
    """One step as it would run. `key` is "" while its inputs cannot be identified; `why` says why it is not skipped."""

    id: str
    use: str
    key: str
    folder: Path | None
    cached: bool
    why: str
    plan: Plan
    errors: tuple[UserError, ...] = ()


@dataclass(frozen=True)
class RunPlan:
    """All steps as they would run. Totals are over the steps that are not done already."""

    recipe: Recipe
    folder: Path
    steps: tuple[StepPlan, ...]
    errors: tuple[UserError, ...]
    downloads: dict[str, int] = field(default_factory=dict)  # hub model at its commit -> bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """What holds for the whole run."""
        return download_notes(self.downloads)

    @property
    def download_bytes(self) -> int:
        return sum(self.downloads.values())

    def _open(self) -> list[Plan]:
        return [s.plan for s in self.steps if not s.cached]

    @property
    def peak_bytes(self) -> int:
        return max((p.peak_bytes for p in self._open()), default=0)

    @property
    def disk_bytes(self) -> int:
        return sum(p.disk_bytes for p in self._open())

    @property
    def read_bytes(self) -> int:
        return sum(p.read_bytes for p in self._open())

    @property
    def seconds(self) -> float:
        return sum(p.seconds for p in self._open())

    def check(self) -> None:
        """Raise one error that tells every reason why the run would fail; return when there is none."""
        raise_all(self.errors)


def raise_all(errors: tuple[UserError, ...]) -> None:
    """Raise the only error, or one of the first's kind that tells them all."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = next((k for k in (RecipeError, InputError, ResourceError) if isinstance(errors[0], k)), UserError)
        raise kind(f"{len(errors)} problems\n" + "\n".join(e.render() for e in errors))


def download_notes(downloads: dict[str, int]) -> tuple[str, ...]:
    """One line for each model that has to be fetched first."""
    sizes = {name: f"{n / 1e9:,.1f} GB" if n >= 5e7 else f"{n:,} bytes" for name, n in downloads.items()}
    return tuple(f"downloads {size}: {name[: name.index('@') + 13]}" for name, size in sizes.items())


def default_resolve(spec: str, **options: Any) -> Source:
    """A source whose headers are open. A hub model stays on the hub until `Workspace.source` is asked for it while running."""
    from polygraft.sources import resolve

    return resolve(spec, headers_only=True, **options)


class Workspace:
    """What the references of a recipe lead to: each source opened once, identities, step keys and folders."""

    def __init__(self, recipe: Recipe, run: RunFolder, *, offline: bool = False, probe: bool = False,
                 resolve: Callable[..., Source] = default_resolve):
        self.recipe, self.run, self.offline, self.probe, self._resolve = recipe, run, offline, probe, resolve
        self.ids = [u.id for u in recipe.steps]
        self.keys: dict[str, str] = {}
        self.likes: dict[str, Source] = {}
        self.downloads: dict[str, int] = {}  # what the steps planned so far must fetch: hub model at its commit -> bytes
        self._sources: dict[tuple[str, str], Source] = {}
        self._refused: dict[tuple[str, str], InputError] = {}  # a hub that does not answer is asked once
        self._data: dict[Path, str] = {}

    def source(self, ref: str, *, planning: bool = False) -> Source:
        """What a model reference leads to; unless `planning`, with its weights on this machine.

        Raises InputError; NotMade for a step that has yet to make it.
        """
        if ref in self.ids:
            return self._made(ref, planning)
        if inside(ref, self.ids):
            return self._open(str(self.data(ref)), None, planning)
        spec = self.recipe.models.get(ref, ref)
        if isinstance(spec, str):
            return self._open(spec, None, planning)
        if isinstance(self.recipe.models.get(spec.base), AdapterSpec):
            raise InputError("an adapter cannot stand on another adapter", where=f"models.{ref}", found=spec.base,
                             fix="merge the first adapter into its base, and name the merged folder")
        return self._open(spec.adapter, self.source(spec.base, planning=planning), planning)

    def _made(self, id: str, planning: bool) -> Source:
        folder = self.folder(id)
        if folder is not None and self.run.state(folder) is None:
            return self._open(str(folder / "model"), None, planning)
        if planning and id in self.likes:
            return replace(self.likes[id], coming=id)
        raise NotMade(f"the model of the step `{id}` is not made yet")

    def _open(self, spec: str, base: Source | None, planning: bool) -> Source:
        """Each source is opened once, so a hub model keeps the commit that was found first.

        An adapter that was given no base lies on the one that its own config names.
        """
        key = (at := rooted(spec, self.recipe.folder), base.spec if base else "")
        if planning and key in self._refused:
            raise self._refused[key]
        if key not in self._sources:
            try:
                source = self._resolve(at, offline=self.offline, base=base)
            except InputError as e:
                self._refused[key] = e
                raise
            named = source.adapter.base if source.adapter is not None and source.base is None else ""
            if named and rooted(named, self.recipe.folder) != at:
                with suppress(InputError):  # the base may have moved: a step that needs it says so
                    source = replace(source, base=self.source(named, planning=True))
            self._sources[key] = source
        if not planning and self._sources[key].missing:
            self._sources[key] = self._sources[key].downloaded(offline=self.offline)
        return self._sources[key]

    def data(self, ref: str) -> Path:
        """The path of a data reference. Raises InputError when nothing is there; NotMade for what a step yet to run will write."""
        if (id := inside(ref, self.ids)) is not None:
            path = self.made(id) / ref.partition("/")[2]
        else:
            path = Path(rooted(ref, self.recipe.folder))
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError("not a plain file", where=ref, fix="name a file or a folder; pipes and devices are not read")
        if not path.exists():
            raise InputError("no such file or folder", where=ref, expected=f"a path, from {self.recipe.folder}",
                             fix="check the path" + (f", or put the file there: the head of {self.recipe.file} may say how"
                                                     if self.recipe.text else ""))
        return path

    def made(self, ref: str) -> Path:
        """The folder of an earlier step, or the path that a reference names. Raises InputError; NotMade for a step yet to run."""
        target = ref.target if isinstance(ref, FolderName) else ref
        if target not in self.ids:
            return self.data(target)
        folder = self.folder(target)
        if folder is None or self.run.state(folder) is not None:
            raise NotMade(f"the step `{target}` has not run yet")
        return folder

    def folder(self, id: str) -> Path | None:
        return self.run.step(id, self.keys[id]) if id in self.keys else None

    # ------------------------------------------------------------------------------------------------------- identities

    def input(self, ref: Name) -> InputRef:
        """A reference as it goes into the records. Raises InputError when it leads nowhere."""
        if (id := inside(ref.target, self.ids)) is not None:
            if id not in self.keys:
                raise NotMade(f"the step `{id}` cannot be planned")
            return InputRef(ref, f"step {ref}", identity=f"{self.keys[id]}/{ref.target.partition('/')[2]}")
        if isinstance(ref, DataName):
            path = self.data(ref.target) if is_file_name(ref.target) else Path(rooted(ref.target, self.recipe.folder))
            if not path.exists():
                return InputRef(ref, str(ref), identity=f"spec:{ref}")
            parts = [self._data_identity(p) for p in (path, *ref.parts(path))]
            return InputRef(ref, str(ref), identity=parts[0] if len(parts) == 1 else digest(parts))
        if ref.target in self.ids:
            if ref.target not in self.keys:
                raise NotMade(f"the step `{ref.target}` cannot be planned")
            return InputRef(ref, f"step {ref}", identity=self.keys[ref.target])
        if isinstance(ref, FolderName):
            return InputRef(ref, str(ref), identity=made_identity(ref, self.data(ref.target)))
        source = self.source(ref, planning=True)
        spec = self.recipe.models.get(ref, str(ref))
        words = spec if isinstance(spec, str) else f"{spec.adapter} on {spec.base}"
        return InputRef(ref, words, source.revision, source.identity)

    def _data_identity(self, path: Path) -> str:
        if path not in self._data:
            self._data[path] = data_identity(path)
        return self._data[path]

    def key(self, use: StepUse) -> str:
        """The name of everything that decides what a step makes. Raises InputError when an input cannot be identified."""
        payload = {"step": use.step.use, "config": self._essence(use.config), "polygraft": __version__}
        return digest(payload)

    def _essence(self, value: Any) -> Any:
        if isinstance(value, Name):
            named = value.target in self.ids or value in self.recipe.models
            return [value.at(value.target if named else ""), self.input(value).identity]
        if isinstance(value, BaseModel):
            fields = type(value).model_fields
            return {k: self._essence(getattr(value, k)) for k, f in fields.items() if not _is_detail(f.metadata)}
        if isinstance(value, dict):
            return {str(k): self._essence(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._essence(v) for v in value]
        return to_jsonable_python(value)

    # --------------------------------------------------------------------------------------------------------- planning

    def context(self, id: str, *, planning: bool, probe: bool = False, progress: Callable[..., None] | None = None) -> Context:
        headers = planning or any(u.step.headers for u in self.recipe.steps if u.id == id)

        def model(ref: str) -> Source:
            return self.source(ref, planning=headers)

        context = Context(model, self.data, offline=self.offline, step_id=id, planning=planning, probe=probe, folder=self.made)
        return replace(context, progress=progress) if progress else context

    def plan(self, use: StepUse) -> StepPlan:
        """Plan one step; steps that it names must have been planned before. Errors are collected, not raised."""
        key, folder, why = "", None, "it cannot be planned"
        errors = self._input_errors(use)
        if not errors:
            key = self.keys[use.id] = self.key(use)
            folder = self.run.step(use.id, key)
            why = self.run.state(folder) or ""
        cached = folder is not None and not why
        plan, more = self._plan(use, probe=self.probe and use.step.probes and not cached)
        if plan.like is not None:
            self.likes[use.id] = plan.like
        errors += [] if cached else more
        if not cached and not use.step.headers:
            self._note_downloads(use)
        told = {str(e): e for e in errors if not isinstance(e, NotMade)}
        return StepPlan(use.id, use.step.use, key, folder, cached, why, plan, tuple(told.values()))

    def _note_downloads(self, use: StepUse) -> None:
        for _, ref in references(use.config):
            if isinstance(ref, ModelName) and ref not in self.ids:
                with suppress(UserError):  # told as an error of the step
                    self.downloads |= self.source(ref, planning=True).missing

    def _input_errors(self, use: StepUse) -> list[UserError]:
        """What is wrong with each thing that a step names."""
        errors = []
        for _, ref in references(use.config):
            try:
                self.input(ref)
            except UserError as e:
                errors.append(_at(use, e))
        return errors

    def _plan(self, use: StepUse, probe: bool) -> tuple[Plan, list[UserError]]:
        try:
            plan = use.step.plan(use.config, self.context(use.id, planning=not probe, probe=probe))
        except NotMade as e:
            return self._plan(use, probe=False) if probe else (Plan(notes=(f"{LATER}: {e.what}",)), [])
        except UserError as e:
            return Plan(), [_at(use, e)]
        return plan, [_at(use, p if isinstance(p, UserError) else InputError(p)) for p in plan.problems]


def is_file_name(ref: str) -> bool:
    """Whether a data reference is written as a file on this machine, rather than as something that only the step understands."""
    return ref.startswith(("/", "./", "../", "~")) or (":" not in ref and Path(ref).suffix in DATA_SUFFIXES)


def _at(use: StepUse, e: UserError) -> UserError:
    """The error with the step's place in front, keeping its kind."""
    if isinstance(e, NotMade):
        return e
    where = f"{use.where}: step `{use.id}`" + (f": {e.where}" if e.where is not None else "")
    return type(e)(e.what, where=where, found=e.found, expected=e.expected, fix=e.fix)


def _is_detail(metadata: list[Any]) -> bool:
    return any(m is Detail or isinstance(m, Detail) for m in metadata)


def made_identity(ref: FolderName, path: Path) -> str:
    """What a step wrote, wherever it lies and whatever its making cost: by the digests in its manifest.

    Of a `SelectRef` the selection file alone counts. Raises InputError for a folder that is no longer what its manifest says.
    """
    if isinstance(ref, SelectName) and path.is_dir():
        from polygraft.selectionfile import FILE

        return data_identity(path / FILE)
    manifest = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else {}
    if not (isinstance(manifest, dict) and "polygraft" in manifest):
        return data_identity(path)
    if problems := verify_folder(path, full=False):
        raise InputError("the folder is not as it was written", where=path, found=f"{problems[0].file}: {problems[0].what}",
                         fix="make it again, or take a whole copy")
    return digest({name: entry["sha256"] for name, entry in manifest["files"].items() if name != "result.json"})


Resolve = Callable[..., "Source"]


def plan(recipe: Recipe, root: Path = Path("runs"), *, offline: bool = False, probe: bool = False,
         resolve: Resolve = default_resolve) -> RunPlan:
    """Say what `run` would do, reading headers only; with `probe`, steps that can do a little of their work to measure it.

    Never raises for what is wrong with inputs: see `RunPlan.errors`.
    """
    run = RunFolder(Path(root) / recipe.name)
    return plan_in(Workspace(recipe, run, offline=offline, probe=probe, resolve=resolve))


def plan_in(space: Workspace) -> RunPlan:
    steps = tuple(space.plan(use) for use in space.recipe.steps)
    run_plan = RunPlan(space.recipe, space.run.path, steps, (), space.downloads)
    errors = tuple(e for s in steps for e in s.errors)
    errors += room_errors(run_plan.peak_bytes, run_plan.disk_bytes, space.run.path, run_plan.download_bytes)
    return replace(run_plan, errors=tuple({str(e): e for e in errors}.values()))


def room_errors(peak: int, disk: int, where: Path, download: int = 0) -> tuple[UserError, ...]:
    """What the machine is short of; `download` bytes go into the hub's cache, which may lie on another disk."""
    errors: list[UserError] = []
    limit, needs = memory_limit(), {where: disk}
    if download:
        from polygraft.hub import cache

        together = disk_of(cache()) == disk_of(where)
        needs = {where: disk + download} if together else {where: disk, cache(): download}
    for place, need in needs.items():
        if need > (free := free_space(place)):
            fix = "free some room, or use a folder on another disk" + (" (HF_HOME for downloads)" if download else "")
            errors.append(ResourceError("not enough room on the disk", where=place, found=f"{free:,} bytes free",
                                        expected=f"{need:,} bytes", fix=fix))
    if limit is not None and peak > limit:
        errors.append(ResourceError("not enough memory", where=where, found=f"{limit:,} bytes",
                                    expected=f"{peak:,} bytes at the peak", fix="use a larger machine or a smaller batch"))
    return tuple(errors)
