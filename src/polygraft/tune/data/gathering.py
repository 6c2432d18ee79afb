"""From the files and generators that were named to the examples to train on and those held out, and what became of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polygraft.errors import InputError
from polygraft.result import InputRef, Table
from polygraft.step import LabelledName
from polygraft.tune import examples
from polygraft.tune.data import duplicates, leaks, mixture, uneven
from polygraft.tune.data.config import Mix
from polygraft.tune.data.leaks import Held, Leak
from polygraft.tune.data.split import held_out
from polygraft.tune.data.text import key, size, texts, units
from polygraft.tune.hooks import Said

Row = dict[str, Any]
SKETCHED = 20_000  # examples beyond which a plan leaves the costly stages to the run
SHOWN = 8  # leaks
STAGES = {"short": "too short", "long": "too long", "same": "duplicates", "near": "near duplicates", "leaked": "evaluation items"}


@dataclass(frozen=True)
class Example:
    """One example as it was read: `label` is its source's, `key` that of its content (`text.key`)."""

    row: Row
    label: str
    key: bytes = b""


@dataclass(frozen=True)
class Gathered:
    """What a verb trains on (`rows` and the label of each), what is held out, where it came from and what became of the rest."""

    rows: list[Row]
    inputs: tuple[InputRef, ...]
    labels: tuple[str, ...] = ()
    dev: tuple[Example, ...] = ()
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    caveats: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    dev_every: int | None = None

    def said(self) -> Said:
        """What a result tells of it."""
        return Said(tables=self.tables, caveats=self.caveats, data=self.data)


NOTHING = Gathered([], ())


@dataclass
class Tally:
    """Examples by label, and by what became of them."""

    left: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, label: str, what: str, n: int = 1) -> None:
        row = self.left.setdefault(label, {})
        row[what] = row.get(what, 0) + n

    def of(self, label: str, what: str) -> int:
        return self.left.get(label, {}).get(what, 0)

    def words(self, label: str) -> str:
        """`120 read, 20 too short, 100 duplicates`."""
        counts = {said: self.of(label, what) for what, said in STAGES.items()}
        gone = [f"{n:,} {said.removesuffix('s') if n == 1 else said}" for said, n in counts.items() if n]
        return ", ".join([f"{self.of(label, 'read'):,} read", *gone])


def load(specs: Sequence[str], generators: Mapping[str, examples.Generator],
         path: Callable[[str], Path]) -> tuple[list[Example], list[InputRef]]:  # fmt: skip
    """The examples of all sources in order, and what they came from. A source's label is what stands before `=`, else its name."""
    found, inputs = [], []
    for spec in specs:
        name = LabelledName(spec)
        rows = examples.load(name.target, generators, path)
        found += [Example(row, name.label or name.target) for row in rows]
        inputs.append(InputRef("data", spec, digest=examples.digest(rows)))
    return found, inputs


def gather(found: Sequence[Example], inputs: Sequence[InputRef], mix: Mix, held: Sequence[Held], seed: int,
           planning: bool = False) -> Gathered:  # fmt: skip
    """Filter, free of duplicates and evaluation items, split and mix. Raises InputError where nothing is left of a source.

    `held`: items that must not be trained on. A plan of many examples leaves out near duplicates and `held`, and says so.
    """
    tally = Tally()
    for e in found:
        tally.add(e.label, "read")
    kept = _long_enough(found, mix, tally)
    sketch = planning and len(found) > SKETCHED
    if mix.dedup != "none" or mix.dev or mix.mixed:
        kept = [Example(e.row, e.label, key(e.row)) for e in kept]
    if mix.dedup != "none":
        kept = _once(kept, tally, near=mix.dedup == "near" and not sketch)
    leaked: tuple[Table, ...] = ()
    unsaid = 0
    if held and not sketch:
        kept, leaked, unsaid = _clean(kept, held, mix, tally)
    dev = [e for e in kept if mix.dev and held_out(e.key, mix.dev)]
    train = [e for e in kept if not (mix.dev and held_out(e.key, mix.dev))]
    for e in dev:
        tally.add(e.label, "dev")
    _refuse_nothing(train, dev, mix, tally)
    chosen = _mixed(train, mix, seed, tally)
    told = _worth_telling(tally, mix) or bool(held)
    later = sketch and (mix.dedup == "near" or bool(held))
    caveats = (*_twice(inputs), *_uneven(chosen, mix), *_unmet(tally, mix), *_unseen(unsaid, held))
    rows, labels = [e.row for e in chosen], tuple(e.label for e in chosen)
    if not told:
        return Gathered(rows, tuple(inputs), labels, caveats=caveats)
    tables = (_table(tally, chosen, mix), *leaked)
    return Gathered(rows, tuple(inputs), labels, tuple(dev), _lines(tally, mix, 0 if sketch else len(held), later), tables, caveats,
                    {"examples": tally.left, "evaluation_items": len(held)}, mix.dev_every)  # fmt: skip


def _long_enough(found: Sequence[Example], mix: Mix, tally: Tally) -> list[Example]:
    if not mix.min_chars and mix.max_chars is None:
        return list(found)
    kept = []
    for e in found:
        n = size(e.row)
        if n < mix.min_chars:
            tally.add(e.label, "short")
        elif mix.max_chars is not None and n > mix.max_chars:
            tally.add(e.label, "long")
        else:
            kept.append(e)
    return kept


def _once(found: Sequence[Example], tally: Tally, near: bool) -> list[Example]:
    kept = []
    for e, earlier in zip(found, duplicates.exact([e.key for e in found])):
        if earlier is None:
            kept.append(e)
        else:
            tally.add(e.label, "same")
    if not near:
        return kept
    out = []
    for e, like in zip(kept, duplicates.near([_words(e.row) for e in kept])):
        if like is None:
            out.append(e)
        else:
            tally.add(e.label, "near")
    return out


def _words(row: Row) -> list[str]:
    return units(" ".join(texts(row)))


def _clean(found: list[Example], held: Sequence[Held], mix: Mix, tally: Tally) -> tuple[list[Example], tuple[Table, ...], int]:
    """Without what holds an evaluation item (or with it, where it is kept), a table of what was found, and how many items are too
    short to be looked for. Raises InputError where leaks are refused."""
    wanted = leaks.items(held, mix.ngram)
    leaked = leaks.leaks([_words(e.row) for e in found], wanted)
    rows = {leak.row for leak in leaked}
    if rows and mix.leaks == "refuse":
        first, item = found[leaked[0].row], held[leaked[0].item]
        raise InputError(f"{len(rows):,} of {len(found):,} examples hold items of evaluations", where=f"data {first.label}",
                         found=f"{item.task} {item.language} {item.id}: {item.text[:80]!r}",
                         fix="take them out, or set leaks to drop")  # fmt: skip
    for row in rows:
        tally.add(found[row].label, "leaked")
    kept = found if mix.leaks == "keep" else [e for i, e in enumerate(found) if i not in rows]
    return kept, (_leaks_table(leaked, found, held, mix),), wanted.unsaid


def _leaks_table(leaked: Sequence[Leak], found: Sequence[Example], held: Sequence[Held], mix: Mix) -> Table:
    done = {"drop": "left out", "keep": "trained on all the same"}.get(mix.leaks, "")
    rows = tuple((f"{held[k.item].task} {held[k.item].language}", held[k.item].id, found[k.row].label, f"{k.share:.0%}",
                  held[k.item].text[:120]) for k in leaked[:SHOWN])  # fmt: skip
    n, items = len({k.row for k in leaked}), len({k.item for k in leaked})
    note = (f"{n:,} of {len(found):,} examples hold {items:,} of {len(held):,} items and were {done}; an item counts as found when "
            f"one example has {leaks.SHARE:.0%} of its runs of {mix.ngram} words" if leaked else
            f"none of {len(held):,} items was found in {len(found):,} examples, by runs of {mix.ngram} words")
    return Table("Evaluation items among the examples", ("task", "item", "in", "of its runs", "text"), rows, note)


def _refuse_nothing(train: Sequence[Example], dev: Sequence[Example], mix: Mix, tally: Tally) -> None:
    have = {e.label for e in train}
    if (gone := next((label for label in tally.left if label not in have), None)) is not None and mix.weights.get(gone, 1) > 0:
        out = tally.of(gone, "dev")
        raise InputError("no example is left to train on", where=f"data {gone}",
                         found=tally.words(gone) + (f", {out:,} held out" if out else ""),
                         fix="change what is filtered, or add data")
    if mix.dev and not dev:
        raise InputError("no example is held out", where="mix.dev", found=f"{mix.dev:g} of {len(train):,} examples",
                         fix="hold out a larger share, or add data")


def _mixed(train: Sequence[Example], mix: Mix, seed: int, tally: Tally) -> list[Example]:
    """The examples drawn from each label, in the order in which they were read."""
    if not mix.mixed:
        return list(train)
    places: dict[str, list[int]] = {label: [] for label in tally.left}
    for i, e in enumerate(train):
        places[e.label].append(i)
    sizes = {label: len(p) for label, p in places.items()}
    asked = mixture.counts(mixture.shares(sizes, mix.weights, mix.alpha), sizes, mix.examples, mix.repeat)
    taken: list[int] = []
    for label, mine in places.items():
        tally.add(label, "asked", asked[label])
        taken += [mine[k] for k in mixture.pick([train[i].key for i in mine], asked[label], seed, mix.repeat)]
    if not taken:
        raise InputError("the mixture has no example", where="mix", found=f"{mix.examples} examples", fix="ask for more")
    return [train[i] for i in sorted(taken)]


# ---------------------------------------------------------------------------------------------------------- what is told


def _worth_telling(tally: Tally, mix: Mix) -> bool:
    return mix != Mix() or len(tally.left) > 1


def _table(tally: Tally, chosen: Sequence[Example], mix: Mix) -> Table:
    """One row a label: what was read, what went, what was asked for and what is there to learn from."""
    gone = {what: said for what, said in STAGES.items() if any(tally.of(label, what) for label in tally.left)}
    columns = ("examples", "read", *gone.values(), *(["held out"] if mix.dev else []), *(["asked"] if mix.mixed else []),
               "in the mixture" if mix.mixed else "kept", "share", "characters")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for label in tally.left:
        mine = [e for e in chosen if e.label == label]
        rows.append((label, tally.of(label, "read"), *(tally.of(label, what) for what in gone),
                     *([tally.of(label, "dev")] if mix.dev else []), *([tally.of(label, "asked")] if mix.mixed else []),
                     len(mine), f"{len(mine) / len(chosen):.1%}", sum(size(e.row) for e in mine)))  # fmt: skip
    return Table("Examples", columns, tuple(rows))


def _lines(tally: Tally, mix: Mix, items: int, later: bool) -> tuple[str, ...]:
    said = [f"{label}: {tally.words(label)}" + (f", {tally.of(label, 'dev'):,} held out" if mix.dev else "")
            + (f", {tally.of(label, 'asked'):,} asked" if mix.mixed else "") for label in tally.left]
    more = [f"of more than {SKETCHED:,} examples near duplicates and evaluation items are looked for when it runs: these counts "
            "are without them"] if later else []
    sought = [f"{items:,} evaluation items looked for among them"] if items else []
    return (*said, *sought, *more)


def _twice(inputs: Sequence[InputRef]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    return tuple(f"{i.spec} holds the same examples as {first[i.digest]}: they count twice unless dedup takes them out"
                 for i in inputs if first.setdefault(i.digest, i.spec) is not i.spec)  # fmt: skip


def _uneven(chosen: Sequence[Example], mix: Mix) -> tuple[str, ...]:
    """The warning that one label has far more text than another, where nobody asked for it."""
    sizes: dict[str, int] = {}
    for e in chosen:
        sizes[e.label] = sizes.get(e.label, 0) + size(e.row)
    if mix.weights or mix.alpha is not None:
        return ()
    return uneven.told(sizes, "characters", "weights or alpha of `mix` even them")


def _unmet(tally: Tally, mix: Mix) -> tuple[str, ...]:
    """Labels that had fewer examples than their share asked for, or whose share is less than one example."""
    total = sum(tally.of(s, "asked") for s in tally.left)
    none = tuple(f"{s} has no example in a mixture of {total:,}: its share is too small for one" for s in tally.left
                 if mix.mixed and not tally.of(s, "asked") and mix.weights.get(s, 1) > 0)
    if mix.repeat:
        return none
    left = {s: t.get("read", 0) - sum(t.get(w, 0) for w in (*STAGES, "dev")) for s, t in tally.left.items()}
    if mix.leaks == "keep":
        left = {s: n + tally.of(s, "leaked") for s, n in left.items()}
    return none + tuple(f"{s} has {left[s]:,} examples of the {tally.of(s, 'asked'):,} asked, so the shares are others; `repeat` "
                        "takes some again" for s in tally.left if tally.of(s, "asked") > left[s])  # fmt: skip


def _unseen(unsaid: int, held: Sequence[Held]) -> tuple[str, ...]:
    return (f"{unsaid:,} of {len(held):,} evaluation items are too short or too alike to be looked for",) if unsaid else ()
