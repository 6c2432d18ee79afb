"""Loading: everything accounted for or refused; adapters by the bytes a merge would write. Asking: side by side, greedy."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from polygraft import ask as asking
from polygraft import model as live_models
from polygraft.errors import InputError
from reload import assert_reloads


@pytest.fixture
def copied(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    return folder


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def test_a_sound_folder_loads(copied):
    live = live_models.load(copied)
    assert live.chat and live.device == "cpu" and live.model.dtype == torch.float32 and not live.model.training
    assert live_models.load(copied, dtype="bfloat16").model.dtype == torch.bfloat16
    assert_reloads(copied)


@pytest.mark.parametrize("change, words", [
    (without("model.layers.1.mlp.up_proj.weight"), "no tensor of the folder fills"),
    (without("model.layers.1.input_layernorm.weight"), "no tensor of the folder fills"),
    (lambda t: t | {"model.layers.1.self_attn.q_proj.bias": np.zeros(32, dtype=np.float32)}, "no place for"),
    (lambda t: t | {"model.layers.0.mlp.up_proj.weight": np.zeros((40, 32), dtype=np.float32)}, "another shape|cannot load"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(copied, change, words):
    rewrite(copied, change)
    with pytest.raises(InputError, match=words):
        live_models.load(copied)


def test_odd_options_are_refused(copied):
    with pytest.raises(InputError, match="unknown dtype"):
        live_models.load(copied, dtype="float31")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA"):
            live_models.load(copied, device="cuda")


def test_an_unbuildable_config_is_one_sentence(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "no_such_family"}))
    with pytest.raises(InputError, match="transformers cannot load this model"):
        live_models.load(copied)


@pytest.fixture
def adapter(tiny, tmp_path):
    import peft

    base = live_models.load_folder(tiny("llama")).model
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(base, config)
    torch.manual_seed(3)
    for name, value in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        return tmp_path / "adapter", tiny("llama"), ids, tuned.eval()(ids).logits


def test_an_adapter_answers_as_peft_says(adapter):
    folder, base, ids, expected = adapter
    live = live_models.load(folder, base=base)
    with torch.no_grad():
        found = live.model(ids).logits
        plain = live_models.load(base).model(ids).logits
    assert torch.allclose(found, expected, atol=1e-4) and not torch.allclose(plain, expected, atol=1e-2)
    assert live.tokenizer is not None


def test_views_reach_tied_heads(tiny):
    live = live_models.load_folder(tiny("llama", tie_word_embeddings=True))
    view = live_models.view(live.model, live.anatomy, "model.embed_tokens.weight")
    view.zero_()
    assert not live.model.lm_head.weight.any()


# ------------------------------------------------------------------------------------------------------------------------------ ask


def test_answers_come_side_by_side_and_twice_the_same(tiny):
    models = [tiny("llama"), tiny("qwen2"), tiny("llama")]
    one, two, three = asking.ask(models, "Hola, ¿qué tal?", max_tokens=6, device="cpu")
    assert (one.model, two.model) == (str(models[0]), str(models[1])) and one.chat
    assert one.text == three.text and 1 <= one.tokens <= 6 and one.seconds > 0


def test_a_misspelt_second_model_is_told_before_the_first_is_loaded(tiny, monkeypatch):
    monkeypatch.setattr(live_models, "load", lambda *a, **k: pytest.fail("loaded before all names were checked"))
    with pytest.raises(InputError, match="no such model"):
        asking.ask([tiny("llama"), tiny("llama").parent / "nowhere"], "hi", device="cpu")


def test_greedy_is_the_argmax_of_every_step(tiny):
    """Against a naive loop without cache, whatever the folder's generation_config says."""
    live = live_models.load_folder(tiny("llama"))
    live.model.generation_config.do_sample, live.model.generation_config.temperature = True, 5.0
    ids = live.tokenizer.apply_chat_template([{"role": "user", "content": "2+2"}], add_generation_prompt=True, return_dict=True)["input_ids"]
    start = len(ids)
    for _ in range(8):
        with torch.no_grad():
            ids = [*ids, int(live.model(torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == live.tokenizer.eos_token_id:
            break
    found = asking.answer(live, "m", "2+2", max_tokens=8)
    assert found.text == live.tokenizer.decode(ids[start:], skip_special_tokens=True).strip() and found.tokens == len(ids) - start
    assert found.complete == (ids[-1] == live.tokenizer.eos_token_id)


def test_plain_and_template_prompts(tiny):
    tokenizer = live_models.load_folder(tiny("llama")).tokenizer
    assert tokenizer.decode(asking.encode(tokenizer, "hi", None, False)["input_ids"][0]) == "hi"
    assert tokenizer.decode(asking.encode(tokenizer, "hi", "be kind", False)["input_ids"][0]) == "be kind\n\nhi"
    chat = tokenizer.decode(asking.encode(tokenizer, "hi", "be kind", True)["input_ids"][0])
    assert chat == "<s>system\nbe kind</s>\n<s>user\nhi</s>\n<s>assistant\n"
    plain = asking.ask([tiny("llama", chat=False)], "hi", max_tokens=2, device="cpu")[0]
    assert not plain.chat


@pytest.mark.parametrize("prompt, options, words", [(" ", {}, "empty"), ("x", {"max_tokens": 0}, "at least 1"),
                                                    ("x" * 200, {"max_tokens": 9}, "do not fit")])  # fmt: skip
def test_bad_questions_are_refused(tiny, prompt, options, words):
    with pytest.raises(InputError, match=words):
        asking.ask([tiny("llama")], prompt, device="cpu", **options)


def test_a_template_that_fails_and_a_missing_tokenizer_are_refused(copied):
    (copied / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(InputError, match="cannot render this"):
        asking.ask([copied], "hi", device="cpu")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        asking.ask([copied], "hi", device="cpu")


def test_a_model_spread_over_devices_scores_as_in_one_place(tiny, tmp_path, monkeypatch):
    from accelerate import dispatch_model

    from polygraft.evals.engines.hf import Scorer

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            live_models.load(tiny("llama"), device=live_models.SPREAD)
    monkeypatch.setattr(live_models, "device_for", lambda wanted: wanted)
    spread, whole = (live_models.load(tiny("llama"), device=device) for device in (live_models.SPREAD, "cpu"))
    # the same hooks as over several accelerators: embedding, layers and head in different places
    parts = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    layers = {f"model.layers.{i}": ("disk", "cpu")[i % 2] for i in range(len(spread.model.model.layers))}
    dispatch_model(spread.model, parts | layers, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    pairs, found = [("a", " b"), ("a", " cd"), ("xy", " z")], []
    for live in (spread, whole):
        scores: dict = {}
        scorer = Scorer(live.model, live.tokenizer)
        scorer.pairs(pairs, scores.update)
        found.append([scores[i][0] for i in range(3)])
        assert not scorer.notes
    assert found[0] == pytest.approx(found[1], abs=1e-5)
