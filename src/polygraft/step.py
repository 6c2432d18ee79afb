"""How a recipe calls a method: `Step`, what planning one says (`Plan`), and what it may ask of its surroundings (`Context`).

A method's `steps.py` writes a pydantic config (`Strict`), a `plan` and a `run`; nothing here does any work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel

from polygraft import languages
from polygraft.config import Unfit
from polygraft.errors import RecipeError, UserError
from polygraft.result import LayerMap, Result

if TYPE_CHECKING:
    from polygraft.sources import Source


LABELLED = re.compile(r"(?P<label>[A-Za-z0-9][A-Za-z0-9_-]*)=(?=.)", re.DOTALL)


class Name(str):
    """The value of a field that refers to something. Its type is how a recipe finds what a config names, however deep."""

    @property
    def target(self) -> str:
        """The path, id or model that is meant, without what is picked from it."""
        return str(self)

    def at(self, target: str) -> str:
        """The same reference to what lies at another place."""
        return target


class ModelName(Name):
    """The value of a `ModelRef` field."""


class DataName(Name):
    """The value of a `DataRef` field."""

    def parts(self, path: Path) -> list[Path]:
        """Other files whose content decides what this one means."""
        return []


class LabelledName(DataName):
    """The value of a `LabelledRef` field: `sw=PATH`, or a path alone. A path whose name holds `=` is written `./a=b.jsonl`."""

    @property
    def label(self) -> str:
        """What stands before the path, "" where nothing does."""
        found = LABELLED.match(self)
        return found["label"] if found else ""

    @property
    def target(self) -> str:
        return self[len(self.label) + 1 :] if self.label else str(self)

    def at(self, target: str) -> str:
        return f"{self.label}={target}" if self.label else target


class FolderName(Name):
    """The value of a `FolderRef` field."""


class PickedName(FolderName):
    """`ID_OR_FILE[:NAME[+NAME]]`: what holds something named, and which of it."""

    @property
    def target(self) -> str:
        from polygraft.selectionfile import split  # needs numpy, which planning other steps does not

        return split(self)[0]

    @property
    def names(self) -> str:
        """What follows the colon, "" where nothing does."""
        return str(self)[len(self.target) + 1 :]

    def at(self, target: str) -> str:
        return f"{target}:{self.names}" if self.names else target


class SelectName(PickedName):
    """The value of a `SelectRef` field: what holds a selection file, and which of its selections."""


def _tag(word: str) -> str:
    try:
        return languages.check(word)
    except RecipeError as e:
        raise Unfit(e.what, found=e.found, expected=e.expected, fix=e.fix) from None


class Detail:
    """Marks a field that says how a step works, not what it computes: `batch: Annotated[int, Detail] = 8`.

    Changing such a field (batch size, device, threads) does not make a finished step run again.
    """


ModelRef = Annotated[str, AfterValidator(ModelName)]  # a name under `models:`, an earlier step's id, or a path / hub id
DataRef = Annotated[str, AfterValidator(DataName)]  # a path, relative to the recipe's folder, or what the step itself understands
LabelledRef = Annotated[str, AfterValidator(LabelledName)]  # the same, with a label in front: sw=PATH
FolderRef = Annotated[str, AfterValidator(FolderName)]  # what a step wrote: an earlier step's id, or a folder or file on disk
SelectRef = Annotated[str, AfterValidator(SelectName)]  # ID_OR_FILE[:NAME[+NAME]], for `selectionfile.pick`
Language = Annotated[str, AfterValidator(_tag)]  # a language's tag, however it was written: ru, rus_Cyrl, Russian


@dataclass(frozen=True)
class Plan:
    """What a step would do and cost, told from headers: bytes, seconds, and every reason why it would fail.

    `peak_bytes` is resident memory, `disk_bytes` what the output takes, `like` the source whose shapes the made model will
    have, so that later steps can be planned before it exists.
    """

    lines: tuple[str, ...] = ()
    peak_bytes: int = 0
    disk_bytes: int = 0
    read_bytes: int = 0
    seconds: float = 0.0
    maps: tuple[LayerMap, ...] = ()
    problems: tuple[str | UserError, ...] = ()
    notes: tuple[str, ...] = ()
    like: Source | None = None


def _quiet(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Context:
    """What a step may ask for: `model`, `data` and `folder` turn a reference of its config into a Source, a path, and the path of
    what a step wrote (the target of a `SelectRef`, too). They raise InputError; while planning NotMade for what has yet to be made.

    `progress(done, total, text)` may be called as often as one likes. `planning` is true while only headers may be read; `probe`
    while a plan may, beyond that, do a little of the work to measure it.
    """

    model: Callable[[str], Source]
    data: Callable[[str], Path]
    progress: Callable[..., None] = _quiet
    offline: bool = False
    step_id: str = ""
    planning: bool = False
    probe: bool = False
    folder: Callable[[str], Path] = Path


@dataclass(frozen=True)
class Step:
    """One row of the table of steps. `merge.swap@1` means the same for ever; a change of meaning is a new version.

    `plan(config, context)` reads headers only and imports neither torch nor transformers. `run(config, context, folder)` writes
    below the folder that it is given, which becomes visible only when it has returned; a step that `makes_model` writes the
    model (or adapter) to `folder / "model"`. A `resumable` step finds there what an interrupted run of the same step left.
    A `parallel` step shares its work among processes (`ranks`). A step that `probes` can plan by measuring (`Context.probe`).
    A step that reads `headers` alone of models leaves those on a hub where they are. `asks_folder(config)`: whether what it
    writes is asked for by this config, so that a command without a folder for it would throw it away.
    """

    name: str
    version: int
    config: type[BaseModel]
    plan: Callable[[Any, Context], Plan]
    run: Callable[[Any, Context, Path], Result]
    makes_model: bool = False
    resumable: bool = False
    parallel: bool = False
    probes: bool = False
    headers: bool = False
    asks_folder: Callable[[Any], bool] = lambda _config: False

    @property
    def use(self) -> str:
        return f"{self.name}@{self.version}"
