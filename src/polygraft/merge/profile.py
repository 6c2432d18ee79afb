"""Profile: how much of which source every tensor of the result takes. Makers fill it; the engine follows it; a card prints it.

`method` says how the weights are meant:
  linear     sum_i w_i theta_i          (swap, soup, revert, task arithmetic: all weights sum to 1)
  slerp      spherical interpolation of two sources, weights (1 - t, t)
  ties       TIES-merging of task vectors over sources[0], the base (weight 0 there; the experts' weights elsewhere)
  dare_ties  the same after dropping entries at random
A tensor whose one weight is exactly 1 is copied byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.files import digest
from polygraft.maps import layer_map
from polygraft.result import LayerMap

VECTORS = ("ties", "dare_ties")  # methods that work on differences to sources[0]


@dataclass(frozen=True)
class Profile:
    """A total map from tensor key to the weight of each source, in the order of `sources`. `params` is what made it, as JSON."""

    name: str
    method: str
    sources: tuple[str, ...]
    weights: dict[str, tuple[float, ...]]
    params: dict[str, Any] = field(default_factory=dict)
    anchor: int | None = None  # linear: the source that differences are taken from; None: the one of largest weight

    def copied_from(self, key: str) -> int | None:
        """The one source that this tensor is copied from byte for byte, or None when it is computed."""
        weights = self.weights[key]
        if self.method in VECTORS:
            return 0 if not any(weights[1:]) else None
        used = [i for i, w in enumerate(weights) if w]
        return used[0] if len(used) == 1 and weights[used[0]] == 1.0 else None

    def used(self, key: str) -> tuple[int, ...]:
        """Which sources are read for this tensor."""
        copied = self.copied_from(key)
        if copied is not None:
            return (copied,)
        return tuple(i for i, w in enumerate(self.weights[key]) if w or (i == 0 and self.method in VECTORS))

    @property
    def blended(self) -> list[str]:
        """Keys of the tensors that are computed rather than copied."""
        return [k for k in self.weights if self.copied_from(k) is None]

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the bytes of the result, but the sources' own bytes."""
        return {
            "name": self.name,
            "method": self.method,
            "sources": list(self.sources),
            "params": self.params,
            "anchor": self.anchor,
            "weights_sha256": digest({k: list(v) for k, v in self.weights.items()}),
        }

    def maps(self, anatomy: Anatomy) -> tuple[LayerMap, ...]:
        """One layer map per source: its weight in every part of every layer (averaged over the tensors of the part).

        Of two sources that share every tensor the second is drawn: the first has the rest.
        """
        used = [i for i in range(len(self.sources)) if any(w[i] for w in self.weights.values())]
        if len(used) == 2 and all(abs(w[used[0]] + w[used[1]] - 1) < 1e-9 for w in self.weights.values()):
            used = used[1:]
        return tuple(self._map(anatomy, i) for i in used)

    def _map(self, anatomy: Anatomy, i: int) -> LayerMap:
        most = max(1.0, *(abs(w[i]) for w in self.weights.values()))
        below = any(w[i] < 0 for w in self.weights.values())  # task arithmetic takes the base away
        return part_map(
            anatomy,
            lambda key: self.weights[key][i] if key in self.weights else None,
            title=f"Weight of {self.sources[i]}",
            unit="weight",
            scale="diverging" if below else "sequential",
            low=-most if below else 0.0,
            high=most,
        )

    def text(self, anatomy: Anatomy) -> list[str]:
        """The profile in words, one line per run of equal layers, then what is outside the layers."""
        lines = [f"{self.name} ({self.method}): {', '.join(self.sources)}"]
        runs: list[tuple[int, int, str]] = []
        for layer, said in enumerate(self._layer_words(anatomy)):
            if runs and runs[-1][2] == said:
                runs[-1] = (runs[-1][0], layer, said)
            else:
                runs.append((layer, layer, said))
        lines += [f"  layers {a}-{b}: {said}" if a != b else f"  layer {a}: {said}" for a, b, said in runs]
        outside: dict[str, str] = {}
        for key, part in anatomy.parts.items():
            if part.layer is None and key in self.weights:
                outside.setdefault(part.label, self._words(key))
        return lines + [f"  {label}: {outside[label]}" for label in anatomy.outside if label in outside]

    def _layer_words(self, anatomy: Anatomy) -> list[str]:
        per_layer: list[dict[str, list[str]]] = [{} for _ in range(anatomy.layers)]
        for key, part in anatomy.parts.items():
            if part.layer is not None and key in self.weights:
                kinds = per_layer[part.layer].setdefault(self._words(key), [])
                if part.kind not in kinds:
                    kinds.append(part.kind)
        return ["; ".join(f"{', '.join(kinds)} {said}" if len(d) > 1 else said for said, kinds in d.items()) for d in per_layer]

    def _words(self, key: str) -> str:
        copied = self.copied_from(key)
        if copied is not None:
            return f"{self.sources[copied]} (copied)"
        return " + ".join(f"{self.weights[key][i]:.4g} {self.sources[i]}" for i in self.used(key) if self.weights[key][i])


def part_map(anatomy: Anatomy, value: Callable[[str], float | None], *, title: str, **look: Any) -> LayerMap:
    """A layer map of the mean of `value(key)` over the tensors of each part; None where a part has none."""
    cells: dict[tuple[str, int | None], list[float]] = {}
    for key, part in anatomy.parts.items():
        v = value(key)
        if v is not None:
            cells.setdefault((part.label, part.layer), []).append(v)
    return layer_map(anatomy, {k: sum(v) / len(v) for k, v in cells.items()}, title, **look)
