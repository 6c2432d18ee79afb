"""tune sft on tiny random models: answer-only loss, exact resume, packing, what is written."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from polygraft.errors import InputError, StepFailed
from polygraft.sources import resolve
from polygraft.tune import state
from polygraft.tune.settings import Settings
from polygraft.tune.training import STATE, Work, train

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
FAST = Settings(r=2, steps=6, batch=4, lr=1e-2, save_every=2, length=32, device="cpu")


def same(a, b) -> bool:
    return (a / "adapter_model.safetensors").read_bytes() == (b / "adapter_model.safetensors").read_bytes()


class Cut(Exception):
    pass


def cut_at(step: int):
    def progress(done, total, text=""):
        if done == step:
            raise Cut

    return progress


@pytest.fixture(scope="module")
def base(tiny):
    return resolve(tiny("llama"))


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    return train(Work(base, ROWS, FAST), tmp_path_factory.mktemp("whole"))


def test_learns(base, tmp_path):
    done = train(Work(base, ROWS[:4], dataclasses.replace(FAST, steps=60, lr=3e-2, save_every=0, r=8)), tmp_path)
    assert np.mean(done.losses[-5:]) < 0.5 * np.mean(done.losses[:5])
    assert done.steps == 60 and len(done.losses) == 60 and done.tokens > done.answer_tokens > 0
    assert 0 < done.trainable < done.total


@pytest.mark.parametrize(("step", "from_step"), [(1, 0), (3, 2), (5, 4)])
def test_resume_is_exact(base, whole, tmp_path, step, from_step):
    with pytest.raises(Cut):
        train(Work(base, ROWS, FAST), tmp_path, cut_at(step))
    assert not (tmp_path / "model").exists()
    again = train(Work(base, ROWS, FAST), tmp_path)
    assert again.resumed == from_step
    assert same(again.path, whole.path)
    assert again.losses == whole.losses
    assert not (tmp_path / STATE).exists()


def test_resume_restores_random_numbers(base, tmp_path):
    settings = dataclasses.replace(FAST, dropout=0.5, weight_decay=0.1, schedule="cosine", accumulate=2)
    first = train(Work(base, ROWS, settings), tmp_path / "a")
    with pytest.raises(Cut):
        train(Work(base, ROWS, settings), tmp_path / "b", cut_at(5))
    second = train(Work(base, ROWS, settings), tmp_path / "b")
    assert second.resumed == 4 and same(first.path, second.path)


def test_full_tuning_resumes_and_keeps_the_folder(base, tmp_path):
    from polygraft.checkpoint import Checkpoint

    settings = dataclasses.replace(FAST, method="full", lr=1e-3)
    first = train(Work(base, ROWS, settings), tmp_path / "a")
    with pytest.raises(Cut):
        train(Work(base, ROWS, settings), tmp_path / "b", cut_at(5))
    second = train(Work(base, ROWS, settings), tmp_path / "b")
    one, two = Checkpoint.open(first.path), Checkpoint.open(second.path)
    assert one.tensors.keys() == base.checkpoint.tensors.keys() and one.config == base.checkpoint.config
    assert all(one.read(k) == two.read(k) for k in one.tensors)
    assert any(one.read(k) != base.checkpoint.read(k) for k in one.tensors)
    assert {p.name for p in first.path.iterdir()} == {p.name for p in base.path.iterdir()}


def test_damaged_or_foreign_state_is_not_used(base, whole, tmp_path):
    with pytest.raises(Cut):
        train(Work(base, ROWS, FAST), tmp_path, cut_at(5))
    (newest,) = (tmp_path / STATE).glob("step-*[0-9]")
    raw = bytearray((newest / "state.safetensors").read_bytes())
    raw[-3] ^= 1
    (newest / "state.safetensors").write_bytes(raw)
    again = train(Work(base, ROWS, FAST), tmp_path)
    assert again.resumed == 0 and same(again.path, whole.path)
    assert state.latest(tmp_path, "another job") is None


def test_a_state_half_cleared_away_is_not_used(base, whole, tmp_path):
    with pytest.raises(Cut):
        train(Work(base, ROWS, FAST), tmp_path, cut_at(5))
    (newest,) = (tmp_path / STATE).glob("step-*[0-9]")
    (newest / "manifest.json").unlink()  # a kill while it was being removed
    assert same(train(Work(base, ROWS, FAST), tmp_path).path, whole.path)


def test_saving_a_state_copies_nothing(tmp_path, monkeypatch):
    """Tensors of 8 MB are saved, and one alone is read again, within a fraction of the memory that they take."""
    import tracemalloc

    import torch

    monkeypatch.setattr("polygraft.files.CHUNK", 1 << 16)  # the digest's own buffer
    made = {f"weight.{i}": torch.randn(500, 1000) for i in range(4)} | {"weight.turned": torch.randn(3, 5).T, "step": torch.tensor(2.0)}
    tracemalloc.start()
    path = state.save(tmp_path, 3, "job", made, {"a": 1}, {})
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    one = state.tensors(path, "weight.2")
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written < 2e6 and read < 3e6 and one.keys() == {""} and torch.equal(one[""], made["weight.2"])
    found = state.tensors(path, "")
    assert found.keys() == made.keys() and all(torch.equal(found[k], v) for k, v in made.items())
    assert state.facts(path) == {"a": 1}


def test_state_is_json_and_safetensors(base, tmp_path):
    with pytest.raises(Cut):
        train(Work(base, ROWS, FAST), tmp_path, cut_at(5))
    files = {p.name for p in (tmp_path / STATE).rglob("*") if p.is_file()}
    assert files == {"state.safetensors", "state.json", "trainer_state.json", "manifest.json"}


def test_same_bytes_again_and_another_seed(base, whole, tmp_path):
    assert same(train(Work(base, ROWS, dataclasses.replace(FAST, save_every=0)), tmp_path / "a").path, whole.path)
    assert not same(train(Work(base, ROWS, dataclasses.replace(FAST, seed=1)), tmp_path / "b").path, whole.path)


def test_adapter_is_peft_and_mergeable(base, whole):
    from peft import PeftModel

    from polygraft.model import load
    from polygraft.sources import merged_view

    source = resolve(whole.path, base=base)
    view = merged_view(base.checkpoint, source.adapter)
    assert view.changed() and source.adapter.base == base.spec
    assert json.loads((whole.path / "adapter_config.json").read_text())["r"] == 2
    import torch

    live = load(base, dtype="float32").model
    ids = torch.arange(8)[None]
    merged = PeftModel.from_pretrained(load(base, dtype="float32").model, whole.path)(ids).logits
    assert not torch.allclose(merged, live(ids).logits)
    assert torch.allclose(merged, load(source, dtype="float32").model(ids).logits, atol=1e-4)


def test_packing_gives_the_loss_of_separate_rows(base, tmp_path):
    """One step over all rows: packed or not, the mean loss over answer tokens is the same number."""
    one = dataclasses.replace(FAST, steps=1, batch=len(ROWS), save_every=0, schedule="constant", warmup=0.0)
    apart = train(Work(base, ROWS, one), tmp_path / "a")
    packed = dataclasses.replace(one, packing=True, length=64)
    rows = len(examples_packed(base, packed))
    together = train(Work(base, ROWS, dataclasses.replace(packed, batch=rows)), tmp_path / "b")
    assert rows < len(ROWS)
    assert together.losses[0] == pytest.approx(apart.losses[0], rel=1e-4)


def examples_packed(base, settings):
    from polygraft.model import load
    from polygraft.tune.training import prepare

    return prepare(ROWS, load(base).tokenizer, settings)[0]


def test_bf16_autocast_trains(base, tmp_path):
    assert len(train(Work(base, ROWS, dataclasses.replace(FAST, dtype="bf16", steps=2, save_every=0)), tmp_path).losses) == 2


def test_a_loss_that_explodes_is_named(base, tmp_path):
    with pytest.raises(StepFailed, match="loss is not a number"):
        train(Work(base, ROWS, dataclasses.replace(FAST, method="full", lr=1e30, clip=1e30, steps=20, save_every=0)), tmp_path)
    assert not (tmp_path / "model").exists()


def test_refusals(base, whole, tmp_path):
    with pytest.raises(InputError, match="adapter cannot be tuned"):
        train(Work(resolve(whole.path, base=base), ROWS, FAST), tmp_path)
    with pytest.raises(InputError, match="no example has an answer"):
        train(Work(base, [{"prompt": "x" * 100, "completion": "y"}], dataclasses.replace(FAST, length=8)), tmp_path)


def test_a_device_that_is_not_there(base, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="no CUDA device"):
        train(Work(base, ROWS, dataclasses.replace(FAST, device="cuda")), tmp_path)
