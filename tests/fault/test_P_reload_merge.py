"""What a merge writes opens with the reference reader, loads with transformers, and computes what a float64 oracle's weights compute."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from folders import read
from oracle import merge_oracle as oracle
from polygraft import files, merge
from polygraft.checkpoint import Checkpoint
from reload import assert_reloads

pytestmark = pytest.mark.group("P")
FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "falcon", "olmo2")
WAYS = ("swap", "swap, many shards", "task", "revert")


def logits(model, ids):
    import torch

    with torch.no_grad():
        return model(ids).logits.double().numpy()


def written_by_the_reference(model: dict, like, out):
    """The oracle's tensors as a folder that safetensors itself wrote."""
    from safetensors.numpy import save_file

    out.mkdir()
    save_file({k: np.ascontiguousarray(v, np.float32) for k, v in model.items()}, out / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "generation_config.json"):
        if (like / name).exists():
            shutil.copy(like / name, out)
    return out


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_models_reload(tiny, tmp_path, family, way):
    import torch

    base, one, two = (tiny(family, layers=4, seed=s, noise=n) for s, n in ((0, 0.0), (1, 0.02), (2, 0.02)))
    b, t, la = (read(p) for p in (base, one, two))
    if way == "task":
        merge.task(models=[one, two], base=base, scales=(0.6, 0.6), out=tmp_path / "out")
        wanted = oracle.task_arithmetic(b, [t, la], [0.6, 0.6])
    elif way == "revert":
        merge.revert(
            expert=one, base=base, bottom=1, top=1, transition=0, embed="base", norm="base", head="base", out=tmp_path / "out"
        )
        wanted = oracle.swap(t, b, 1, 1, 0, 0)
        wanted |= {k: v for k, v in b.items() if oracle.layer_of(k) is None}
    else:
        size = 30_000 if "shards" in way else 5_000_000_000
        merge.swap(task=one, language=two, bottom=1, top=1, transition=1, shard_bytes=size, out=tmp_path / "out")
        wanted = oracle.swap(t, la, 1, 1, 1, 1)
        assert (len(list((tmp_path / "out").glob("*.safetensors"))) > 1) == ("shards" in way)
    model = assert_reloads(tmp_path / "out")
    judge = assert_reloads(written_by_the_reference(wanted, one, tmp_path / "oracle"))
    ids = torch.randint(4, 260, (2, 20), generator=torch.Generator().manual_seed(1))
    assert np.abs(logits(model, ids) - logits(judge, ids)).max() < 1e-4
    assert np.abs(logits(model, ids) - logits(assert_reloads(one), ids)).max() > 1e-3  # the merge did something
    assert files.verify_folder(tmp_path / "out") == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_in_half_precision(tiny, tmp_path, dtype, tied):
    one, two = (tiny("llama", layers=3, seed=s, noise=0.02, dtype=dtype, tie_word_embeddings=tied) for s in (1, 2))
    merge.soup(models=[one, two], out=tmp_path / "out")
    model = assert_reloads(tmp_path / "out")
    assert (model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()) == tied
    assert str(model.dtype) == f"torch.{dtype}"


def test_padded_vocabulary_generation_config_and_chat_template_are_kept(tiny, tmp_path):
    import transformers as hf

    one, two = (tiny("llama", layers=3, seed=s, noise=0.02) for s in (1, 2))
    merge.swap(task=one, language=two, bottom=1, top=1, out=tmp_path / "out")
    model = assert_reloads(tmp_path / "out")
    assert model.config.vocab_size == Checkpoint.open(one).tensors["model.embed_tokens.weight"].shape[0]
    assert model.generation_config.eos_token_id == json.loads((one / "generation_config.json").read_text())["eos_token_id"]
    ours, theirs = (hf.AutoTokenizer.from_pretrained(p, local_files_only=True) for p in (tmp_path / "out", one))
    chat = [{"role": "user", "content": "Habari, 2 + 3?"}]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)
    assert ours("12 embe").input_ids == theirs("12 embe").input_ids
