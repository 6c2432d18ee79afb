"""The result's tokenizer: the donor's tokens at the donor's ids; added tokens, names and chat template of the instruct model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polygraft.errors import InputError
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.propagation.trio import Member
from polygraft.vocab.tokenizer.folder import CONFIG, TokenizerFolder, anchored, beside
from polygraft.vocab.tokenizer.trim import moved

TEMPLATES = ("chat_template.jinja", "chat_template.json", "special_tokens_map.json")
TAKEN = ("additional_special_tokens", "extra_special_tokens", "chat_template", "model_max_length", "padding_side",
         "truncation_side", "add_bos_token", "add_eos_token", "clean_up_tokenization_spaces")  # fmt: skip


@dataclass(frozen=True)
class Joined:
    """`vocabulary` of the result (its path is the donor's); `files` and `config` (tokenizer_config.json) that belong beside it.

    `kept` int64 [n, 2]: new id and instruct id of the tokens whose rows stay the instruct model's, ascending; `appended`: tokens
    that the donor lacked.
    """

    vocabulary: Vocabulary
    files: TokenizerFolder
    config: dict[str, Any]
    kept: np.ndarray
    appended: tuple[str, ...]


def joined(instruct: Member, donor: Member) -> Joined:
    """The donor's tokenizer with what makes the instruct model one. Raises InputError for a special token that neither has."""
    mine, theirs = instruct.vocabulary, donor.vocabulary
    added, appended, size = dict(theirs.added), [], theirs.size
    for _, entry in sorted(mine.added.items()):
        content = entry["content"]
        if (i := theirs.id_of(content)) is None:
            i, size = size, size + 1
            appended.append(content)
        added[i] = dict(entry) | {"id": i}
    tree = dict(theirs.tree) | {"added_tokens": [added[i] for i in sorted(added)]}
    made = replace(theirs, tree=tree, added=added)
    if mine.alphabet == made.alphabet and mine.tree.get("post_processor") is not None:  # what opens and closes a text
        new = {i: made.by_name[t] for i, t in mine.names.items() if t in made.by_name}
        tree["post_processor"] = moved(mine.tree, mine, new)["post_processor"]
    outside = [i for i, t in sorted(added.items()) if t["content"] not in made.ids]
    if made.kind == "BPE" and outside != list(range(len(made.ids), len(made.ids) + len(outside))):
        tree = anchored(tree)  # the library numbers them so, unless they are in the model's vocabulary
    made = Vocabulary(made.path, tree, made.alphabet, _ids(tree, made.ids), added)
    config = _config(instruct.folder.config, beside(donor.folder.config, made))
    _check_named(config, made, mine)
    found = replace(donor.folder, files=_beside(instruct.folder, donor.folder))
    return Joined(made, found, config, _kept(made, mine), tuple(appended))


def _ids(tree: Mapping[str, Any], ids: dict[str, int]) -> dict[str, int]:
    vocab = tree["model"]["vocab"]
    return dict(vocab) if isinstance(vocab, Mapping) else ids


def _kept(made: Vocabulary, instruct: Vocabulary) -> np.ndarray:
    """Added tokens, control tokens among them, that the instruct model has as one token."""
    pairs = [(i, old) for i, t in sorted(made.added.items()) if (old := instruct.id_of(t["content"])) is not None]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _config(instruct: Mapping[str, Any], donor: Mapping[str, Any]) -> dict[str, Any]:
    """The donor's class and vocabulary, the instruct model's special tokens and habits."""
    mine = {k: v for k, v in instruct.items() if k.endswith("_token") or k in TAKEN}
    return {k: v for k, v in donor.items() if not k.endswith("_token") and k not in TAKEN} | mine


def _beside(instruct: TokenizerFolder, donor: TokenizerFolder) -> dict[str, Any]:
    """Files: the donor's, but chat templates and the map of special tokens from the instruct model."""

    def of_chat(name: str) -> bool:
        return name in TEMPLATES or name.endswith(".jinja")

    return {n: p for n, p in donor.files.items() if not of_chat(n)} | {n: p for n, p in instruct.files.items() if of_chat(n)}


def named(config: Mapping[str, Any]) -> dict[str, str]:
    """Role -> special token, as tokenizer_config.json names them."""
    found = {k: v.get("content") if isinstance(v, Mapping) else v for k, v in config.items() if k.endswith("_token")}
    more = config.get("additional_special_tokens") or config.get("extra_special_tokens") or ()
    listed = [v.get("content") if isinstance(v, Mapping) else v for v in (more.values() if isinstance(more, Mapping) else more)]
    found |= {f"special token {n}": v for n, v in enumerate(listed)}
    return {k: v for k, v in found.items() if isinstance(v, str)}


def _check_named(config: Mapping[str, Any], made: Vocabulary, instruct: Vocabulary) -> None:
    for role, token in named(config).items():
        if made.id_of(token) is None:
            raise InputError("a special token is missing", where=f"{instruct.path.parent / CONFIG}: {role}",
                             found=f"{token!r}, which is in the tokenizer neither of the instruct model nor of the donor",
                             expected="a token of the instruct model's tokenizer.json",
                             fix="add it there with a row of its own, or take it out of tokenizer_config.json")
