"""Importance matrices: llama.cpp's own names, means as its reader computes them, both formats byte by byte, languages told apart."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny as tinymodels
from polygraft.errors import StepFailed
from polygraft.model import load
from polygraft.prune import imatrix
from polygraft.prune.imatrix import Agreements, Entry, agreement, architecture, name
from polygraft.prune.pruning import anatomy_of, read
from polygraft.prune.sites import sites
from polygraft.recipe import run_step
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import TABLE

STEP = next(s for s in TABLE if s.name == "prune.imatrix")
KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Loader:
    """The GGUF format read from its description (ggml-org/ggml docs/gguf.md), with no library."""

    def __init__(self, path):
        self.raw, self.at = path.read_bytes(), 0
        assert self.raw[:4] == b"GGUF"
        self.at = 4
        assert self.take("I") == 3
        tensors, pairs = self.take("Q"), self.take("Q")
        self.told = {self.text(): self.value(self.take("I")) for _ in range(pairs)}
        heads = [(self.text(), [self.take("Q") for _ in range(self.take("I"))], self.take("I"), self.take("Q")) for _ in range(tensors)]
        start = -(-self.at // 32) * 32
        self.tensors = {}
        for key, sizes, kind, offset in heads:
            assert kind == 0, "F32 alone is read"
            flat = np.frombuffer(self.raw, "<f4", int(np.prod(sizes)), start + offset)
            self.tensors[key] = (sizes, flat)

    def take(self, kind):
        (value,) = struct.unpack_from("<" + kind, self.raw, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.raw[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, n = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(n)]
        return self.take(KINDS[kind])

    def means(self):
        """What llama-quantize makes of it: sums over rounded counts, 1 where there is no count."""
        out = {}
        for key, (sizes, sums) in self.tensors.items():
            if key.endswith(".in_sum2"):
                shape, counts = self.tensors[key.removesuffix(".in_sum2") + ".counts"]
                assert shape == [1, sizes[1] if len(sizes) > 1 else 1]
                each = np.repeat(np.rint(counts), sizes[0])
                out[key.removesuffix(".in_sum2")] = np.where(each > 0, sums / np.maximum(each, 1), 1.0)
        return out


def read_dat(path):
    """The older format as llama-quantize reads it: values / calls."""
    raw, at, out = path.read_bytes(), 4, {}
    for _ in range(struct.unpack_from("<i", raw)[0]):
        (n,) = struct.unpack_from("<i", raw, at)
        label = raw[at + 4 : at + 4 + n].decode()
        calls, size = struct.unpack_from("<ii", raw, at + 4 + n)
        at += 12 + n
        out[label] = np.frombuffer(raw, "<f4", size, at) / calls
        at += 4 * size
    chunks, n = struct.unpack_from("<ii", raw, at)
    assert at + 8 + n == len(raw)
    return out, chunks, raw[at + 8 :].decode()


@pytest.fixture
def corpora(tmp_path):
    rng = np.random.default_rng(0)
    for tag, letters in (("en", "abcdefg "), ("sw", "uvwxyz ")):
        lines = ["".join(rng.choice(list(letters), 60)) for _ in range(40)]
        (tmp_path / f"{tag}.txt").write_text("\n".join(lines) + "\n")
    return {"en": str(tmp_path / "en.txt"), "sw": str(tmp_path / "sw.txt")}


def fields(model, corpora, **more):
    return {"model": str(model), "corpus": corpora, "samples": 6, "seq_len": 24, "dtype": "float32"} | more


def made(model, corpora, out, **more):
    return run_step(STEP, STEP.config(**fields(model, corpora, **more)), out)


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_names_are_those_of_llama_cpp(tiny, family):
    import gguf

    source = resolve(str(tiny(family)))
    anatomy = anatomy_of(source)
    kind, known = architecture(anatomy)
    assert known == (family != "opt")  # the one family that llama.cpp does not have
    if not known:
        return
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == kind)
    theirs = gguf.get_tensor_name_map(arch, anatomy.layers)
    shapes = {k: t.shape for k, t in source.weights.tensors.items()}
    for key in (key for keys in sites(anatomy, shapes, 1).values() for key in keys):
        if anatomy.parts[key].expert is None:
            assert theirs.get_name(key, try_suffixes=(".weight",)) == name(anatomy, key)
        else:  # stacked before they are named
            role = {"w1": "gate", "w2": "down", "w3": "up"}.get(key.split(".")[-2], key.split(".")[-2].removesuffix("_proj"))
            assert name(anatomy, key) == f"blk.1.ffn_{role}_exps.weight"
            assert name(anatomy, key).removesuffix(".weight") in {known for _, known in theirs.mapping.values()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "qwen3_moe", "phi3"])
def test_the_file_says_the_mean_square_of_every_input_of_the_mixture(tiny, tmp_path, corpora, family):
    """Against hooks on the whole model, read by a reader that shares no code with the writer."""
    model = tiny(family)
    result = made(model, corpora, tmp_path / "out", calibrate={"en": 1.0, "sw": 2.0})
    loader = Loader(tmp_path / "out" / "imatrix.gguf")
    assert loader.told["general.type"] == "imatrix" and loader.told["imatrix.chunk_size"] == 24
    assert loader.told["imatrix.chunk_count"] >= 1 and len(loader.told["imatrix.datasets"]) == 2
    means = loader.means()
    source = resolve(str(model))
    live = load(source, dtype="float32")
    config = STEP.config(**fields(model, corpora, calibrate={"en": 1.0, "sw": 2.0}))
    text = read(config, Context(model=resolve, data=Path), source, None)
    assert {g: sum(len(b["input_ids"]) for b, of in zip(text.batches, text.of) if of == g) for g in corpora} == {"en": 2, "sw": 4}
    for role, module in (("o", "attn_output"), ("down", "ffn_down")):
        keys = [k for k, p in live.anatomy.parts.items() if p.layer == 1 and p.role == role and k.endswith("weight")]
        if not keys:
            continue
        seen = []
        owner = live.model.get_submodule(live.anatomy.live_name(keys[0]).removesuffix(".weight"))
        hook = owner.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0].detach()))
        with torch.no_grad():
            for batch in text.batches:
                live.model(**batch)
        hook.remove()
        x = torch.cat([v.reshape(-1, v.shape[-1])[w.reshape(-1) > 0] for v, w in zip(seen, text.weighing)]).double()
        np.testing.assert_allclose(means[f"blk.1.{module}.weight"], x.square().mean(0).numpy(), rtol=1e-4)
    assert set(means) == {name(live.anatomy, k) for k in result_keys(live.anatomy, source)}
    assert result.data["tensors"] == len(means)


def result_keys(anatomy, source):
    shapes = {k: t.shape for k, t in source.weights.tensors.items()}
    return [k for i in range(anatomy.layers) for keys in sites(anatomy, shapes, i).values() for k in keys]


def test_the_older_file_says_the_same(tiny, tmp_path, corpora):
    made(tiny("llama"), corpora, tmp_path / "a")
    made(tiny("llama"), corpora, tmp_path / "b", format="dat")
    new = Loader(tmp_path / "a" / "imatrix.gguf").means()
    old, chunks, texts = read_dat(tmp_path / "b" / "imatrix.dat")
    assert set(old) == set(new) and chunks == 6 and "en.txt" in texts
    for key, mean in new.items():
        np.testing.assert_allclose(old[key], mean, rtol=1e-6)


def test_experts_stand_in_one_tensor_and_one_that_nobody_chose_weighs_all_alike(tmp_path):
    found = {"blk.0.ffn_up_exps.weight": Entry(np.array([[1.0, 4.0], [1.0, 1.0], [0.25, 9.0]]), np.array([5, 0, 2]))}
    imatrix.write_gguf(tmp_path / "x.gguf", found, ["sw"], 4, "llama")
    imatrix.check_file(tmp_path / "x.gguf", found)
    imatrix.write_dat(tmp_path / "x.dat", found, ["sw"], 4)
    assert Loader(tmp_path / "x.gguf").means()["blk.0.ffn_up_exps.weight"].tolist() == [1, 4, 1, 1, 0.25, 9]
    assert read_dat(tmp_path / "x.dat")[0]["blk.0.ffn_up_exps.weight"].tolist() == [1, 4, 1, 1, 0.25, 9]


def test_a_file_that_reads_otherwise_is_refused(tmp_path):
    found = {"blk.0.ffn_up.weight": Entry(np.array([[1.0, 4.0]]), np.array([5]))}
    imatrix.write_gguf(tmp_path / "x.gguf", found, ["sw"], 4, "llama")
    other = {"blk.0.ffn_up.weight": Entry(np.array([[1.0, 4.5]]), np.array([5]))}
    with pytest.raises(StepFailed, match="does not read as it was written"):
        imatrix.check_file(tmp_path / "x.gguf", other)


def test_weights_that_are_not_whole_leave_the_means_as_they_are():
    """llama.cpp rounds counts: means must not change by it."""
    entry = Entry(np.array([[2.0]]), np.array([max(1, round(0.3))]))
    assert float(entry.sums[0, 0] / np.rint(entry.tokens[0])) == 2.0


def test_languages_that_rank_inputs_alike_and_those_that_do_not():
    rng = np.random.default_rng(0)
    a = rng.random(200)
    assert agreement(a, a * 3 + 1) == pytest.approx(1) and agreement(a, -a) == pytest.approx(-1)
    assert abs(agreement(a, rng.random(200))) < 0.25
    assert agreement(np.ones(4), np.ones(4)) == 1.0
    from scipy.stats import spearmanr

    b = np.round(a + rng.normal(0, 0.2, 200), 1)  # ties
    assert agreement(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_what_two_languages_agree_on_is_told(tiny, tmp_path, corpora):
    result = made(tiny("llama"), corpora, tmp_path / "out")
    assert set(result.data["agreement"]) == {"en sw"} and -1 <= result.data["agreement"]["en sw"] <= 1
    assert result.maps[0].title.startswith("Least agreement") and any("llama-quantize" in s for s in result.summary)
    assert Agreements(["sw"]).couples == []


def test_a_family_that_llama_cpp_does_not_have_is_told_so(tiny, tmp_path, corpora):
    result = made(tiny("opt"), corpora, tmp_path / "out")
    assert any("opt" in c for c in result.caveats)
