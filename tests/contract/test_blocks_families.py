"""Every contract family run block by block gives what it gives in memory, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny as make
from polygraft import model as live_models
from polygraft.blocks import Blocks
from polygraft.taps import Passing, Taps

FAMILY = pytest.mark.parametrize("family", make.FAMILIES)


def batches(padded: bool = True) -> list[dict[str, Any]]:
    """Two batches: one full, one padded at the right."""
    draw = torch.Generator().manual_seed(0)
    full = torch.randint(4, 260, (2, 20), generator=draw)
    short = torch.randint(4, 260, (3, 12), generator=draw)
    mask = torch.ones_like(short)
    mask[1, 7:] = 0
    return [{"input_ids": full, "attention_mask": torch.ones_like(full)}, {"input_ids": short, "attention_mask": mask}]


def recorder(into: dict[tuple[str, int], list[torch.Tensor]], points: tuple[str, ...]) -> Callable[[Passing], None]:
    def observe(p: Passing) -> None:
        into.setdefault((p.point, p.layer), []).append(p.value.clone())

    return observe


@FAMILY
def test_hidden_states_and_taps_are_those_of_the_whole_model(tiny, family: str, tmp_path: Path):
    folder, points = tiny(family, layers=3), ("act", "residual")
    net, given = live_models.load_folder(folder), batches()
    whole: dict[tuple[str, int], list[torch.Tensor]] = {}
    apart: dict[tuple[str, int], list[torch.Tensor]] = {}
    with torch.no_grad(), Taps(net.model, net.anatomy, recorder(whole, points), points=points):
        for batch in given:
            net.model(**batch, use_cache=False)
    with Blocks.open(folder, spill=tmp_path, limit=3000) as blocks:
        blocks.feed(given)
        for block in blocks:
            with Taps(blocks.live.model, blocks.live.anatomy, recorder(apart, points), points=points, layers=[block.layer]):
                block.run()
    assert set(whole) == set(apart) == {(p, i) for p in points for i in range(3)}
    for at, values in whole.items():
        assert len(values) == len(apart[at])
        assert all(torch.equal(a, b) for a, b in zip(values, apart[at], strict=True)), at
    assert not list(tmp_path.iterdir())
