"""Selections that a training cannot follow: refused in planning, with where, what was found, what is expected."""

from __future__ import annotations

import numpy as np
import pytest

from polygraft import selectionfile
from polygraft.errors import InputError, RecipeError
from polygraft.evals.callback import WATCHERS
from polygraft.selectionfile import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import embeddings, lora, neurons, sft
from polygraft.tune.config import Around

AROUND = Around({"toy": lambda spec: [{"prompt": "a", "completion": "b"}]}, WATCHERS)
BASE = {"model": "m", "data": ["toy:a"]}
N = "neuron"
NEURONS = {
    "a layer beyond": ((Entry(2, "ffn", N, np.array([0])),), {}, InputError, "no such layer"),
    "a row beyond": ((Entry(0, "ffn", N, np.array([48])),), {}, InputError, "beyond the tensor"),
    "attention among neurons": ((Entry(0, "attn", "q", np.array([1])),), {}, InputError, "not FFN neurons"),
    "an expert of a dense model": ((Entry(0, "ffn", N, np.array([1]), 1),), {}, InputError, "no such expert"),
    "no neuron": ((Entry(0, "ffn", N, np.array([], int)),), {}, RecipeError, "no neuron is selected"),
    "a name that is not there": ((Entry(0, "ffn", N, np.array([1])),), {"select": "s.json:y"}, RecipeError, "no selection of this name"),
}
LORA = {
    "an unknown part": ((), {"parts": ["upp"]}, RecipeError, "no such part"),
    "a layer beyond": ((), {"layers": ["0-2"]}, RecipeError, "no such layer"),
    "layers backwards": ((), {"layers": ["1-0"]}, RecipeError, "no such layer"),
    "not a layer": ((), {"layers": ["first"]}, RecipeError, "no such layer"),
    "a norm": ((), {"parts": ["norm"]}, RecipeError, "nothing is left for LoRA"),
    "the embedding": ((Entry(None, "embed"),), {"select": "s.json"}, RecipeError, "nothing in these parts"),
    "nothing of the selection": ((Entry(0, "ffn", N, np.array([1])),), {"select": "s.json", "layers": ["1"]}, RecipeError, "nothing in these"),
    "another part than selected": ((Entry(0, "ffn", N, np.array([1])),), {"select": "s.json", "parts": ["q"]}, RecipeError, "nothing in these"),
    "attention beside nothing": ((), {"attention": ["q"]}, RecipeError, "stands beside a selection"),
    "rows and columns of one tensor": ((Entry(0, "ffn", N, np.array([1])), Entry(0, "ffn", "down", np.array([1]))), {"select": "s.json"},
                                       InputError, "rows and columns"),
}
EMBEDDINGS = {
    "a token beyond": ("llama", {"rows": ["260-264"]}, RecipeError, "no such token"),
    "new tokens of a model without": ("llama", {"rows": ["264-"]}, RecipeError, "no such token"),
    "one of tied embeddings": ("gpt2", {"tables": "head"}, RecipeError, "one tensor in this model"),
    "an unknown token": ("llama", {"tokens": "words"}, InputError, "no token of this model"),
    "no tokens": ("llama", {"tokens": "empty"}, InputError, "no tokens"),
    "not text": ("llama", {"tokens": "bytes"}, InputError, "UTF-8"),
    "not there": ("llama", {"tokens": "nowhere"}, InputError, "cannot be read"),
}
SFT = {
    "a part of another family": ((Entry(0, "attn", "qkv", None),), {"method": "full"}, InputError, "no such part"),
    "the embedding by LoRA": ((Entry(None, "embed"),), {"method": "lora"}, RecipeError, "LoRA cannot lie on this"),
    "nothing": ((), {"method": "full"}, RecipeError, "the selection is empty"),
}


def refused(step, config, folder, path, kind, words):
    files = Context(model=lambda ref: resolve(folder), data=lambda ref: path / ref, step_id="t", folder=lambda ref: path / ref)
    with pytest.raises(kind, match=words) as found:
        step.plan(config, files)
    assert found.value.where and len(str(found.value)) < 2000


@pytest.mark.group("J")
@pytest.mark.parametrize("case", NEURONS)
def test_neurons(case, tiny, tmp_path):
    entries, more, kind, words = NEURONS[case]
    selectionfile.write(tmp_path / "s.json", {"x": entries})
    refused(neurons.neurons_step(AROUND), neurons.Neurons(**(BASE | {"select": "s.json"} | more)), tiny("llama"), tmp_path, kind, words)


@pytest.mark.group("J")
def test_gate_of_a_model_without(tiny, tmp_path):
    selectionfile.write(tmp_path / "s.json", {"x": (Entry(0, "ffn", N, np.array([1])),)})
    refused(neurons.neurons_step(AROUND), neurons.Neurons(**BASE, select="s.json", parts=["gate"]), tiny("gpt2"), tmp_path, RecipeError, "no such part")


@pytest.mark.group("J")
@pytest.mark.parametrize("case", LORA)
def test_lora(case, tiny, tmp_path):
    entries, more, kind, words = LORA[case]
    selectionfile.write(tmp_path / "s.json", {"x": entries})
    refused(lora.lora_step(AROUND), lora.Lora(**BASE, **more), tiny("llama"), tmp_path, kind, words)


@pytest.mark.group("J")
@pytest.mark.parametrize("case", EMBEDDINGS)
def test_embeddings(case, tiny, tmp_path):
    family, more, kind, words = EMBEDDINGS[case]
    (tmp_path / "words").write_text("q\nnot one token\n")
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    refused(embeddings.embeddings_step(AROUND), embeddings.Embeddings(**BASE, **more), tiny(family), tmp_path, kind, words)


@pytest.mark.group("J")
@pytest.mark.parametrize("case", SFT)
def test_sft(case, tiny, tmp_path):
    entries, more, kind, words = SFT[case]
    selectionfile.write(tmp_path / "s.json", {"x": entries})
    refused(sft.sft_step(AROUND), sft.Sft(**BASE, select="s.json", **more), tiny("llama"), tmp_path, kind, words)
