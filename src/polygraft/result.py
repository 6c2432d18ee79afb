"""What every method returns: frozen values that can be stored, compared and drawn. The report is a pure function of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: `low` and `high` bound a 95 % interval, `n` is how many items it rests on."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    verdict: str = ""  # "better", "worse", "not distinguishable" for a difference; "" for a plain number


FOUND = ("languages", "layers", "neurons", "thresholds", "tokens", "chosen")  # of an analysis, for readers of its result.json
Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; every row is as long as `columns`.

    `heat`: its estimates are a matrix that is seen as a whole; cells are coloured on one scale (for each unit) around 0.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    heat: bool = False


@dataclass(frozen=True)
class LayerMap:
    """A value for every (part, layer): layers across, parts down. `None` where a part does not exist in that layer.

    `values[r][l]` belongs to `rows[r]` and layer `l`; `outside` holds what is not in a layer (embed, final_norm, head).
    `scale`: "sequential" (low..high), "diverging" (around 0 or the middle), "categorical" (values index `labels`).
    """

    title: str
    rows: tuple[str, ...]
    layers: int
    values: tuple[tuple[float | None, ...], ...]
    outside: dict[str, float | None] = field(default_factory=dict)
    unit: str = ""
    scale: str = "sequential"
    low: float | None = None
    high: float | None = None
    labels: dict[str, str] = field(default_factory=dict)  # value as text -> meaning, for categorical maps and legends
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Series over one x axis; a series may hold None where it was not measured."""

    title: str
    x: tuple[float, ...]
    series: dict[str, tuple[float | None, ...]]
    x_label: str = ""
    y_label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One prompt with each model's answer, kept so that a person can read what the numbers stand for."""

    id: str
    language: str
    prompt: str
    outputs: dict[str, str]
    gold: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds of wall time, peak resident bytes, bytes read and written."""

    seconds: float = 0.0
    peak_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True)
class InputRef:
    """An input as it was: the words that named it, its revision, its cheap identity and the digest of its content."""

    name: str
    spec: str
    revision: str = ""
    identity: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Result:
    """One step's outcome. `summary` holds plain sentences, `caveats` what the numbers cannot tell, `data` method-specific JSON."""

    step: str
    id: str
    title: str
    summary: tuple[str, ...] = ()
    maps: tuple[LayerMap, ...] = ()
    tables: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()
    samples: tuple[Sample, ...] = ()
    cost: Cost = Cost()
    inputs: tuple[InputRef, ...] = ()
    caveats: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON value; estimates in table cells are tagged so that they come back as Estimates.

        What an analysis found stands at its top as well as in `data`, for readers that know nothing of results (`FOUND`).
        """
        found = {k: v for k, v in self.data.items() if k in FOUND} if self.step.startswith("analyze.") else {}
        return encode(found) | encode(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Result:
        """The inverse of `to_json`. Raises TypeError or KeyError on a value of another shape."""
        return decode(cls, {k: v for k, v in value.items() if k not in FOUND})


def encode(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists; table cells keep their kind."""
    if isinstance(value, Table):
        rows = [[{"estimate": encode(c)} if isinstance(c, Estimate) else c for c in row] for row in value.rows]
        heat = {"heat": True} if value.heat else {}
        return {"title": value.title, "columns": list(value.columns), "rows": rows, "note": value.note, **heat}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    return value


def decode(kind: Any, value: Any) -> Any:
    """Rebuild a value of type `kind` (a dataclass, tuple[...], dict[...] or plain type) from JSON."""
    if kind is Table:
        rows = tuple(tuple(decode(Estimate, c["estimate"]) if isinstance(c, dict) else c for c in row) for row in value["rows"])
        return Table(value["title"], tuple(value["columns"]), rows, value.get("note", ""), value.get("heat", False) is True)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{k: decode(hints[k], v) for k, v in value.items()})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(decode(get_args(kind)[0], v) for v in value)
    if get_origin(kind) is dict and get_args(kind)[1] is not Any:
        return {k: decode(get_args(kind)[1], v) for k, v in value.items()}
    return value
