"""Block by block: what is in memory, what a run may do between observing and feeding, where hidden states lie, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polygraft.blocks
import tiny as make
from polygraft import model as live_models
from polygraft.blocks import Blocks, block_bytes, fits, whole_bytes
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, ResourceError, StepFailed
from polygraft.spill import Spill
from polygraft.taps import Taps


def ids(rows: int = 2, tokens: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 260, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def last(live: live_models.Live, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the last layer of the whole model in memory gives."""
    found: list[torch.Tensor] = []
    layers = [live.anatomy.layers - 1]
    with torch.no_grad(), Taps(live.model, live.anatomy, lambda p: found.append(p.value.clone()), points=["residual"], layers=layers):
        live.model(**batch)
    return found[0]


class Alive:
    """Counts the bytes of every real parameter that blocks make, for as long as anybody holds it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.made: list[weakref.ref] = []
        make_one = polygraft.blocks.empty_parameter
        monkeypatch.setattr("polygraft.blocks.empty_parameter", lambda like, device: self._seen(make_one(like, device)))

    def _seen(self, parameter):
        self.made += [] if parameter.is_meta else [weakref.ref(parameter)]
        return parameter

    def __call__(self) -> int:
        return sum(p.nbytes for ref in self.made if (p := ref()) is not None)


WIDE = {"layers": 8, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}


def test_what_lies_outside_and_one_block_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, alive = make.folder(tmp_path, "llama", **WIDE), Alive(monkeypatch)
    weights, anatomy, seen = Checkpoint.open(folder), live_models.anatomy_of(folder), []
    blocks = Blocks.open(folder)
    outside, head = alive(), weights.info("lm_head.weight").nbytes
    blocks.feed([{"input_ids": ids()}])
    for block in blocks:
        seen.append(alive())
        block.run()
    assert alive() == outside == blocks.held
    per_block = (whole_bytes(weights) - outside - head) // 8
    assert seen == [outside + per_block] * 8 and max(seen) <= block_bytes(weights, anatomy)
    assert whole_bytes(weights) > 30e6 > 6 * max(seen)


def test_a_block_may_be_changed_between_observing_and_feeding(tiny):
    folder = tiny("llama", layers=3)
    net, batch = live_models.load_folder(folder), {"input_ids": ids()}
    with torch.no_grad():
        net.model.model.layers[1].mlp.down_proj.weight[:4] = 0
    expected = last(net, batch)
    inputs: list[torch.Tensor] = []
    blocks = Blocks.open(folder)
    blocks.feed([batch])
    for block in blocks:
        if block.layer == 1:
            with Taps(blocks.live.model, blocks.live.anatomy, lambda p: inputs.append(p.value.clone()), points=["act"], layers=[1]):
                block.run(keep=False)
            block.module.mlp.down_proj.weight[:4] = 0
            with Taps(blocks.live.model, blocks.live.anatomy, lambda p: inputs.append(p.value.clone()), points=["act"], layers=[1]):
                block.run()
            with pytest.raises(StepFailed, match="run already"):
                block.run()
    assert torch.equal(*inputs)  # in front of what was changed, and the hidden state was not used up
    assert torch.equal(blocks.hidden(0), expected)


def test_an_adapter_runs_as_its_merge_would(tiny, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    from polygraft.sources import resolve

    base = tiny("llama")
    grown = get_peft_model(live_models.load_folder(base).model, LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False))
    grown.save_pretrained(tmp_path / "adapter")
    source = resolve(tmp_path / "adapter", base=base)
    expected = last(live_models.load(source), {"input_ids": ids()})
    blocks = Blocks.open(source)
    blocks.feed([{"input_ids": ids()}])
    for _ in blocks:
        pass
    torch.testing.assert_close(blocks.hidden(0), expected, rtol=1e-5, atol=1e-5)


def test_a_loop_that_is_left_frees_its_block(tiny):
    blocks = Blocks.open(tiny("llama"))
    outside = blocks.held
    blocks.feed([{"input_ids": ids()}])
    for _ in blocks:
        assert blocks.held > outside
        break
    assert blocks.held == outside


# ----------------------------------------------------------------------------------------------------------------- bad inputs


def damaged(folder: Path, out: Path, **change: object) -> Path:
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | change))
    return out


@pytest.mark.parametrize(("change", "what"), [
    ({"intermediate_size": 40}, "another shape"),
    ({"hidden_act": "no-such-function"}, "cannot build"),
    ({"attention_bias": True}, "no tensor of the files"),
])  # fmt: skip
def test_files_that_do_not_fill_the_model_are_refused(tiny, tmp_path: Path, change: dict, what: str):
    with pytest.raises(InputError, match=what):
        for _ in Blocks.open(damaged(tiny("llama"), tmp_path / "bad", **change)):
            pass


def test_states_over_the_limit_without_a_folder_are_refused(tiny):
    blocks = Blocks.open(tiny("llama"), limit=1000)
    with pytest.raises(ResourceError, match="do not fit"):
        blocks.feed([{"input_ids": ids()}])


def test_a_full_disk_is_said(tiny, tmp_path: Path):
    (tmp_path / "file").write_text("")
    blocks = Blocks.open(tiny("llama"), limit=0, spill=tmp_path / "file" / "below")
    with pytest.raises(ResourceError, match="could not write"):
        blocks.feed([{"input_ids": ids()}])


# ---------------------------------------------------------------------------------------------------------------------- spill


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.sampled_from(["float32", "bfloat16", "float16"])), max_size=12),
       st.integers(0, 200))  # fmt: skip
def test_what_is_put_is_got(tmp_path_factory, puts, limit):
    folder = tmp_path_factory.mktemp("spill")
    spill, expected = Spill(folder, limit), {}
    for n, (number, rows, dtype) in enumerate(puts):
        value = torch.arange(n, n + rows * 3).reshape(rows, 3).to(getattr(torch, dtype))
        spill.put(number, value)
        expected[number] = value
        assert spill.held <= limit
    for number, value in expected.items():
        found = spill.get(number)
        assert found.dtype == value.dtype and torch.equal(found, value)
        found += 1  # what is done to it in place leaves the kept one as it was
        assert torch.equal(spill.get(number), value)
    spill.clear()
    assert not list(folder.iterdir()) and spill.held == 0


# ----------------------------------------------------------------------------------------------------------------------- fits


def test_whether_a_model_fits_is_told_from_headers(tiny, monkeypatch):
    weights = Checkpoint.open(tiny("llama"))
    size = sum(int(np.prod(t.shape)) for t in weights.tensors.values()) * 4
    assert whole_bytes(weights) == whole_bytes(weights, "float32") == size == 2 * whole_bytes(weights, "bfloat16")
    monkeypatch.setattr("polygraft.meter.memory_limit", lambda: int(size / 0.8) + 4)
    assert fits(weights)
    monkeypatch.setattr("polygraft.meter.memory_limit", lambda: int(size / 0.8) - 4)
    assert not fits(weights) and fits(weights, "bfloat16")


def test_a_plan_of_a_reading_tells_what_one_layer_at_a_time_takes(tmp_path: Path, monkeypatch):
    from polygraft.analysis.reading.steps import STEPS
    from polygraft.meter import LIBRARIES
    from polygraft.recipe import plan_step

    folder, [step] = make.folder(tmp_path, "llama", **WIDE), STEPS
    (tmp_path / "en.txt").write_text("a few words\n" * 50)

    def peak(blocks: str) -> tuple[int, bool]:
        config = step.config(model=str(folder), corpus={"en": str(tmp_path / "en.txt")}, blocks=blocks, gather=(), groups=0)
        plan = plan_step(step, config).plan
        return plan.peak_bytes - LIBRARIES, any("one layer in memory" in line for line in plan.lines)

    whole, apart = peak("no"), peak("yes")
    assert (whole[1], apart[1]) == (False, True) and apart[0] < whole[0] / 3
    assert peak("auto") == whole
    monkeypatch.setattr("polygraft.meter.memory_limit", lambda: 30 << 20)
    assert peak("auto") == apart


PEAK = """
import sys, torch
from polygraft.blocks import Blocks
from polygraft.meter import measured
blocks = Blocks.open(sys.argv[1])
blocks.feed([{"input_ids": torch.arange(64).reshape(1, 64)}])
with measured() as m:
    for _ in blocks:
        pass
print(m.cost.peak_bytes)
"""


@pytest.mark.slow
def test_resident_memory_does_not_grow_with_depth(tmp_path: Path):
    wide = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 8}
    peaks = {}
    for layers in (2, 10):
        folder = make.folder(tmp_path, "llama", layers=layers, **wide)
        run = subprocess.run([sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True)
        peaks[layers] = int(run.stdout)
    block = Checkpoint.open(folder)
    one = (whole_bytes(block) - 2 * block.info("lm_head.weight").nbytes) // 10
    assert one > 60e6
    assert peaks[10] - peaks[2] < one, f"{peaks}: 8 more layers of {one:,} bytes"
