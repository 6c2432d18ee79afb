"""From the words that name a model to its weights: a folder, a hub id, an adapter on a base, a GGUF file or the embedded model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from polygraft import embedded, gguf, hub
from polygraft.adapter import Adapter, MergedView, is_adapter, merged_view
from polygraft.checkpoint import Checkpoint, RemoteCheckpoint, Weights
from polygraft.errors import InputError
from polygraft.folder import CONVERT, PICKLES, checked_folder
from polygraft.result import InputRef

SERVER = "server"  # `server:URL#MODEL`: a model that runs elsewhere; what follows is read by the evaluation

__all__ = ["Adapter", "MergedView", "Source", "merged_view", "open_model", "resolve"]


@dataclass(frozen=True)
class Source:
    """What a name stands for. `kind` is folder, hub, adapter, gguf, demo or server; an adapter has `adapter` and maybe `base`.

    `coming`: the step that has yet to write it; then this is a model of the shapes that it will have, for a plan.
    """

    spec: str
    kind: str
    path: Path
    revision: str = ""
    checkpoint: Checkpoint | None = None
    adapter: Adapter | None = None
    base: Source | None = None
    coming: str = ""

    @property
    def identity(self) -> str:
        """Cheap and stable: changes with any header byte, size or modification time, or is the hub commit or GGUF digest."""
        if self.checkpoint is not None:
            return self.checkpoint.identity
        if self.kind == SERVER:
            return self.spec
        return "+".join(p for p in (self.base.identity if self.base else "", self.adapter.identity if self.adapter else "") if p)

    @property
    def weights(self) -> Weights:
        """Whole weights to read: the checkpoint, or base and adapter merged on the fly. Raises InputError for an adapter alone."""
        if self.checkpoint is not None:
            return self.checkpoint
        if self.kind == SERVER:
            raise _elsewhere(self.spec)
        if self.adapter is None or self.base is None:
            raise InputError(
                "a LoRA adapter, not a whole model",
                where=self.spec,
                expected="a model, or an adapter with its base",
                fix="name it under `models:` as {adapter: DIR, base: MODEL}, or give --base",
            )
        return merged_view(self.base.weights, self.adapter)

    @property
    def missing(self) -> dict[str, int]:
        """What must be downloaded before it can be read: `repository@commit` -> bytes."""
        found = self.base.missing if self.base else {}
        if isinstance(self.checkpoint, RemoteCheckpoint):
            found |= {self.identity.removeprefix("hub:"): self.checkpoint.missing_bytes}
        return found

    def downloaded(self, *, offline: bool = False) -> Source:
        """The same source with its weights here, at the commit whose headers were read. Raises InputError."""
        base = self.base.downloaded(offline=offline) if self.base else None
        if not isinstance(self.checkpoint, RemoteCheckpoint):
            return replace(self, base=base)
        path, _ = hub.snapshot(self.identity.removeprefix("hub:"), offline=offline)
        return replace(self, path=path, checkpoint=Checkpoint.open(path, identity=self.identity))

    def ref(self, name: str, digest: str = "") -> InputRef:
        """This source as a result's input."""
        return InputRef(name, self.spec, self.revision, self.identity, digest)


def resolve(
    spec: str | Path, *, offline: bool = False, base: Source | str | Path | None = None, headers_only: bool = False
) -> Source:
    """Find what `spec` names and open its headers. `base` is what an adapter lies on.

    A folder that exists wins over a hub id of the same form. With `offline`, nothing is fetched: what is not on this machine is
    refused. A hub model is downloaded, or with `headers_only` left where it is: see `Source.downloaded`.
    Raises InputError naming what is missing or wrong, and how to mend it.
    """
    text = str(spec)
    if text.startswith("demo:"):
        path = embedded.folder(text.removeprefix("demo:"), offline=offline)
        return Source(
            text, "demo", path, embedded.SHA256, Checkpoint.open(path, identity=f"gguf:{embedded.SHA256}-{gguf.CONVERTER}")
        )
    if text.startswith(f"{SERVER}:"):
        return Source(text, SERVER, Path())
    path = Path(text).expanduser()
    if _exists(path):
        return _local(text, path, offline, base, headers_only)
    if isinstance(spec, Path) or hub.parse(text) is None:
        raise InputError(
            "no such model",
            where=text[:300],
            expected="a folder, a .gguf file, org/name[@revision], demo:smollm2 or (to evaluate) server:URL#MODEL",
            fix="check the path",
        )
    return _on_hub(text, offline, base, headers_only)


def _elsewhere(spec: str) -> InputError:
    return InputError("a model behind a server has no weights here", where=spec, fix="only `eval` can ask it")


def _on_hub(text: str, offline: bool, base: Source | str | Path | None, headers_only: bool) -> Source:
    repo, _ = hub.parse(text) or (text, "")
    path, commit = hub.snapshot(text, offline=offline, weights=offline or not headers_only)
    if is_adapter(path):  # small: downloaded in any case
        path, _ = hub.snapshot(f"{repo}@{commit}", offline=offline)
        return _adapter(text, path, offline, base, headers_only, commit)
    if headers_only and not offline:
        return Source(text, "hub", path, commit, hub.headers(text, path, commit))
    return Source(text, "hub", path, commit, Checkpoint.open(path, identity=hub.identity(repo, commit)))


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):  # a name too long, or with NUL
        return False


def _local(text: str, path: Path, offline: bool, base: Source | str | Path | None, headers_only: bool) -> Source:
    if path.suffix == ".gguf" and not path.is_dir():
        sha256 = gguf.file_digest(path.resolve())
        folder = gguf.convert(path, sha256)
        return Source(text, "gguf", folder, sha256, Checkpoint.open(folder, identity=f"gguf:{sha256}-{gguf.CONVERTER}"))
    if path.is_file():
        fix = CONVERT if path.suffix in PICKLES else "name the folder that holds it"
        raise InputError("pickle is never read" if path.suffix in PICKLES else "a file, not a model folder", where=path, fix=fix)
    if is_adapter(path):
        return _adapter(text, checked_folder(path), offline, base, headers_only)
    return Source(text, "folder", checked_folder(path), "", Checkpoint.open(path))


def _adapter(
    text: str, path: Path, offline: bool, base: Source | str | Path | None, headers_only: bool, commit: str = ""
) -> Source:
    adapter = Adapter.open(path)
    under = base if isinstance(base, Source) or base is None else resolve(base, offline=offline, headers_only=headers_only)
    if under is not None and under.checkpoint is None:
        raise InputError("the base of an adapter must be a whole model", where=text, found=under.spec)
    source = Source(text, "adapter", path, commit, None, adapter, under)
    if under is not None:
        merged_view(under.weights, adapter)  # refuses an adapter made for another base now rather than later
    return source


def with_base(source: Source, base: Source) -> Source:
    """An adapter source laid on a base; any other source unchanged."""
    return source if source.adapter is None else replace(source, base=base)


def open_model(spec: str | Path, *, offline: bool = False) -> Checkpoint:
    """The checkpoint of a whole model. Raises InputError for an adapter, with the way to merge it."""
    source = resolve(spec, offline=offline)
    if source.kind == SERVER:
        raise _elsewhere(source.spec)
    if source.checkpoint is None:
        raise InputError(
            "a LoRA adapter, not a whole model", where=str(spec), fix="merge it first, or name it with its base: --base MODEL"
        )
    return source.checkpoint
