"""Run folders: steps under names made from their content, so that the same command again skips what is unchanged.

```
runs/<name>/recipe.yaml  recipe.resolved.yaml  run.json  run.lock  report.html
            steps/<id>-<key>/manifest.json  result.json  model/
            steps/<id>-<key>.partial/       never looked at except to resume a step or to be removed
```
A step is done if its folder has a manifest and the sizes match; `verify` hashes everything.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from polygraft.errors import InputError, UserError
from polygraft.files import (
    MANIFEST,
    Problem,
    now,
    partial_path,
    read_json,
    resource_errors,
    verify_folder,
    write_atomic,
    write_json,
)
from polygraft.lock import lock
from polygraft.redact import redact
from polygraft.result import Result
from polygraft.samplelog import SampleLog

__all__ = ["RunFolder", "SampleLog", "lock", "read_result", "redact", "verify_run", "write_result"]

KEY_LENGTH = 12
# ------------------------------------------------------------------------------------------------------------ run folder


class RunFolder:
    """The folder of one recipe's runs. Making the object touches nothing on disk."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def step(self, id: str, key: str) -> Path:
        """Where the step's output lives, or will."""
        return self.path / "steps" / f"{id}-{key[:KEY_LENGTH]}"

    def state(self, folder: Path) -> str | None:
        """None if the step in `folder` is done, else why it must run: "not made yet", "interrupted" or what is damaged."""
        if not (folder / MANIFEST).is_file():
            return "interrupted before" if partial_path(folder).is_dir() else "not made yet"
        try:
            problems = verify_folder(folder, full=False)
        except UserError as e:
            return f"its folder is damaged ({e.what})"
        return f"its folder is damaged ({problems[0].file}: {problems[0].what})" if problems else None

    def clear(self, keep: Iterable[Path] = ()) -> list[Path]:
        """Remove what interrupted steps left, except the folders in `keep`. Only under the lock."""
        kept = set(keep)
        left = [p for p in sorted(self.path.glob("steps/*.partial")) if p not in kept]
        for path in left:
            shutil.rmtree(path)
        return left

    def begin(self, recipe_text: str, resolved_text: str, steps: list[tuple[str, str, Path]]) -> None:
        """Write what this run is: the recipe as typed, with every default, and which folder belongs to which step."""
        with resource_errors(self.path):
            (self.path / "steps").mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / "recipe.yaml", redact(recipe_text).encode())
        write_atomic(self.path / "recipe.resolved.yaml", redact(resolved_text).encode())
        rows = [{"id": id, "use": use, "folder": folder.name} for id, use, folder in steps]
        write_json(self.path / "run.json", {"started": now(), "steps": rows})

    def folders(self) -> list[Path]:
        """The finished step folders of the latest run, in recipe order. Raises InputError when this is not a run folder."""
        if not (self.path / "run.json").is_file() and (self.path / "result.json").is_file():
            raise InputError("what a single verb made has no report", where=self.path, expected="a run folder",
                             fix="put the recipe that the verb printed into a file, and `polygraft run` it")
        if not (self.path / "run.json").is_file():
            raise InputError("not a run folder", where=self.path, expected="run.json in it", fix="name a folder under runs/")
        index = read_json(self.path / "run.json")
        folders = [self.path / "steps" / str(Path(row["folder"]).name) for row in index["steps"]]
        return [f for f in folders if (f / MANIFEST).is_file()]

    def results(self) -> list[Result]:
        """The results of the finished steps of the latest run, in recipe order."""
        return [read_result(folder) for folder in self.folders()]


def write_result(folder: Path, result: Result) -> None:
    write_json(folder / "result.json", redact(result.to_json()))


def read_result(folder: Path) -> Result:
    """The Result that a step left in its folder. Raises InputError when there is none or it is not one."""
    path = Path(folder) / "result.json"
    try:
        return Result.from_json(read_json(path))
    except (TypeError, KeyError, AttributeError) as e:
        raise InputError("not the result of a step", where=path, found=str(e)[:120]) from e


def verify_run(path: Path) -> list[Problem]:
    """Hash every file of every finished step (of all runs) of a run folder; problems are named `<step folder>/<file>`."""
    steps = sorted(p for p in (Path(path) / "steps").glob("*") if p.is_dir() and not p.name.endswith(".partial"))
    if not steps and (Path(path) / "run.json").is_file():
        raise InputError("no step of this run is finished yet", where=path, fix="run its recipe again: it goes on")
    if not steps:
        raise InputError("no steps here", where=path, expected="a run folder", fix="name the folder under runs/")
    found = []
    for folder in steps:
        try:
            problems = verify_folder(folder)
        except UserError as e:
            problems = [Problem(MANIFEST, e.what)]
        found += [Problem(f"{folder.name}/{p.file}", p.what) for p in problems]
    return found
