"""Makers of profiles: pure functions of an Anatomy and numbers.

swap     arXiv 2410.01335 (layer swapping): bottom and top layers from the language expert
revert   arXiv 2505.18356 (train-then-revert): a swap whose other source is the base
soup     arXiv 2203.05482 (model soups): weighted mean
task     arXiv 2212.04089 (task arithmetic): base + sum_i s_i (theta_i - base)
ties     arXiv 2306.01708;  dare_ties adds the random drop of arXiv 2311.03099
slerp    spherical interpolation (Shoemake 1985) of two sources, a t per kind of part
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from polygraft.anatomy import Anatomy, Part
from polygraft.errors import RecipeError, suggestion
from polygraft.merge.profile import Profile
from polygraft.merge.zones import Zones, zones
from polygraft.selectionfile import Entry, whole

Policy = Literal["task", "language", "mean", "base"]
Weighting = Literal["plain", "magnitude", "ramp"]
Kind = Literal["attn", "ffn", "norm"]
PARTS: tuple[Kind, ...] = get_args(Kind)
GROUPS = ("embed", "norm", "head")


def group(part: Part) -> str | None:
    """Which of `--embed`, `--norm`, `--head` rules a tensor outside the layers; None: it follows the task expert."""
    return {"embed": "embed", "position": "embed", "final_norm": "norm", "norm": "norm", "head": "head"}.get(part.kind)


def policies(tied: bool, embed: str | None, norm: str | None, head: str | None, default: str = "mean") -> dict[str, str]:
    """The source of each group outside the layers. Tied embeddings are one tensor: two different answers are refused."""
    if tied and embed is not None and head is not None and embed != head:
        raise RecipeError(
            "this model ties its embedding and head: they are one tensor and take one source",
            where="embed, head",
            found=f"embed={embed}, head={head}",
            expected="the same source for both",
            fix="leave one of them out",
        )
    if tied:
        embed = head = embed if embed is not None else head
    return {"embed": embed or default, "norm": norm or default, "head": head or default}


def swap(
    anatomy: Anatomy,
    *,
    bottom: int | None = None,
    top: int | None = None,
    transition: int | None = None,
    t_bottom: int | None = None,
    t_top: int | None = None,
    weights: Weighting = "plain",
    shares: tuple[float, float] = (0.5, 0.5),
    embed: Policy | None = None,
    norm: Policy | None = None,
    head: Policy | None = None,
    parts: Sequence[str] = PARTS,
    base: bool = False,
    names: Sequence[str] = ("task", "language", "base"),
) -> Profile:
    """The task expert with its outer layers replaced by the language expert's.

    `shares` are the weights (task, language) of a blend: 0.5 each, or proportional to 1/mean|delta| for `magnitude`. `ramp` goes
    from language to task in a transition of T layers: the k-th from the swapped side has k/(T+1) of the task expert.
    `parts` are the kinds of layer tensors that are swapped; the others stay the task expert's. Raises RecipeError.
    """
    z = zones(anatomy.layers, bottom=bottom, top=top, transition=transition, t_bottom=t_bottom, t_top=t_top)
    rules = policies(anatomy.tied, embed, norm, head)
    _known(parts, PARTS, "parts")
    for name, rule in rules.items():
        _known([rule], get_args(Policy), name)
        if rule == "base" and not base:
            raise RecipeError(
                "takes its weights from the base, and no base is named",
                where=name,
                found="base",
                fix="name the base model, or choose task, language or mean",
            )
    vectors = {"task": (1.0, 0.0, 0.0), "language": (0.0, 1.0, 0.0), "mean": (*shares, 0.0), "base": (0.0, 0.0, 1.0)}
    n = 3 if base else 2

    def vector(part: Part) -> tuple[float, ...]:
        if part.layer is None:
            return vectors[rules.get(group(part) or "", "task")][:n]
        return _layer_vector(z, part, parts, weights, shares)[:n]

    params = {
        "bottom": z.bottom,
        "top": z.top,
        "t_bottom": z.t_bottom,
        "t_top": z.t_top,
        "weights": weights,
        "shares": list(shares),
        "parts": [p for p in PARTS if p in parts],
        **rules,
    }
    return Profile("swap", "linear", tuple(names[:n]), {k: vector(p) for k, p in anatomy.parts.items()}, params)


def _layer_vector(
    z: Zones, part: Part, parts: Sequence[str], weights: str, shares: tuple[float, float]
) -> tuple[float, float, float]:
    zone = z.zone(part.layer or 0)
    if zone == "task" or part.kind not in parts:
        return 1.0, 0.0, 0.0
    if zone == "swapped":
        return 0.0, 1.0, 0.0
    if weights != "ramp":
        return *shares, 0.0
    k, t = z.step(part.layer or 0) or (1, 1)
    return k / (t + 1), 1 - k / (t + 1), 0.0


def revert(
    anatomy: Anatomy,
    *,
    zone: Literal["outer", "middle"] = "outer",
    names: Sequence[str] = ("expert", "base"),
    embed: str | None = None,
    norm: str | None = None,
    head: str | None = None,
    **swapped: Any,
) -> Profile:
    """The expert with its outer (or middle) layers put back to the base: a swap whose other source is the base.

    What is outside the layers stays the expert's unless `embed`, `norm` or `head` say base or mean.
    """
    words = {"outer": {"expert": "task", "base": "language"}, "middle": {"expert": "language", "base": "task"}}[zone] | {
        "mean": "mean"
    }
    rules = policies(anatomy.tied, embed, norm, head, default="expert")
    for name, rule in rules.items():
        _known([rule], words, name)
    made = swap(anatomy, **{k: words[r] for k, r in rules.items()}, **swapped)  # type: ignore[arg-type]
    flip = zone == "middle"
    weights = {k: (w[::-1] if flip else w) for k, w in made.weights.items()}
    if flip:  # what is neither swapped nor ruled by a policy (buffers, towers) stays the expert's, as in the outer case
        weights |= {k: (1.0, 0.0) for k, p in anatomy.parts.items() if _unruled(p)}
    return Profile("revert", "linear", tuple(names), weights, {"zone": zone, **made.params, **rules})


def revert_selected(anatomy: Anatomy, entries: Iterable[Entry], names: Sequence[str] = ("expert", "base")) -> Profile:
    """The expert with the selected parts put back to the base; everything else stays the expert's.

    Raises InputError for parts that this model does not have, and for rows: each tensor comes from one source.
    """
    chosen = whole(entries, anatomy)
    if not chosen:
        raise RecipeError("nothing is selected, so nothing would be put back", where="select", fix="name another selection")
    weights: dict[str, tuple[float, ...]] = {key: (0.0, 1.0) if key in chosen else (1.0, 0.0) for key in anatomy.parts}
    return Profile("revert", "linear", tuple(names), weights, {"selected": sorted(chosen)})


def _unruled(part: Part) -> bool:
    return group(part) is None if part.layer is None else part.kind not in PARTS


def soup(anatomy: Anatomy, names: Sequence[str], weights: Sequence[float] | None = None) -> Profile:
    """The weighted mean of all sources; weights are divided by their sum, and are equal when not given."""
    given = [1.0] * len(names) if weights is None else [float(w) for w in weights]
    _same_length(given, names, "weights")
    if len(names) < 2:
        raise RecipeError("a soup needs at least two models", where="models", found=len(names))
    if any(w < 0 for w in given) or sum(given) <= 0:
        raise RecipeError("not weights of a mean", where="weights", found=given, expected="numbers >= 0, not all 0")
    share = tuple(w / sum(given) for w in given)
    return Profile("soup", "linear", tuple(names), dict.fromkeys(anatomy.parts, share), {"weights": list(share)})


def task(anatomy: Anatomy, names: Sequence[str], scales: Sequence[float]) -> Profile:
    """base + sum_i scale_i (theta_i - base); `names[0]` is the base, `scales` has one number per expert."""
    _same_length(scales, names[1:], "scales")
    vector = (1.0 - sum(scales), *map(float, scales))
    if scales and abs(vector[0]) < 1e-15:
        vector = (0.0, *vector[1:])
    return Profile(
        "task", "linear", tuple(names), dict.fromkeys(anatomy.parts, vector), {"scales": list(map(float, scales))}, anchor=0
    )


def ties(
    anatomy: Anatomy, names: Sequence[str], weights: Sequence[float] | None = None, *, density: float = 0.2, scale: float = 1.0
) -> Profile:
    """TIES-merging: keep the largest entries of each task vector, elect a sign, add `scale` times the mean of what agrees.

    `names[0]` is the base. The defaults are the paper's (top 20 %, lambda 1).
    """
    return _vectors("ties", anatomy, names, weights, {"density": density, "scale": scale})


def dare_ties(
    anatomy: Anatomy,
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    density: float = 0.5,
    scale: float = 1.0,
    seed: int = 0,
) -> Profile:
    """DARE, then TIES' sign election: entries are kept with probability `density` and divided by it.

    The draw depends on the seed, the tensor's key and the source's name.
    """
    return _vectors("dare_ties", anatomy, names, weights, {"density": density, "scale": scale, "seed": seed})


def _vectors(
    method: str, anatomy: Anatomy, names: Sequence[str], weights: Sequence[float] | None, params: dict[str, Any]
) -> Profile:
    given = [1.0] * (len(names) - 1) if weights is None else [float(w) for w in weights]
    _same_length(given, names[1:], "weights")
    if not 0.0 <= params["density"] <= 1.0:
        raise RecipeError("not a share", where="density", found=params["density"], expected="0 to 1")
    if any(w < 0 for w in given):
        raise RecipeError("not weights", where="weights", found=given, expected="numbers >= 0")
    vector = (0.0, *given)
    return Profile(method, method, tuple(names), dict.fromkeys(anatomy.parts, vector), {**params, "weights": given})


def slerp(anatomy: Anatomy, names: Sequence[str], t: float | Mapping[str, float] = 0.5) -> Profile:
    """Spherical interpolation from the first source (t = 0) to the second (t = 1); `t` may differ per kind of part.

    Keys of `t` are kinds (embed, attn, ffn, norm, final_norm, head, ...) or labels such as `attn.q`, and `other` for the rest.
    """
    by = {"other": float(t)} if isinstance(t, int | float) else dict(t)
    known = {"other", *(p.kind for p in anatomy.parts.values()), *(p.label for p in anatomy.parts.values())}
    _known(by, known, "t")
    for name, value in by.items():
        if not 0.0 <= value <= 1.0:
            raise RecipeError("not between the two models", where=f"t.{name}", found=value, expected="0 to 1")
    if anatomy.tied and (by.get("embed", by.get("other", 0.5)) != by.get("head", by.get("embed", by.get("other", 0.5)))):
        raise RecipeError("this model ties its embedding and head: they are one tensor", where="t.head", fix="give only t.embed")
    at = {k: by.get(p.label, by.get(p.kind, by.get("other", 0.5))) for k, p in anatomy.parts.items()}
    return Profile("slerp", "slerp", tuple(names), {k: (1.0 - v, v) for k, v in at.items()}, {"t": by})


def _same_length(values: Sequence[Any], names: Sequence[str], where: str) -> None:
    if len(values) != len(names):
        raise RecipeError(
            "one number per model is needed", where=where, found=f"{len(values)} numbers", expected=f"{len(names)} models"
        )


def _known(words: Any, known: Any, where: str) -> None:
    for word in words:
        if word not in known:
            raise RecipeError(f"unknown value `{word}`", where=where, fix=suggestion(str(word), known))
