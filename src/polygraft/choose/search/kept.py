"""What a search that was cut off had been answered: files in its folder, one a call, read by the next run of the same search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import arrays, files
from polygraft.merge.profile import Profile

FOLDER = "scores"
VALUE, GREEDY, SECONDS = range(3)


@dataclass
class Kept:
    """Answers by profile and row. `about` names all else that decides one (rows, sources, how it is computed): what another search
    left in the folder is never read. Every answer has its share of the seconds that its call took."""

    folder: Path
    about: str
    rows: int
    calls: int = 0
    _known: dict[str, np.ndarray] = field(default_factory=dict)  # float64 [3, rows]: value, greedy, seconds; NaN: not answered

    @classmethod
    def open(cls, folder: Path, rows: Sequence[Sequence[int]], scored: Sequence[int], near: Mapping[str, Profile],
             how: Any) -> Kept:
        """Read what is there. how: as JSON, the sources' identities and whatever else makes other numbers of the same rows."""
        said = {name: told(profile) for name, profile in near.items()}
        kept = cls(folder / FOLDER, files.digest([list(map(list, rows)), list(scored), said, how])[:32], len(rows))
        for path in sorted(kept.folder.glob(f"{kept.about}-*.safetensors")):
            kept._take(arrays.Arrays(path))
            kept.calls += 1
        return kept

    def of(self, profile: Profile) -> np.ndarray | None:
        """float64 [3, rows] (value, greedy, seconds), NaN where it was not answered; None where nothing was."""
        return self._known.get(files.digest(told(profile)))

    def add(self, profiles: Sequence[Profile], rows: Sequence[int], values: np.ndarray, greedy: np.ndarray, seconds: float) -> None:
        """Write the answers of one call: values float64 [profiles, rows], greedy bool."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = np.array([list(bytes.fromhex(files.digest(told(p)))) for p in profiles], np.uint8)
        arrays.write(self.folder / f"{self.about}-{self.calls:06d}.safetensors",
                     {"profiles": names, "rows": np.array(rows, np.int64), "values": values, "greedy": np.asarray(greedy, bool),
                      "seconds": np.array([seconds])})
        self.calls += 1

    def _take(self, found: arrays.Arrays) -> None:
        rows, values, greedy = found["rows"], found["values"], found["greedy"]
        for name, value, sure in zip(found["profiles"], values, greedy):
            known = self._known.setdefault(name.tobytes().hex(), np.full((3, self.rows), np.nan))
            known[VALUE, rows], known[GREEDY, rows], known[SECONDS, rows] = value, sure, found["seconds"][0] / values.size


def told(profile: Profile) -> dict[str, Any]:
    """What decides a profile's numbers, without what it is called."""
    said = {k: v for k, v in profile.to_json().items() if k not in ("name", "params")}
    return said | ({} if profile.method in ("linear", "slerp") else {"params": profile.params})
