"""Group J, propagation: three models that do not belong together, and numbers that are none, are refused with both values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import trios
from polygraft.errors import InputError, StepFailed
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.vocab.propagation import steps

pytestmark = pytest.mark.group("J")
EMBED, HEAD, Q = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def three(tiny, tmp_path_factory):
    root, base = tmp_path_factory.mktemp("three"), tiny("llama")
    return {"base": base, "instruct": trios.instruct(base, root / "i", trios.noisy(0.05)), "donor": trios.donor(base, root / "d", noise=0.1)}


def tensors(change, **said):
    """A model with other numbers, and other words in its config."""

    def make(source: Path, out: Path) -> Path:
        values, config, _ = trios.read(source)
        return trios.write(out, change(values), config | said, source)

    return make


def files(name, change):
    """A model with another small file."""

    def make(source: Path, out: Path) -> Path:
        shutil.copytree(source, out)
        tree = json.loads((out / name).read_text())
        change(tree)
        (out / name).write_text(json.dumps(tree))
        return out

    return make


def row(key, value):
    def change(values):
        values[key][70] = value
        return values

    return change


def narrower(values):
    return {k: np.delete(v, 0, -1) if v.shape[-1] == 32 else v for k, v in values.items()}


def shorter(values):
    return {k: v[:40] if k.endswith(("gate_proj.weight", "up_proj.weight")) else v[:, :40] if "down_proj" in k else v
            for k, v in values.items()}  # fmt: skip


def untied(values):
    return {k: v for k, v in values.items() if k != HEAD}


def other(source: Path, out: Path) -> Path:
    """A model of the same shapes that has nothing to do with the base."""
    rng = np.random.default_rng(8)
    return tensors(lambda v: {k: rng.normal(size=x.shape).astype(np.float32) * 0.2 for k, x in v.items()})(source, out)


def larger(tree):
    tree["added_tokens"].append(tree["added_tokens"][1] | {"id": 5000, "content": "<far>"})


def twice(tree):
    tree["model"]["vocab"]["twice"] = 7


def renamed(tree):
    vocab = tree["model"]["vocab"]
    one, two = (next(t for t, i in vocab.items() if i == n) for n in (30, 31))
    vocab[one], vocab[two] = 31, 30


REFUSED = {  # what it is -> (which model, how it is made, words of the refusal: both values)
    "donor with another body": ("donor", other, ("not built on the base", "tensors differ")),
    "instruct model of another base": ("instruct", other, ("not trained from the base", "|instruct - base| / |base| 1.")),
    "donor with more layers": ("donor", lambda s, o: tensors(lambda v: v | {k.replace("layers.1", "layers.2"): x for k, x in v.items()},
                               num_hidden_layers=3)(s, o), ("layers", ": 2;", ": 3")),
    "donor of another architecture": ("donor", tensors(lambda v: v, model_type="mistral"), ("model_type", "llama", "mistral")),
    "donor of another width": ("donor", tensors(narrower, hidden_size=31), ("width of the embedding", ": 32;", ": 31")),
    "instruct model of another width": ("instruct", tensors(narrower, hidden_size=31), ("width of the embedding", ": 32;", ": 31")),
    "donor with tied embeddings": ("donor", tensors(untied, tie_word_embeddings=True), ("tied embeddings", ": False", ": True")),
    "instruct model with tied embeddings": ("instruct", tensors(untied, tie_word_embeddings=True), ("tied embeddings", ": False", ": True")),
    "instruct model of another size of FFN": ("instruct", tensors(shorter, intermediate_size=40), ("mlp", "[32, 48]", "[32, 40]")),
    "donor's ids beyond its embedding": ("donor", files("tokenizer.json", larger), ("ids beyond the embedding", "id 5000", "below 320")),
    "instruct model's ids beyond its embedding": ("instruct", files("tokenizer.json", larger), ("ids beyond the", "id 5000", "below 264")),
    "two tokens of one id": ("donor", files("tokenizer.json", twice), ("duplicates", "id 7 is")),
    "base and instruct model read otherwise": ("instruct", files("tokenizer.json", renamed), ("other vocabularies", "token 30")),
    "special token that nobody has": ("instruct", files("tokenizer_config.json", lambda t: t.update(eos_token="<|gone|>")),
                                      ("special token is missing", "<|gone|>", "eos_token")),
    "config that names an id of no token": ("instruct", files("config.json", lambda t: t.update(eos_token_id=9999)), ("9999",)),
    "merge of a token that is not there": ("donor", files("tokenizer.json", lambda t: t["model"]["merges"].append(["q", "zzz"])), ("zzz",)),
    "no tokenizer": ("donor", lambda s, o: trios.write(o, *trios.read(s)[:2], o), ("no tokenizer",)),
    "instruct row that is no number": ("instruct", tensors(row(EMBED, np.nan)), ("not finite",)),
    "base row that is no number": ("base", tensors(row(HEAD, np.inf)), ("not finite",)),
    "donor row that is no number": ("donor", tensors(row(EMBED, np.nan)), ("not finite", "row 70")),
    "donor's body that is no number": ("donor", tensors(lambda v: v | {Q: v[Q] * np.nan}), ("not built on the base",)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("case", REFUSED)
def test_three_models_that_do_not_belong_together(case, three, tmp_path):
    which, make, words = REFUSED[case]
    found = three | {which: make(three[which], tmp_path / which)}
    with pytest.raises(InputError) as refused:
        steps.run(steps.Propagate(**{k: str(v) for k, v in found.items()}), Context(resolve, Path), tmp_path / "out")
    text = refused.value.render()
    assert all(w in text for w in words), text
    assert refused.value.fix or refused.value.expected


ODD = {  # numbers that are odd, and are numbers all the same
    "a base of zeros": ("base", lambda v: v | {EMBED: v[EMBED] * 0}),
    "columns of zeros": ("base", lambda v: v | {EMBED: v[EMBED] * (np.arange(32) > 4)}),
    "an instruct model of zeros": ("instruct", lambda v: v | {EMBED: v[EMBED] * 0}),
    "the smallest numbers": ("base", lambda v: v | {EMBED: v[EMBED] * 1e-44}),
    "the largest numbers": ("instruct", lambda v: v | {EMBED: v[EMBED] * 1e30}),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("mode", ["overlap", "procrustes", "delta"])
def test_odd_numbers_give_numbers_or_a_refusal(case, mode, three, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "checked", lambda job, model: [])
    which, change = ODD[case]
    found = three | {which: tensors(change)(three[which], tmp_path / which)}
    try:
        result = steps.run(steps.Propagate(**{k: str(v) for k, v in found.items()}, mode=mode), Context(resolve, Path), tmp_path / "out")
    except InputError as e:
        assert "finite" in e.render()
        return
    except StepFailed as e:
        assert "does not fit into the file's numbers" in e.render()
        return
    assert "NaN" not in json.dumps(result.to_json())
    assert all(np.isfinite(v).all() for v in trios.read(tmp_path / "out/model")[0].values())
