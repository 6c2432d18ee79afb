"""What a study asks of whoever can evaluate and analyse: nats, tasks, language subspaces, neurons of languages.

Packages of one level know nothing of each other; `steps` brings them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from polygraft.prune.harm import Judge

if TYPE_CHECKING:
    import numpy as np

    from polygraft.errors import UserError
    from polygraft.step import Context

# `task language metric` -> (sums over items [n], sizes [n], unit, whether higher is better); the same items every time
Columns = Mapping[str, tuple["np.ndarray", "np.ndarray", str, bool]]


class Subspace(Protocol):
    """Directions that differ between languages: `basis` float64 [D, r], orthonormal columns."""

    @property
    def basis(self) -> np.ndarray: ...


class Specific(Protocol):
    """Neurons of languages: `score` [layers, neurons], `owned` bool [layers, neurons, languages], `thresholds` filter and bar."""

    @property
    def score(self) -> np.ndarray: ...
    @property
    def owned(self) -> np.ndarray: ...
    @property
    def thresholds(self) -> Mapping[str, float]: ...


class Evaluation(Protocol):
    """Tasks whose items were chosen once, asked of models in memory. `identity`: of the model that is asked now."""

    identity: str

    def ask(self, live: Any, label: str) -> Columns: ...


@dataclass(frozen=True)
class Around:
    """judge: loads models and reads texts; lsar(means [D, K]) -> the languages' subspace; lape(p [layers, neurons, languages], real
    [layers, neurons]) -> their neurons; entropy(p) -> [layers, neurons]; planned and make: of an evaluation's settings (tasks,
    langs, data, limit, shots, seed): what is wrong with them, and the evaluation."""

    judge: Judge
    lsar: Callable[[np.ndarray], Subspace]
    lape: Callable[[np.ndarray, np.ndarray], Specific]
    entropy: Callable[[np.ndarray], np.ndarray]
    planned: Callable[[Mapping[str, Any], Context], tuple[float, int, Sequence[UserError]]]
    make: Callable[[Mapping[str, Any], Context, Any], Evaluation]
