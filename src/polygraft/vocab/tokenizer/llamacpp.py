r"""What llama.cpp makes of a tokenizer and of tensor names: read from files, as its converter (convert_hf_to_gguf.py) would.

The converter knows the pre-tokenizer of a byte-level vocabulary by a hash of the ids of a sample text. Any change of the vocabulary
changes that hash, and it stops with "BPE pre-tokenizer was not recognized". What llama.cpp does at run time, however, hangs on a
name in the file (`tokenizer.ggml.pre`) that stands for a list of patterns; so the name is found here by the patterns. Patterns:
tokenizer.json as quoted in llama.cpp's src/llama-vocab.cpp, `llm_tokenizer_bpe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polygraft.tokenfile import SPACE, Vocabulary

_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTED}|{_WORDS}|\p{{N}}{{1,3}}{_REST}"
QWEN2 = rf"{_CONTRACTED}|{_WORDS}|\p{{N}}{_REST}"
GPT4O = _CASED % (_CONTRACTED + "?", _CONTRACTED + "?") + r"|\p{N}{1,3}" + _REST.replace(r"[\r\n]*|", r"[\r\n/]*|")
TEKKEN = _CASED % ("", "") + r"|\p{N}" + _REST.replace(r"[\r\n]*|", r"[\r\n/]*|")
HAN = r"[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK3 = (r"\p{N}{1,3}", HAN,
             r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")  # fmt: skip
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
# patterns, and whether a word that is a token is taken whole (`ignore_merges`) -> the name in llama.cpp, what it is in words
NAMES: dict[tuple[tuple[str, ...], bool], tuple[str, str]] = {
    ((GPT2,), False): ("gpt-2", "GPT-2's pattern"),
    ((r"\p{N}", GPT2), False): ("smollm", "single digits, then GPT-2's pattern"),
    ((LLAMA3,), True): ("llama-bpe", "Llama 3's pattern, words that are tokens taken whole"),
    ((LLAMA3,), False): ("dbrx", "Llama 3's pattern, by merges alone"),
    ((QWEN2,), False): ("qwen2", "Qwen 2's pattern"),
    ((GPT4O,), False): ("gpt-4o", "GPT-4o's pattern"),
    ((TEKKEN,), True): ("tekken", "Tekken's pattern, words that are tokens taken whole"),
    (DEEPSEEK3, False): ("deepseek-v3", "DeepSeek V3's three patterns"),
    ((BLOOM,), False): ("bloom", "BLOOM's pattern"),
}
# model_type of config.json -> the architecture's name in the gguf package
ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen2_moe": "qwen2moe", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "gemma3": "gemma3", "phi3": "phi3",
    "gpt2": "gpt2", "gpt_neox": "gptneox", "falcon": "falcon", "bloom": "bloom", "cohere": "command-r", "cohere2": "cohere2",
    "olmo": "olmo", "olmo2": "olmo2", "stablelm": "stablelm", "starcoder2": "starcoder2", "smollm3": "smollm3",
    "granite": "granite",
}  # fmt: skip


def patterns(tree: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The patterns by which text is parted before merges, in order; None for a part that is not told by a pattern."""
    found: list[str] = []
    for part in _parts(tree.get("pre_tokenizer")):
        kind = part.get("type")
        if kind == "ByteLevel":
            found += [GPT2] if part.get("use_regex", True) else []
        elif kind == "Digits":
            found.append(r"\p{N}" if part.get("individual_digits") else r"\p{N}+")
        elif kind == "Split" and isinstance(pattern := part.get("pattern"), Mapping) and not part.get("invert"):
            found.append(str(pattern["Regex"]) if "Regex" in pattern else re.escape(str(pattern.get("String"))))
        elif kind == "Split" and isinstance(pattern, Mapping) and part.get("behavior") == "Removed":
            found.append(str(pattern.get("Regex")))  # what does not match is thrown away: nothing, of a pattern that takes all
        else:
            return None
    return tuple(p.replace("\r", r"\r").replace("\n", r"\n") for p in found)


def _parts(section: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(section, Mapping):
        return
    if section.get("type") == "Sequence":
        for inner in section.get("pretokenizers") or []:
            yield from _parts(inner)
    else:
        yield section


def pre_tokenizer(vocabulary: Vocabulary) -> tuple[str, str] | None:
    """(llama.cpp's name, in words) of a byte-level vocabulary's pre-tokenizer; None where llama.cpp has none of its structure."""
    found = patterns(vocabulary.tree)
    whole = bool(vocabulary.model.get("ignore_merges"))
    return NAMES.get((found, whole)) if found is not None else None


def by_merges_of_text(vocabulary: Vocabulary) -> bool:
    """Whether a SentencePiece vocabulary can be run by its merges, as `gemma4` (tokenizer.ggml.model): spaces are written `▁` and
    nothing is put before a text, and text is parted at newlines only, which no merge may cross."""
    found = vocabulary.tree.get("normalizer") or {}
    steps = found.get("normalizers", []) if found.get("type") == "Sequence" else [found]
    plain = [(s.get("type"), s.get("pattern"), s.get("content")) for s in steps] == [("Replace", {"String": " "}, SPACE)]
    parts = list(_parts(vocabulary.tree.get("pre_tokenizer")))
    whole = all(p.get("type") == "Split" and p.get("pattern") == {"String": " "} for p in parts)  # there are none left
    crossed = any("\n" in a + b and (a + b).strip("\n") for a, b in vocabulary.merges)
    return plain and whole and not crossed and not vocabulary.model.get("ignore_merges")


def unknown_names(model_type: str, layers: int, keys: Iterable[str]) -> list[str] | None:
    """Tensors that the gguf package has no name for; None where it has no architecture for this kind of model."""
    import gguf

    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    if (arch := known.get(ARCHITECTURES.get(model_type, ""))) is None:
        return None
    names = gguf.get_tensor_name_map(arch, layers)

    def has(key: str) -> bool:
        stacked = re.sub(r"experts\.\d+\.", "experts.", key)  # the converter stacks experts
        several = (stacked, stacked.removeprefix("transformer."))
        return any(names.get_name(k, try_suffixes=(".weight", ".bias")) is not None for k in several)

    return [key for key in keys if not has(key) and not key.endswith((".attn.bias", ".masked_bias", "rotary_emb.inv_freq"))]


def special_tokens(folder: Path, rows: int | None) -> tuple[dict[str, int], int]:
    """Ids of bos, eos, pad ... and the number of merges, as gguf's own reader takes them from a folder."""
    import gguf

    found = gguf.SpecialVocab(folder, load_merges=True, n_vocab=rows)
    return dict(found.special_token_ids), len(found.merges)
