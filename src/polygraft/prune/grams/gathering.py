"""`prune gram`: read every language's text once, and keep what each matrix saw: masks are then scored without reading again."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from polygraft import stats
from polygraft.anatomy import Anatomy
from polygraft.blocks import LIMIT, block_bytes
from polygraft.meter import LIBRARIES
from polygraft.prune.calibration import Calibration, Spoken, planned, shares_of
from polygraft.prune.costs import FLOPS, Extent, states, width
from polygraft.prune.forecast import gigabytes
from polygraft.prune.grams import store
from polygraft.prune.grams.store import Grams
from polygraft.prune.harm import WithText
from polygraft.prune.languages import Reading
from polygraft.prune.pruning import WORK, anatomy_of, read, taken_up, work_key
from polygraft.result import InputRef, LayerMap, Result, Table
from polygraft.sources import Source
from polygraft.step import Context, Plan, Step

LOCAL = (
    "Every matrix is scored by itself, on what it reads in the dense model: errors of the layers below are not in it. How well "
    "that orders masks on a model is seen with `polygraft prune score --evaluate`."
)


class Gram(WithText):
    """Keep what text in every language looks like to every matrix, so that any mask or mixture is scored without reading again."""


def plan(config: Gram, context: Context) -> Plan:
    """From headers: the store's size above all, which grows with the square of the model's width."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    extent, text = Extent.of(weights, anatomy), planned(config, context, anatomy)
    n = sum(share > 0 for share in shares_of(config).values())
    layers = extent.grams()
    disk, squares = store.nbytes([w for widths in layers for w in widths], 1), max(4 * sum(w * w for w in ws) for ws in layers)
    held = block_bytes(weights, anatomy, "float32" if width(config, weights) == 4 else config.dtype)
    lines = (f"{n} language{'s' * (n != 1)}, {gigabytes(disk)} each on the disk", *text.lines)
    sums = sum(w * w for ws in layers for w in ws) * text.tokens
    work = 2 * sum(extent.sizes.values()) * text.tokens + sums + sum(out * w * w for out, w in extent.matrices.values())
    peak = LIBRARIES + held + n * (squares + squares // 2) + 2 * squares + min(states(config, weights, anatomy), LIMIT)
    return Plan(lines, peak, n * disk + max(0, states(config, weights, anatomy) - LIMIT),
                sum(t.nbytes for t in weights.tensors.values()) + text.read_bytes, work / FLOPS, problems=text.problems)


def run(config: Gram, context: Context, folder: Path, spoken: Spoken | None = None) -> Result:
    """Write the store into `folder`; an interrupted run goes on behind its last finished layer."""
    from polygraft.model import device_for, dtype_for

    source, device = context.model(config.model), device_for(config.device)
    anatomy = anatomy_of(source)
    text = read(config, context, source, spoken)
    assert text is not None  # a config without a corpus is refused
    reading = Reading.calibrated(source, text, dtype_for(device, config.dtype)[0], device)
    about = {"model": source.identity, "spec": source.spec, "calibration": text.provenance}
    grams = store.gather(reading, taken_up(folder, work_key(config, context, source, text)), about, context.progress)
    (folder / WORK).unlink()
    return told(config, source, text, grams, anatomy)


def told(config: Gram, source: Source, text: Calibration, grams: Grams, anatomy: Anatomy) -> Result:
    inputs = (source.ref("model"), *(InputRef(t.language, t.path, digest=t.digest) for t in text.told))
    size = store.nbytes([kept.width for kept in grams.sites.values()], len(grams.languages))
    alike = agreement(grams)
    n = len(grams.languages)
    summary = [f"{n} language{'s' * (n != 1)}, {len(grams.sites):,} inputs of matrices, {gigabytes(size)}."]
    maps, tables = list[LayerMap](), [text.table]
    if alike:
        mean = float(np.mean(list(alike.values())))
        summary.append(f"Two languages rank the inputs of a matrix by size with a rank correlation of {mean:.3f}, on average: the "
                       "less alike they do, the more the calibration language decides what goes.")  # fmt: skip
        maps.append(drawn(alike, anatomy.layers))
        tables.append(pairs(grams))
    data = {"languages": list(grams.languages), "bytes": size, "calibration": text.provenance}
    return Result("prune.gram", "", f"What text looks like to {config.model}", tuple(summary), tuple(maps), tuple(tables),
                  inputs=inputs, caveats=(*text.notes, LOCAL), data=data)  # fmt: skip


def agreement(grams: Grams) -> dict[tuple[str, int], float]:
    """(point, layer) -> rank correlation of input norms, mean over pairs of languages; experts are left out, as what two languages
    seldom share. Wanda's masks of two languages differ by nothing else."""
    found: dict[tuple[str, int], float] = {}
    for site in grams.sites:
        norms = grams.norms(site)
        each = [stats.spearman(a, b) for a, b in combinations(norms, 2)]
        known = [r for r in each if r is not None]
        if known and site.expert < 0:
            found[site.point, site.layer] = float(np.mean(known))
    return found


def drawn(alike: dict[tuple[str, int], float], layers: int) -> LayerMap:
    points = tuple(dict.fromkeys(point for point, _ in alike))
    grid = tuple(tuple(alike.get((p, i)) for i in range(layers)) for p in points)
    return LayerMap("How alike languages rank the inputs of matrices", points, layers, grid, unit="rank correlation", high=1.0)


def pairs(grams: Grams) -> Table:
    """Languages against languages, over all inputs outside of experts."""
    norms = [grams.norms(site) for site in grams.sites if site.expert < 0]
    rows = tuple((g, *(_mean([stats.spearman(x[i], x[j]) for x in norms]) for j in range(len(grams.languages))))
                 for i, g in enumerate(grams.languages))  # fmt: skip
    return Table("Rank correlation of input norms, mean over sites", ("language", *grams.languages), rows)


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if known else None


def gram_step(spoken: Spoken | None = None) -> Step:
    return Step("prune.gram", 1, Gram, plan, partial(run, spoken=spoken), resumable=True)
