"""What a larger vocabulary costs and saves: bytes, parameters, arithmetic. From a model's headers; no weight is read.

Arithmetic is counted as usual: two operations a parameter and token forward (Kaplan et al. 2020, arXiv 2001.08361, §2.1), two more
for gradients of activations, two more for gradients of weights. Attention over the text so far is left out: it is the same for the
same number of tokens, and shorter with fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.vocab.tables import Side, stored, tables


@dataclass(frozen=True)
class Shape:
    """A model in numbers: `rows` of its tables of `width`, `tables` of them (1: tied), `itemsize` bytes of a number in them; `body`
    parameters and bytes of everything else, and of it `active` for one token (of a mixture, the experts that are asked)."""

    rows: int
    width: int
    tables: int
    itemsize: int
    body: int
    body_bytes: int
    active: int
    active_bytes: int
    context: int | None

    @classmethod
    def of(cls, weights: Weights, anatomy: Anatomy) -> Shape:
        found = tables(weights, anatomy)
        rows, width = found["in"].shape
        own = set(stored(weights, anatomy))
        asked = _asked(anatomy.config)
        body = body_bytes = active = active_bytes = 0.0
        for key, t in weights.tensors.items():
            if key in own:
                continue
            part = anatomy.parts[key]
            share = asked if part.role.startswith("experts") or part.expert is not None else 1.0
            body, body_bytes = body + t.numel, body_bytes + t.nbytes
            active, active_bytes = active + share * t.numel, active_bytes + share * t.nbytes
        sides: list[Side] = list(found)
        size = max(found[side].weights.tensors[found[side].key].itemsize for side in sides)
        return cls(rows, width, len(found), size, int(body), int(body_bytes), int(active), int(active_bytes), anatomy.context)

    def table_parameters(self, rows: int) -> int:
        return self.tables * rows * self.width

    def parameters(self, rows: int) -> int:
        """Of the whole model with so many rows."""
        return self.body + self.table_parameters(rows)

    def share(self, rows: int) -> float:
        """Of all parameters, those in the tables."""
        return self.table_parameters(rows) / self.parameters(rows)

    def bytes(self, rows: int) -> int:
        """Of the whole model with so many rows."""
        return self.body_bytes + self.table_parameters(rows) * self.itemsize

    def moved(self, rows: int) -> int:
        """Bytes of weights that one token moves when it is generated: what is active of the body, and all of the head."""
        return self.active_bytes + rows * self.width * self.itemsize

    def forward(self, rows: int) -> int:
        """Operations of one token, the head's among them."""
        return 2 * (self.active + rows * self.width)

    def training(self, rows: int, body: bool = False) -> int:
        """Operations of one token of continued pretraining: of embedding and head alone, or of the `body` too.

        Gradients pass through a frozen body all the same: twice forward for it, three times for the head.
        """
        return (6 if body else 4) * self.active + 6 * rows * self.width


def _asked(config: dict[str, Any]) -> float:
    """Share of a mixture's experts that one token goes through."""
    total = next((int(config[n]) for n in ("num_local_experts", "num_experts", "n_routed_experts") if config.get(n)), 0)
    return min(1.0, int(config.get("num_experts_per_tok") or total) / total) if total else 1.0


def break_even(training: float, before: float, after: float) -> float | None:
    """Characters that must be served until the arithmetic of training is saved; None where a character costs no less than before.

    `before` and `after` are operations a character.
    """
    return training / (before - after) if before > after else None
