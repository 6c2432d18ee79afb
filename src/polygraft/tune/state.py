"""Training state on disk as safetensors and JSON: weights, optimiser, schedule, random numbers. Nothing is ever unpickled.

transformers' Trainer keeps optimiser and random state as pickles; ours are plain tensors and numbers, committed whole, checked by
digest before they are used, so that a run cut at any moment goes on exactly where its last complete state stood.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polygraft import arrays
from polygraft.files import MANIFEST, commit, read_json, verify_folder, write_json

PREFIX = "step-"
TENSORS = "state.safetensors"
HISTORY = "trainer_state.json"  # transformers looks for step and losses under this name


Json = Mapping[str, Any]


def save(folder: Path, step: int, job: str, tensors: Mapping[str, Any], facts: Json, history: Json) -> Path:
    """Commit the state after `step` to `folder/step-N` and remove older ones. `job` says which training it belongs to.

    Nothing is copied but what lies on a GPU, one tensor at a time.

    `tensors`: name -> torch tensor; `facts`: JSON; `history`: JSON that transformers reads by itself (step, losses so far).
    Raises ResourceError when the disk is full; older states then stay.
    """
    out = folder / name(step)
    if out.exists():
        shutil.rmtree(out)
    with commit(out, {"kind": "training state", "job": job, "step": step}) as part:
        arrays.write(part / TENSORS, Tensors(tensors))
        write_json(part / "state.json", dict(facts))
        write_json(part / HISTORY, dict(history))
    for old in _states(folder):
        if old != out:
            shutil.rmtree(old, ignore_errors=True)
    return out


def name(step: int) -> str:
    """The folder of the state after `step`."""
    return f"{PREFIX}{step:07d}"


def latest(folder: Path, job: str) -> Path | None:
    """The newest state of this job that is complete and undamaged (every digest is checked)."""
    for path in reversed(_states(folder)):
        if not (path / MANIFEST).is_file():  # a run was killed while it cleared an old state away
            continue
        if not verify_folder(path) and read_json(path / MANIFEST).get("job") == job:
            return path
    return None


def _states(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(PREFIX + "*") if p.is_dir() and p.name.removeprefix(PREFIX).isdecimal())


class Tensors(Mapping[str, Any]):
    """Torch tensors as numpy arrays, each made when it is asked for."""

    def __init__(self, tensors: Mapping[str, Any]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> Any:
        return self._tensors[name].detach().cpu().contiguous().numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def tensors(path: Path, prefix: str) -> dict[str, Any]:
    """The tensors of a state whose names begin with `prefix`, without it; the others are not read."""
    import torch

    found = arrays.Arrays(path / TENSORS)
    return {name.removeprefix(prefix): torch.from_numpy(found[name]) for name in found if name.startswith(prefix)}


def facts(path: Path) -> dict[str, Any]:
    """The JSON of a state."""
    found: dict[str, Any] = read_json(path / "state.json")
    return found


# -------------------------------------------------------------------------------------------------- optimiser, random numbers


def split_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An optimiser's `state_dict` as (tensors by name, JSON)."""
    import torch

    tensors: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for index, slots in state["state"].items():
        for name, value in slots.items():
            (tensors if torch.is_tensor(value) else numbers)[f"{index}.{name}"] = value
    return tensors, {"numbers": numbers, "param_groups": state["param_groups"]}


def join_optimizer(tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `split_optimizer`."""
    slots: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *facts["numbers"].items()]:
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in g.items()} for g in facts["param_groups"]]
    return {"state": slots, "param_groups": groups}


def random_state() -> tuple[dict[str, Any], dict[str, Any]]:
    """Every generator that training draws from, as (tensors, JSON)."""
    import numpy as np
    import torch

    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    kind, keys, *rest = np.random.get_state(legacy=True)  # type: ignore[misc]
    version, words, gauss = random.getstate()
    return tensors, {"python": [version, list(words), gauss], "numpy": [kind, [int(k) for k in keys], *rest]}


def set_random_state(tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """The inverse of `random_state`."""
    import numpy as np
    import torch

    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    kind, keys, *rest = facts["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, words, gauss = facts["python"]
    random.setstate((version, tuple(words), gauss))
