"""inspect: counts that add up, and the proof by perturbation, in both directions."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

import tiny as make
from polygraft import inspection
from polygraft.errors import InputError
from polygraft.model import load_folder
from polygraft.result import Result
from polygraft.sources import resolve


@pytest.mark.parametrize("family", make.FAMILIES)
def test_counts_add_up_to_the_parameters_of_the_files(tiny, family):
    folder = tiny(family)
    result = inspection.inspect(resolve(folder))
    total = sum(v.size for v in load_file(folder / "model.safetensors").values())
    drawn = result.maps[0]
    assert sum(v for row in drawn.values for v in row if v) + sum(drawn.outside.values()) == total
    kinds = result.tables[1]
    assert sum(row[2] for row in kinds.rows) == total and abs(sum(row[4] for row in kinds.rows) - 1) < 1e-9
    assert f": {total:,} parameters" in result.summary[0]
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


# k's bias adds the same number to every score of a query, so softmax takes it out; with rotary positions it does not
SILENT = {"opt": {f"model.decoder.layers.{i}.self_attn.k_proj.bias" for i in range(2)}}


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_tensor_moves_the_logits_or_is_named(tiny, family):
    result = inspection.inspect(resolve(tiny(family)), check=True)
    assert set(result.data["silent"]) == SILENT.get(family, set())
    assert "changed the logits" in result.summary[1]


def test_the_check_puts_the_weights_back_and_counts(tiny):
    live, seen = load_folder(tiny("qwen2")), []
    before = {k: v.clone() for k, v in live.model.state_dict().items()}
    assert inspection.silent_tensors(live, live.anatomy, lambda i, n, key: seen.append((i, n))) == {}
    assert all((before[k] == v).all() for k, v in live.model.state_dict().items())
    assert seen == [(i, len(live.anatomy.parts)) for i in range(len(live.anatomy.parts))]


def test_the_check_finds_a_tensor_that_does_nothing(tiny):
    """With up at zero, down gets zeros: it, gate and the norm before them cannot matter. A check that missed it would prove nothing."""
    live = load_folder(tiny("llama"))
    live.model.model.layers[1].mlp.up_proj.weight.data.zero_()
    silent = inspection.silent_tensors(live, live.anatomy)
    assert silent == dict.fromkeys(
        [f"model.layers.1.{n}.weight" for n in ("mlp.down_proj", "mlp.gate_proj", "post_attention_layernorm")], "the logits did not change"
    )


def test_buffers_of_old_files_are_named(tiny, tmp_path):
    import numpy as np

    folder = tmp_path / "old"
    shutil.copytree(tiny("gpt2"), folder)
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(folder / "model.safetensors").items()}  # as on the hub
    tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 128, 128), dtype=np.float32))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = inspection.inspect(resolve(folder), check=True)
    assert result.data["silent"] == {"h.0.attn.bias": "a buffer that the model computes itself"}
    assert "attn.bias" in result.summary[1]


def test_an_unknown_tensor_is_refused_and_a_row_admits_it(tiny, tmp_path):
    import numpy as np

    folder = tmp_path / "odd"
    shutil.copytree(tiny("llama"), folder)
    tensors = load_file(folder / "model.safetensors") | {"model.layers.0.mlp.extra.weight": np.ones(3, dtype=np.float32)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="unknown tensor"):
        inspection.inspect(resolve(folder))
    row = {"match": r"model\.layers\.(?P<layer>\d+)\.mlp\.extra\.weight", "kind": "ffn", "role": "extra"}
    assert "ffn.extra" in inspection.inspect(resolve(folder), extra=[row]).maps[0].rows
    with pytest.raises(InputError, match="no place for"):  # the row names it, but the live model still has no use for it
        inspection.inspect(resolve(folder), extra=[row], check=True)
