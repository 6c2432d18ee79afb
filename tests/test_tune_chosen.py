"""What may be trained: selections in normal form, refused where they mean nothing; values held in float32; one tensor once."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import RecipeError, StepFailed, UserError
from polygraft.model import load
from polygraft.selection import Selection
from polygraft.sources import resolve
from polygraft.tune import state
from polygraft.tune.chosen import checked, choose, everything
from polygraft.tune.hooks import Hook
from polygraft.tune.output import after, check_finite
from polygraft.tune.settings import Settings
from polygraft.tune.tokenised import prepare
from polygraft.tune.training import STATE, Work, train

UP, EMBED, HEAD = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"
ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
FAST = Settings(method="full", steps=6, batch=4, lr=1e-2, save_every=2, length=32, device="cpu")


def of(path):
    checkpoint = Checkpoint.open(path)
    return Anatomy.of(checkpoint.config, checkpoint.tensors), checkpoint


def rewritten(path, out, change=lambda tensors: tensors, **config):
    """A copy of a model folder with other tensors and other words in its config."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(path, out)
    save_file(change(load_file(path / "model.safetensors")), out / "model.safetensors", {"format": "pt"})
    said = json.loads((path / "config.json").read_text()) | config
    (out / "config.json").write_text(json.dumps(said))
    return out


def with_head(tensors):
    return {**tensors, HEAD: tensors[EMBED].clone()}


@pytest.fixture(scope="module")
def tied(tiny, tmp_path_factory):
    """A tied llama whose file keeps embedding and head as two equal tensors."""
    return rewritten(tiny("llama"), tmp_path_factory.mktemp("tied") / "m", with_head, tie_word_embeddings=True)


# ------------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.group("J")
@pytest.mark.parametrize(("selection", "said"), [
    (Selection({}), "nothing would be trained"), (Selection({UP: []}), "nothing would be trained"),
    (Selection({"model.layers.9.mlp.up_proj.weight": None}), "layers.9"), (Selection({UP: [48]}), "beyond the tensor"),
], ids=["empty", "no rows", "no such tensor", "no such row"])  # fmt: skip
def test_a_selection_that_matches_nothing_is_refused(tiny, selection, said):
    with pytest.raises(UserError, match=said):
        checked(selection, *of(tiny("llama")))


@pytest.mark.group("J")
@pytest.mark.parametrize("rows", [{EMBED: None}, {HEAD: None}, {EMBED: [1], HEAD: [2]}, {EMBED: None, HEAD: [1]}],
                         ids=["embedding alone", "head alone", "other rows", "all and some"])
def test_one_side_of_tied_embeddings_is_refused(tied, rows):
    with pytest.raises(RecipeError, match="only one of them is selected"):
        checked(Selection(rows), *of(tied))


def test_tied_embeddings_of_one_tensor_are_selected_by_it(tiny):
    anatomy, checkpoint = of(tiny("gpt2"))
    (embed,) = anatomy.keys(kind="embed", role="")
    assert checked(Selection({embed: [1, 2]}), anatomy, checkpoint).rows[embed].tolist() == [1, 2]


@pytest.mark.group("J")
def test_a_buffer_is_refused(tiny, tmp_path):
    key = "model.layers.0.self_attn.rotary_emb.inv_freq"
    path = rewritten(tiny("llama"), tmp_path / "m", lambda t: {**t, key: torch.ones(4)})
    with pytest.raises(RecipeError, match="a buffer cannot be trained"):
        checked(Selection({key: None}), *of(path))
    assert key not in everything(Checkpoint.open(path)) and UP in everything(Checkpoint.open(path))


@pytest.mark.group("J")
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.float8_e4m3fn])
def test_quantised_numbers_are_refused(tiny, tmp_path, dtype):
    path = rewritten(tiny("llama"), tmp_path / "m", lambda t: {**t, UP: t[UP].to(dtype)})
    anatomy, checkpoint = of(path)
    for wanted in (lambda: checked(Selection({UP: [0]}), anatomy, checkpoint), lambda: everything(checkpoint)):
        with pytest.raises(RecipeError, match="quantised numbers cannot be trained"):
            wanted()


def test_all_rows_are_the_whole_tensor(tiny):
    anatomy, checkpoint = of(tiny("llama"))
    assert checked(Selection({UP: np.arange(48)}), anatomy, checkpoint).rows[UP] is None


# ---------------------------------------------------------------------------------------------------------- what is held


@pytest.mark.parametrize("rows", [None, [3, 9]])
def test_a_tied_tensor_is_trained_once_and_written_twice(tied, rows):
    live, checkpoint = load(tied, dtype="bfloat16"), Checkpoint.open(tied)
    chosen = choose(live, Selection({EMBED: rows, HEAD: rows}), checkpoint)
    assert chosen.trainable == 32 * (264 if rows is None else 2)
    with torch.no_grad():
        for p in live.model.parameters():
            if p.requires_grad:
                p.add_(1.0)
    one, two = (after(live, checkpoint, chosen, key) for key in (EMBED, HEAD))
    assert one == two
    changed = (np.frombuffer(one, "<f4") != np.frombuffer(checkpoint.read(EMBED), "<f4")).reshape(264, 32)
    assert changed.all(1).nonzero()[0].tolist() == (rows or list(range(264))) and changed.sum() == chosen.trainable


@pytest.mark.parametrize("rows", [None, [3]])
def test_training_starts_from_the_files_exact_values(tiny, rows):
    """float32 in the file, bfloat16 in memory: what is trained is not rounded first."""
    live, checkpoint = load(tiny("llama"), dtype="bfloat16"), Checkpoint.open(tiny("llama"))
    chosen = choose(live, Selection({UP: rows}), checkpoint)
    value = torch.from_numpy(checkpoint.f32(UP)).reshape(48, 32)
    assert torch.equal(chosen.value(live, UP), value if rows is None else value[rows])
    assert after(live, checkpoint, chosen, UP) == checkpoint.read(UP)


@pytest.mark.group("J")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 7e4])
def test_a_value_that_does_not_fit_is_never_written(tiny, tmp_path, bad):
    path = tiny("llama", dtype="float16")
    live, checkpoint = load(path, dtype="float32"), Checkpoint.open(path)
    chosen = choose(live, Selection({UP: [3]}), checkpoint)
    check_finite(live, checkpoint, chosen)
    with torch.no_grad():
        chosen.grafts.all[0].held[0, 5] = bad
    with pytest.raises(StepFailed, match="does not fit"):
        check_finite(live, checkpoint, chosen)


# ------------------------------------------------------------------------------------------------------------ while training


def test_a_state_of_another_selection_is_not_resumed(tiny, tmp_path):
    base = resolve(tiny("llama"))
    one, two = Work(base, ROWS, FAST, Selection({UP: [1, 2]})), Work(base, ROWS, FAST, Selection({UP: [1, 3]}))
    assert one.job != two.job

    def cut(step, total, text=""):
        if step == 5:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(one, tmp_path, cut)
    assert state.latest(tmp_path / STATE, one.job) is not None and state.latest(tmp_path / STATE, two.job) is None
    assert train(two, tmp_path).resumed == 0


@pytest.mark.group("J")
def test_an_exploding_loss_names_its_examples_and_the_last_good_state(tiny, tmp_path):
    """A learning rate without sense: the training stops before the numbers are written, and says where it was."""
    settings = dataclasses.replace(FAST, lr=1e30, clip=1e9, steps=9, save_every=1, batch=2, schedule="constant", warmup=0.0)
    with pytest.raises(StepFailed, match=r"(loss|gradient) is not a number any more") as error:
        train(Work(resolve(tiny("llama")), ROWS, settings, Selection({HEAD: None, "model.norm.weight": None})), tmp_path)
    assert " of 20" in error.value.found and "example" in error.value.found
    kept = sorted((tmp_path / STATE).glob("step-*"))
    assert kept and str(kept[-1]) in error.value.fix and not (tmp_path / "model").exists()
    assert all(torch.isfinite(v).all() for v in state.tensors(kept[-1], "weight.").values())


@pytest.mark.group("J")
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_the_broken_batch_is_named(tiny, tmp_path, monkeypatch, packing, where):
    """One example's numbers break the loss, or the gradient alone; it is named by its number in the data."""
    class Break(Hook):
        def start(self, live, chosen):
            def broken(_, args):
                ids = args[0] if args else None
                self.on = bool(ids is not None and (ids == live.tokenizer("@")["input_ids"][0]).any())
            live.model.model.embed_tokens.register_forward_pre_hook(broken)

        def loss(self, model, step):
            zero = sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0
            if not self.on:
                return None
            return zero + float("nan") if where == "loss" else (zero.abs() + 0.0).sqrt()  # d sqrt(x) / dx at 0 is infinite

    rows = [*ROWS[:7], {"prompt": "@", "completion": "x"}, *ROWS[7:10]]
    settings = dataclasses.replace(FAST, batch=1, steps=11, schedule="constant", warmup=0.0, packing=packing)
    with pytest.raises(StepFailed, match=f"the {where} is not a number") as error:
        train(Work(resolve(tiny("llama")), rows, settings, Selection({UP: [1]}), hooks=(Break(),)), tmp_path)
    named = error.value.found.split("example")[1]
    assert "8" in named and (packing or named == " 8 of 11")


@pytest.mark.group("J")
@pytest.mark.parametrize("kind", ["whole", "rows", "lora"])
def test_the_last_good_state_is_kept_where_none_was_saved_yet(tiny, tmp_path, kind):
    """With a state after every 100th step, the third step breaks: that after the second is there, and goes on to the same bytes."""

    class Broken(Hook):
        breaks, dropped = True, ()

        def loss(self, model, step):
            self.dropped = (*self.dropped, step)
            return sum(p.sum() for p in model.parameters() if p.requires_grad) * float("nan" if self.breaks and step == 2 else 0)

        def kept(self):
            return {"dropped": self.dropped}

        def take(self, kept):
            self.dropped = tuple(kept["dropped"])

    def work(breaks):
        how = dataclasses.replace(FAST, steps=4, batch=2, save_every=100, method="lora" if kind == "lora" else "full", dropout=0.3, r=2)
        hook = Broken()
        hook.breaks = breaks
        return Work(resolve(tiny("llama")), ROWS[:4], how, Selection({UP: None if kind == "whole" else [1, 2]}), hooks=(hook,))

    with pytest.raises(StepFailed, match="is not a number any more") as error:
        train(work(True), tmp_path / "cut")
    (kept,) = (tmp_path / "cut" / STATE).glob("step-*")
    assert error.value.where == "step 3" and kept.name == state.name(2) and f"step 2 is kept in {kept}" in error.value.fix
    quiet, mended = work(False), work(False)
    one, two = train(quiet, tmp_path / "whole"), train(mended, tmp_path / "cut")
    assert two.resumed == 2 and one.losses == two.losses and quiet.hooks[0].dropped == mended.hooks[0].dropped == (0, 1, 2, 3)
    assert all(p.read_bytes() == (two.path / p.name).read_bytes() for p in one.path.iterdir())


@pytest.mark.group("J")
def test_examples_beyond_the_context_are_counted(tiny):
    tokenizer = load(tiny("llama")).tokenizer
    rows = [{"prompt": "a", "completion": "b" * n} for n in (5, 10, 30, 40)] + [{"prompt": "p" * 50, "completion": "x"}]
    data, notes = prepare(rows, tokenizer, dataclasses.replace(FAST, length=1000), 20)
    assert max(map(len, data["input_ids"])) == 20 and len(data) == 4
    assert notes == ["1 of 5 examples have no answer within 20 tokens (all that the model was made to see) and were left out",
                     "2 of 4 other examples are longer than 20 tokens (all that the model was made to see) and were cut there; "
                     "the longest has 42"]
    assert prepare(rows[:1], tokenizer, FAST, 128)[1] == []
    exact = len(prepare(rows[:1], tokenizer, FAST)[0][0]["input_ids"])
    assert prepare(rows[:1], tokenizer, dataclasses.replace(FAST, length=exact))[1] == []
