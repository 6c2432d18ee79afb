"""Which layers a swap takes from where: bottom and top zones, and the transitions on their inner sides.

Bandarkar et al., "Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large Language Models" (arXiv 2410.01335). With L layers,
layer 0 next to the embedding: layers < b and >= L-u are the language expert's, the t layers inside each of them are blended, the
rest is the task expert's. The published 5/2/1 at 32 layers is scaled by L and rounded (half to even, as Python rounds).
"""

from __future__ import annotations

from dataclasses import dataclass

from polygraft.errors import RecipeError

PUBLISHED = {"bottom": 5, "top": 2, "transition": 1}
PUBLISHED_LAYERS = 32


@dataclass(frozen=True)
class Zones:
    """Layer counts: `bottom` and `top` swapped, `t_bottom` and `t_top` blended on their inner sides, of `layers` in all."""

    layers: int
    bottom: int
    top: int
    t_bottom: int
    t_top: int

    def zone(self, layer: int) -> str:
        """ "swapped", "transition" or "task"."""
        if layer < self.bottom or layer >= self.layers - self.top:
            return "swapped"
        return "task" if self.step(layer) is None else "transition"

    def step(self, layer: int) -> tuple[int, int] | None:
        """(k, T) of a transition layer, its k-th of T counted from the swapped side (k = 1..T); None elsewhere."""
        up, down = layer - self.bottom + 1, self.layers - self.top - layer
        if 1 <= up <= self.t_bottom:
            return up, self.t_bottom
        if 1 <= down <= self.t_top:
            return down, self.t_top
        return None


def scaled(name: str, layers: int) -> int:
    """The published value of `bottom`, `top` or `transition` for a model of this depth."""
    return round(PUBLISHED[name] * layers / PUBLISHED_LAYERS)


def zones(
    layers: int,
    *,
    bottom: int | None = None,
    top: int | None = None,
    transition: int | None = None,
    t_bottom: int | None = None,
    t_top: int | None = None,
) -> Zones:
    """Fill in what was not typed and refuse what does not fit.

    A side without swapped layers has no transition. A transition that was typed must fit into the task zone; the default one
    shrinks to the room there is (so that b + u = L means the language expert). Raises RecipeError.
    """
    typed = {"bottom": bottom, "top": top, "transition": transition, "t_bottom": t_bottom, "t_top": t_top}
    for name, value in typed.items():
        if value is not None and not 0 <= value <= layers:
            raise RecipeError("not a number of this model's layers", where=name, found=value, expected=f"0 to {layers}")
    b = scaled("bottom", layers) if bottom is None else bottom
    u = scaled("top", layers) if top is None else top
    if b + u > layers:
        raise RecipeError(
            "the swapped zones overlap",
            where="bottom, top",
            found=f"{b} + {u} = {b + u} layers",
            expected=f"at most {layers}, the model's layers",
            fix=f"for example bottom={layers - min(u, layers)}",
        )
    sides = [t if t is not None else transition for t in (t_bottom, t_top)]
    free, default = layers - b - u, scaled("transition", layers)
    tb = (min(default, free) if sides[0] is None else sides[0]) if b else 0
    tu = (min(default, free - min(tb, free)) if sides[1] is None else sides[1]) if u else 0
    if tb + tu > free:
        raise RecipeError(
            "the transition does not fit into the task zone",
            where="transition",
            found=f"{tb} + {tu} layers of transition",
            expected=f"at most {free}, what bottom={b} and top={u} leave of {layers}",
            fix="use a smaller transition, or swap fewer layers",
        )
    return Zones(layers, b, u, tb, tu)
