"""What loads elsewhere: a sound tokenizer passes, each planted fault is seen and named, and llama.cpp's pre-tokenizers are known."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, pre_tokenizers

import tiny
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tokenizer import checks, llamacpp
from test_tokenfile import byte_level, sentencepiece

ROWS = 448


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model folder with a byte-level tokenizer, control tokens and a chat template."""
    out = tmp_path_factory.mktemp("good") / "model"
    tiny.model("llama", vocab_size=ROWS, layers=1).save_pretrained(out)
    byte_level(400).save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (out / "chat_template.jinja").write_text(tiny.CHAT)
    return out


def found(folder, before=None):
    return {c.name: c for c in checks.loadable(folder, before)}


def test_a_sound_model_passes_every_check(good):
    made = found(good, good)
    assert [c for c in made.values() if c.ok is False] == [] and checks.failed(made.values()) == ()
    assert {"ids", "round trip", "reach", "digits", "control tokens", "transformers", "saved and loaded again", "special tokens",
            "chat template", "a chat", "llama.cpp: pre-tokenizer", "llama.cpp: merges", "llama.cpp: tensors", "vLLM: rows", "vLLM: ids",
            "vLLM: padding"} == set(made)
    assert "`gpt-2`" in made["llama.cpp: pre-tokenizer"].found and made["a chat"].found.startswith("2 control tokens")
    shown = checks.table(list(made.values()))
    assert len(shown.rows) == len(made) and shown.rows[0][2] == "yes"


def test_a_tokenizer_alone_is_checked_as_far_as_it_goes(good, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(good / name, tmp_path / name)
    made = found(tmp_path)
    assert not checks.failed(made.values()) and not [n for n in made if n.startswith("vLLM") or n.endswith("tensors")]


def tree(change):
    def edit(folder):
        path = folder / "tokenizer.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return edit


def beside(name, text):
    return lambda folder: (folder / name).write_text(text)


def head(folder):
    """The file has a head of its own, shorter than the embedding."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][:400].copy()
    save_file(tensors, path, {"format": "pt"})


def qwen(folder):
    """transformers' own class for a kind of model may add tokens that the file does not have."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}))


FAULTS = {
    "a token that nothing leads to": (tree(lambda t: t["model"]["vocab"].update(qzqz=420)), "reach", "'qzqz'"),
    "numbers cut otherwise": (tree(lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, t["pre_tokenizer"]]})), "digits", "one digit a token, before"),
    "another end": (beside("tokenizer_config.json", '{"bos_token": "<s>", "eos_token": "<s>"}'), "special tokens", "'</s>' is '<s>'"),
    "another template": (beside("chat_template.jinja", "{{ messages[0].content }}"), "chat template", "another text"),
    "another chat": (beside("chat_template.jinja", "{{ messages[0].content }}"), "a chat", "lost <s>, </s>"),
    "characters that do not come back": (tree(lambda t: t.update(normalizer={"type": "Lowercase"})), "round trip", "of 11 texts"),
    "a pre-tokenizer that llama.cpp lacks": (tree(lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, t["pre_tokenizer"]]})), "llama.cpp: pre-tokenizer", "none of this structure"),
    "a shorter head": (head, "vLLM: rows", "lm_head.weight has 400"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_planted_fault_is_seen_and_named(case, good, tmp_path):
    plant, name, words = FAULTS[case]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    plant(folder)
    made = found(folder, good)
    assert made[name].ok is False and words in made[name].found, made[name]
    assert any(words in line for line in checks.failed(made.values()))


def test_tokens_that_transformers_adds_beyond_the_rows_are_told(good, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    qwen(folder)
    made = list(checks.in_transformers(folder, Vocabulary.open(folder), Vocabulary.open(folder).size))
    more = next(c for c in made if c.name == "transformers: more tokens")
    assert more.ok is False and "<|endoftext|>" in more.found
    roomy = list(checks.in_transformers(folder, Vocabulary.open(folder), ROWS))
    assert next(c for c in roomy if c.name == "transformers: more tokens").ok


# ---------------------------------------------------------------------------------------------------------------- llama.cpp

LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


STRUCTURES = {
    "gpt-2": (GPT2, False),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]), False),
    "llama-bpe": (pre_tokenizers.Sequence([split(llamacpp.LLAMA3), LEVEL]), True),
    "dbrx": (pre_tokenizers.Sequence([split(llamacpp.LLAMA3), LEVEL]), False),
    "qwen2": (pre_tokenizers.Sequence([split(llamacpp.QWEN2), LEVEL]), False),
    "gpt-4o": (pre_tokenizers.Sequence([split(llamacpp.GPT4O), LEVEL]), False),
    "tekken": (pre_tokenizers.Sequence([split(llamacpp.TEKKEN), LEVEL]), True),
    "deepseek-v3": (pre_tokenizers.Sequence([*map(split, llamacpp.DEEPSEEK3), LEVEL]), False),
    "bloom": (pre_tokenizers.Sequence([split(llamacpp.BLOOM), LEVEL]), False),
}


def with_structure(folder, name):
    core = byte_level(300)
    core.pre_tokenizer, whole = STRUCTURES[name]
    value = json.loads(core.to_str())
    value["model"]["ignore_merges"] = whole
    (folder / "tokenizer.json").write_text(json.dumps(value))
    return Vocabulary.open(folder)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_pre_tokenizer_is_known_by_its_structure(name, tmp_path):
    made = with_structure(tmp_path, name)
    assert llamacpp.pre_tokenizer(made)[0] == name
    assert checks.pre_tokenizer(made, tmp_path).ok and f"`{name}`" in checks.pre_tokenizer(made, tmp_path).found
    assert made.tokenizer.encode("Ab'll 123, x").ids  # the pattern compiles and cuts


def test_every_name_is_one_that_was_tested():
    assert {name for name, _ in llamacpp.NAMES.values()} == set(STRUCTURES)


def test_quoted_patterns_part_numbers_and_words_as_their_models_do(tmp_path):
    parts = {name: [p for p, _ in STRUCTURES[name][0].pre_tokenize_str("We're 12345 HELLOworld")] for name in STRUCTURES}
    assert [p for p in parts["smollm"] if p.strip("Ġ").isdigit()] == list("12345")
    assert {"123", "45"} <= set(parts["llama-bpe"]) and {"123", "45"} <= set(parts["gpt-4o"]) and set("12345") <= set(parts["qwen2"])
    assert "'re" in parts["llama-bpe"] and "We're" in parts["gpt-4o"] and "ĠHELLOworld" in parts["gpt-4o"]


PREFIXED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
SENTENCEPIECE = {
    "by its merges": ("bpe", lambda t: None, True, "`gemma4`"),
    "a space before every text": ("bpe", lambda t: t.update(normalizer=PREFIXED), False, "without scores"),
    "words parted": ("bpe", lambda t: t.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁"}), False, "without scores"),
    "merges over newlines": ("bpe", lambda t: (t["model"]["vocab"].update({"\n": 900, "t\n": 901}),
                                               t["model"]["merges"].append(["t", "\n"])), False, "without scores"),
    "no bytes to fall back on": ("bpe", lambda t: t["model"].update(byte_fallback=False), False, "neither bytes"),
    "Unigram": ("unigram", lambda t: None, False, "SentencePiece file"),
}


@pytest.mark.parametrize("case", SENTENCEPIECE)
def test_sentencepiece_vocabularies_say_what_llama_cpp_makes_of_them(case, tmp_path):
    kind, change, ok, words = SENTENCEPIECE[case]
    value = json.loads(sentencepiece(kind).to_str())
    change(value)
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    check = checks.pre_tokenizer(Vocabulary.open(tmp_path), tmp_path)
    assert check.ok is ok and words in check.found


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gguf_has_names_for_the_tensors_of_every_family_but_opt(family, tiny):
    from polygraft.checkpoint import Checkpoint

    model = Checkpoint.open(tiny(family))
    unknown = llamacpp.unknown_names(model.config["model_type"], 2, model.tensors)
    assert unknown is None if family == "opt" else unknown == []
    assert unknown is None or llamacpp.unknown_names(model.config["model_type"], 2, ["model.layers.0.mlp.sideways.weight"])
