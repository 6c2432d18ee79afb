"""A propagation called as a function, without a recipe."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.config import filled
from polygraft.meter import measured
from polygraft.result import Result, encode
from polygraft.sources import Source, resolve
from polygraft.step import Context
from polygraft.versions import MERGING, versions
from polygraft.vocab.propagation import steps


def propagate(out: Path, offline: bool, fields: dict[str, Any]) -> Result:
    """Run into `out`, which is absent or complete. Raises UserError."""
    given = {v.spec: v for v in fields.values() if isinstance(v, Source)}
    config = filled(steps.Propagate, {k: _named(v) for k, v in fields.items()})
    context = Context(lambda ref: given[ref] if ref in given else resolve(ref, offline=offline), Path, offline=offline)
    manifest: dict[str, Any] = {"kind": "model", "recipe": {"use": steps.STEPS[0].use, **config.model_dump(mode="json")}}
    with measured() as meter, files.commit(out, manifest) as part:
        result = steps.into(config, context, part)
        manifest |= {"inputs": encode(result.inputs), "versions": versions((*MERGING, "scipy", "tokenizers", "torch"))}
    return replace(result, cost=meter.cost)


def _named(value: Any) -> Any:
    """Paths as text, open sources by their spec."""
    return value.spec if isinstance(value, Source) else os.fspath(value) if isinstance(value, Path) else value
