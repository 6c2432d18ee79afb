"""A plan and its training: the same steps where examples are dropped or packed, the same refusals, probes that see what runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import recipe
from polygraft.selection import Selection
from polygraft.sources import resolve
from polygraft.steps import TABLE
from polygraft.tune import counting, examples, extras, probe
from polygraft.tune.settings import Settings
from polygraft.tune.sides import Alternate, Sides
from polygraft.tune.training import Work

LONG = {"prompt": "x" * 60, "completion": "y"}  # no answer within 32 tokens of a byte
PLAIN = [{"prompt": f"{i}+1=", "completion": str(i + 1) * (1 + i % 5)} for i in range(12)]
CHATS = [{"messages": [{"role": "user", "content": f"{i}+1"}, {"role": "assistant", "content": str(i + 1)}]} for i in range(6)]
STEP = next(s for s in TABLE if s.name == "tune.sft")


def config(tiny, folder: Path, rows, **more):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"model": str(tiny("llama")), "data": [str(folder / "rows.jsonl")], "batch": 2, "length": 32, "device": "cpu"}
    return STEP.config(**(common | more))


def head(planned: recipe.StepPlan) -> str:
    assert not planned.errors, planned.errors
    return planned.plan.lines[0]


@pytest.mark.parametrize("packing", [False, True])
def test_a_plan_has_the_steps_of_the_training(tiny, tmp_path: Path, packing: bool):
    """Rows that hold no answer within the length are dropped, short ones packed: guess, probe and training agree."""
    rows = [row for some in PLAIN for row in (LONG, some)] + [LONG] * 7
    asked = config(tiny, tmp_path, rows, packing=packing, r=2)
    guess, probed = (head(recipe.plan_step(STEP, asked, folder=tmp_path, probe=probing)) for probing in (False, True))
    done = recipe.run_step(STEP, asked, tmp_path / "out")
    steps = done.data["steps"]
    assert steps == (2 if packing else 6) < len(rows) / 2
    assert guess.startswith(f"{len(rows)} examples, {steps} steps of 2,") and probed.startswith(f"{len(rows)} examples, {steps} steps of 2,")


def test_a_plan_without_a_tokenizer_says_at_most(tiny, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(counting, "plain", lambda checkpoint: None)
    asked = config(tiny, tmp_path, [LONG, *PLAIN[:5]])
    assert "6 examples, at most 3 steps of 2" in head(recipe.plan_step(STEP, asked, folder=tmp_path))
    assert "6 examples, 4 steps of 2" in head(recipe.plan_step(STEP, asked.model_copy(update={"steps": 4}), folder=tmp_path))


def test_a_plan_of_many_examples_counts_some_and_says_about(tiny, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(counting, "SAMPLE", 6)
    asked = config(tiny, tmp_path, [row for some in PLAIN for row in (some, LONG, some)])
    assert "36 examples, about " in head(recipe.plan_step(STEP, asked, folder=tmp_path))


@pytest.mark.parametrize("row", [PLAIN[3], CHATS[2], {"text": "Mto ulibeba — 河 🌊"}], ids=["plain", "chat", "text"])
@pytest.mark.parametrize("template", ["chat", "human-assistant"])
def test_a_plan_reads_tokens_as_training_does(tiny, row, template: str):
    import transformers as hf

    folder = tiny("llama")
    read = counting.plain(resolve(folder).checkpoint.extras)
    theirs = hf.AutoTokenizer.from_pretrained(folder)
    assert examples.tokenize(row, read, 10**6, True, template) == examples.tokenize(row, theirs, 10**6, True, template)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_packed_rows_are_counted_as_trl_packs(lengths: list[int]):
    from datasets import Dataset
    from trl import pack_dataset

    packed = pack_dataset(Dataset.from_list([{"input_ids": [1] * n} for n in lengths]), 40, strategy="bfd")
    assert sorted(counting.bins(lengths, 40)) == sorted(map(len, packed["input_ids"]))


# ------------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.group("J")
@pytest.mark.parametrize(("rows", "model", "fields", "said"), [
    (CHATS, ("llama", {"chat": False}), {}, "no chat template"),
    ([LONG], ("llama", {}), {}, "no example has an answer"),
    ([LONG], ("llama", {}), {"steps": 3}, "no example has an answer"),
    (PLAIN, ("llama", {}), {"optimizer": "adamw8bit"}, "not installed"),
    (PLAIN, ("llama", {}), {"liger": True}, "not installed"),
    (PLAIN, ("llama", {}), {"report_to": "wandb"}, "not installed"),
    (PLAIN, ("bloom", {}), {"packing": True}, "read each other"),
], ids=["template", "answer", "answer-steps", "optimizer", "liger", "tracker", "packing"])  # fmt: skip
def test_what_training_would_refuse_its_plan_refuses(tiny, tmp_path: Path, monkeypatch, rows, model, fields, said):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    family, options = model
    asked = config(tiny, tmp_path, rows, model=str(tiny(family, **options)), **fields)
    planned = recipe.plan_step(STEP, asked, folder=tmp_path)
    assert any(said in str(e) for e in planned.errors), planned


@pytest.mark.group("J")
def test_a_plan_knows_what_cannot_be_sharded(tiny, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    planned = recipe.plan_step(STEP, config(tiny, tmp_path, PLAIN), folder=tmp_path)
    assert any("no training state" in str(e) for e in planned.errors)
    assert not recipe.plan_step(STEP, config(tiny, tmp_path, PLAIN, save_every=0), folder=tmp_path).errors


def test_a_plan_with_a_tokenizer_imports_no_torch(tiny, tmp_path: Path):
    config(tiny, tmp_path, CHATS)
    code = ("import sys; from polygraft.cli import main\n"
            f"try: main(['tune','sft',{str(tiny('llama'))!r},'--data','rows.jsonl','--batch','2','--out','o','--plan'])\n"
            "finally: print(sorted({'torch','transformers','trl'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "6 examples, 3 steps" in done.stdout and done.stdout.rstrip().endswith("[]"), done.stdout + done.stderr


# -------------------------------------------------------------------------------------------------------------------- probes


def test_a_probe_of_two_sides_moves_each_side_on_its_own_steps(tiny, monkeypatch):
    """The steps that are run are not the first four: each must move the side that owns its rows."""
    source = resolve(tiny("llama"))
    keys = list(source.checkpoint.tensors)
    own = tuple(Selection(dict.fromkeys(k for k in keys if f".layers.{i}." in k)) for i in (0, 1))
    rows = [{"text": "a" * (3 + i)} for i in range(6)] + [{"text": "b" * (20 + i)} for i in range(6)]
    sides, heard, seen = Sides((6, 6), parts=own), [], []

    class Watching(Alternate):
        def before(self, step: int) -> None:
            super().before(step)
            heard.append((step, [any(p.requires_grad for p in mine) for mine in self.owned]))

    from polygraft.tune import trainer

    made = trainer.arguments

    def arguments(s: Settings, *rest):
        seen.append(s.report_to)
        return made(replace(s, report_to="none"), *rest)

    monkeypatch.setattr(trainer, "arguments", arguments)
    s = Settings(method="full", steps=6, batch=2, lr=1e-3, length=64, device="cpu", report_to="wandb", save_every=0)
    found = probe.probe(Work(source, rows, s, own[0] | own[1], hooks=(Watching(sides),), sides=sides))
    assert [step % 2 for step, _ in heard] == [0, 0, 0, 0, 1, 1, 1, 1] and any(step > 3 for step, _ in heard)
    assert all(now == [step % 2 == 0, step % 2 == 1] for step, now in heard)
    assert seen == ["none"] and len(found.steps) == 6 and found.training > 0
    assert all(found.steps[i] < found.steps[i + 1] for i in (0, 2, 4))  # the second side's examples are longer
