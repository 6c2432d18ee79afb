"""The forecast against what is really written, and the honest sentences."""

from __future__ import annotations

import numpy as np
import pytest

import tiny as tinymodels
from polygraft.checkpoint import Checkpoint
from polygraft.prune import shallower
from polygraft.prune.forecast import bits_of, parts_of
from polygraft.prune.pruning import anatomy_of
from polygraft.prune.writing import write_model
from polygraft.recipe import plan_step, run_step
from polygraft.sources import resolve
from polygraft.steps import TABLE

STEP = next(s for s in TABLE if s.name == "prune.plan")


def told(model, tmp_path, **more):
    result = run_step(STEP, STEP.config(model=str(model), **more), tmp_path / "out")
    return result, {w["name"]: w for w in result.data["ways"]}


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_parts_add_up_to_the_file_of_every_family(tiny, family):
    source = resolve(str(tiny(family)))
    anatomy = anatomy_of(source)
    parts = parts_of(source.weights, anatomy)
    outer = ("embed", "head")
    whole = sum(t.numel for key, t in source.weights.tensors.items() if not (anatomy.parts[key].kind == "head" and anatomy.tied))
    assert parts.total == whole and parts.stored == 4 and min(vars(parts).values()) >= 0
    assert (parts.head == 0) == anatomy.tied and (parts.experts > 0) == (family in tinymodels.MOE)
    assert parts.embed == next(t.numel for k, t in source.weights.tensors.items() if anatomy.parts[k].label in outer[:1])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe"])
def test_a_model_without_layers_takes_what_was_said(tiny, tmp_path, family):
    source = resolve(str(tiny(family, layers=4)))
    _, found = told(tiny(family, layers=4), tmp_path, layers=1)
    smaller = shallower.without(source.weights, anatomy_of(source), (2,))
    write_model(smaller, tmp_path / "smaller", anew=True)
    real = sum(t.nbytes for t in Checkpoint.open(tmp_path / "smaller").tensors.values())
    assert found["1 of 4 layers go"]["disk"] == pytest.approx(real, rel=0.01)  # norms of the layer are not counted


def test_zeros_make_nothing_smaller_or_faster_and_this_is_said(tiny, tmp_path):
    result, found = told(tiny("llama"), tmp_path, sparsity=0.5)
    assert all(found["zeros, 50%"][k] == found["as it is"][k] for k in ("disk", "memory", "read", "work"))
    assert "no maintained runtime faster" in result.summary[0] and "What would" in result.summary[-1]
    assert [row[1] for row in result.tables[1].rows].count("no") == len(result.tables[1].rows) - 1


def test_an_archive_codes_what_stays_and_a_bit_for_every_weight(tmp_path):
    """bf16 at half: 56.25 % of the matrices' bytes."""
    _, found = told(tinymodels.folder(tmp_path, "llama", dtype="bfloat16"), tmp_path, sparsity=0.5)
    parts = parts_of(resolve(str(tmp_path / "llama-chat=True-dtype=bfloat16-shard=50GB")).weights,
                     anatomy_of(resolve(str(tmp_path / "llama-chat=True-dtype=bfloat16-shard=50GB"))))
    saved = found["as it is"]["disk"] - found["zeros, 50%, in an archive"]["disk"]
    assert saved == pytest.approx(0.4375 * 2 * parts.matrices)


def test_fewer_experts_take_less_room_and_as_much_work(tiny, tmp_path):
    _, found = told(tiny("mixtral"), tmp_path, experts=1)
    fewer, now = found["1 of 3 experts go"], found["as it is"]
    assert fewer["memory"] < now["memory"] and fewer["work"] == pytest.approx(now["work"])


def test_bits_of_types_are_those_of_the_format():
    """Q4_K: 144 bytes for 256 weights; Q8_0: 34 for 32 (ggml)."""
    assert bits_of("Q4_K") == 4.5 and bits_of("Q8_0") == 8.5 and bits_of("Q6_K") == 6.5625


def test_tokens_a_second_are_bandwidth_over_what_is_read(tiny, tmp_path):
    result, found = told(tiny("llama"), tmp_path, bandwidth=10.0, context=100, sequences=3)
    columns = list(result.tables[0].columns)
    row = result.tables[0].rows[0]
    assert row[columns.index("tokens a second at most")] == pytest.approx(1e10 / found["as it is"]["read"], rel=1e-3)
    cache = 2 * 2 * tinymodels.KV_HEADS * (tinymodels.HIDDEN // tinymodels.HEADS) * 2 * 100 * 3
    assert result.data["cache_bytes"] == cache
    assert all(np.isfinite(v) for w in found.values() for v in (w["disk"], w["memory"], w["read"], w["work"]))


@pytest.mark.parametrize(("more", "said"), [({"layers": 2}, "no layer would be left"), ({"experts": 1}, "no mixture"),
                                          ({"tokens": 999}, "more tokens would stay")])
def test_what_cannot_be_is_refused(tiny, more, said):
    planned = plan_step(STEP, STEP.config(model=str(tiny("llama")), **more))
    assert any(said in str(e) for e in planned.errors)
