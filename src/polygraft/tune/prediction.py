"""What a training will need and take: by formula from shapes and the examples' text, or measured in a few of its own steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polygraft import ranks
from polygraft.tune import memory
from polygraft.tune import probe as probing
from polygraft.tune.chosen import size
from polygraft.tune.counting import count
from polygraft.tune.memory import Memory
from polygraft.tune.probe import padded
from polygraft.tune.processes import dealt
from polygraft.tune.training import Work

FLOPS = 5e10  # per second, a modest two-core machine; a GPU is hundreds of times faster
START = 15.0  # seconds in which torch, transformers and trl are imported, there
GUESS = ("time and memory are guesses from shapes, for two CPU cores (a GPU is hundreds of times faster), with "
         f"{START:.0f} s for the start; --probe measures them")


@dataclass(frozen=True)
class Prediction:
    """Optimiser steps, `peak` bytes of one process, `disk` bytes of the output and of a state beside it, seconds, and what to say
    of them. `about`: "about " or "at most " where the steps are not known exactly."""

    steps: int
    peak: int
    disk: int
    seconds: float
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    about: str = ""


def predicted(work: Work, trained: Mapping[str, int], probe: bool) -> Prediction:
    """`trained`: trained elements by file key (of an adapter: those of the pair that lies on it). With `probe` it is measured."""
    s, checkpoint, some = work.settings, work.checkpoint, sum(trained.values())
    stored = sum(t.nbytes for t in checkpoint.tensors.values())
    out = stored if s.method == "full" else 2 * some
    state = 12 * some if s.save_every else 0
    if probe:
        found = probing.probe(work)
        written = out + state * (len(found.steps) // s.save_every if s.save_every else 0)
        return Prediction(len(found.steps), found.peak, out + state, found.seconds(written), probing.said(found), ())
    counted = count(work)
    batch, _ = dealt(s, ranks.size())
    lengths, steps, longest = counted.lengths, s.count(counted.rows), max(counted.lengths)
    need = needed(work, trained, batch * longest, batch * longest if s.packing else longest)
    tokens = sum(padded(lengths, s.batch, s.accumulate, s.packing)) / len(lengths) * s.batch * s.accumulate * steps
    saved = state * (steps // s.save_every) if s.save_every else 0
    seconds = START + (2 * stored + out + saved) / probing.DISK + tokens * flops(work, trained) / FLOPS / ranks.size()
    return Prediction(steps, need.total, out + state, seconds, (*counted.lines(), sentence(need)), (GUESS,), counted.about)


def needed(work: Work, trained: Mapping[str, int], tokens: int, length: int) -> Memory:
    """The memory of one process whose largest forward pass has so many tokens, in rows of this length."""
    shapes = {key: t.shape for key, t in work.checkpoint.tensors.items()}
    return memory.need(work.anatomy, work.settings, shapes, trained, tokens, length)


def flops(work: Work, trained: Mapping[str, int]) -> float:
    """Of one token: 2 a weight forward; backward 2 a weight of the layers that have a graph, and 2 a trained weight."""
    total, parts = size(work.checkpoint), work.anatomy.parts
    lowest = memory.lowest(work.anatomy, trained)
    below = sum(t.numel for key, t in work.checkpoint.tensors.items() if (layer := parts[key].layer) is not None and layer < lowest)
    return 2.0 * total + 2.0 * (total - below) + 2.0 * sum(trained.values())


def sentence(need: Memory) -> str:
    """Where the memory goes."""
    return "memory of a process: " + ", ".join(f"{name} {value / 2**20:,.0f} MiB" for name, value in need.rows())
