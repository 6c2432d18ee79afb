"""A tokenizer as a folder of files: tokenizer.json, and what stands beside it and says the same ids again.

Chat template and special tokens stay as they are: they go by name. Ids that are written twice (`added_tokens_decoder` of
tokenizer_config.json, added_tokens.json) follow tokenizer.json. Older files of a vocabulary (tokenizer.model, merges.txt ...) would
be read instead of it by some programs, so they are left out and named.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.errors import InputError, StepFailed
from polygraft.tokenfile import FILE, Vocabulary

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
BESIDE = (CONFIG, SPECIAL, ADDED, "chat_template.jinja", "chat_template.json")
STALE = ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json")
TEMPLATES = "additional_chat_templates"
DECODER = "added_tokens_decoder"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token, beside its content


@dataclass(frozen=True)
class TokenizerFolder:
    """`vocabulary` of tokenizer.json, and the `files` by name that belong to it (tokenizer.json too, older formats not).

    `stale` are files of older formats, which hold the old vocabulary only.
    """

    vocabulary: Vocabulary
    files: dict[str, Path]
    stale: tuple[str, ...] = field(default=())

    @cached_property
    def config(self) -> dict[str, Any]:
        """tokenizer_config.json, empty where there is none."""
        found = files.read_json(self.files[CONFIG]) if CONFIG in self.files else {}
        if not isinstance(found, dict) or not isinstance(found.get(DECODER) or {}, dict):
            raise InputError("not the settings of a tokenizer", where=self.files[CONFIG], found=type(found).__name__,
                             expected=f"an object, and in it {DECODER} an object", fix="get the tokenizer again from its source")
        return found

    @property
    def decoder(self) -> dict[int, Mapping[str, Any]]:
        """Added tokens of tokenizer_config.json by id, ascending. Raises InputError for what is none."""
        found = {}
        for i, entry in (self.config.get(DECODER) or {}).items():
            if not (i.isdecimal() and isinstance(entry, Mapping) and isinstance(entry.get("content"), str)):
                raise InputError("an added token that is none", where=self.files[CONFIG], found=f"{i[:20]!r}: {entry!r}"[:80],
                                 expected='an id and {"content": ...}', fix="get the tokenizer again from its source")
            found[int(i)] = entry
        return dict(sorted(found.items()))

    @cached_property
    def tree(self) -> dict[str, Any]:
        """A copy of tokenizer.json with the added tokens that only tokenizer_config.json names: other programs add them when they
        load it. Raises InputError where the id of one belongs to another token."""
        tree = copy.deepcopy(self.vocabulary.tree)
        names, known = self.vocabulary.names, self.vocabulary.by_name
        for i, entry in self.decoder.items():
            content = str(entry["content"])
            if content in known and known[content] == i:
                continue
            if content in known or i in names:
                raise InputError(f"{CONFIG} and {FILE} disagree about a token", where=self.files[CONFIG],
                                 found=f"{content!r} is {i}, and in {FILE} {known.get(content, names.get(i))!r}",
                                 expected="one token an id, one id a token", fix="get the tokenizer again from its source")
            flags = {name: bool(entry.get(name, name == "special")) for name in FLAGS}
            tree.setdefault("added_tokens", []).append({"id": i, "content": content} | flags)
        return tree

    @cached_property
    def whole(self) -> Vocabulary:
        """`vocabulary` with the added tokens that only tokenizer_config.json names."""
        return replace(self.vocabulary, tree=self.tree, added={int(t["id"]): t for t in self.tree.get("added_tokens") or []})


def read_tokenizer(path: Path | Mapping[str, Path]) -> TokenizerFolder:
    """The tokenizer in a folder, in `tokenizer/` or `model/` below it (what a step wrote), or among the `extras` of a model.

    Raises InputError where there is none, and for one that no tokenizer is (see `Vocabulary.open`).
    """
    if isinstance(path, Mapping):
        found, where = dict(path), next(iter(path.values()), Path(FILE)).parent
    else:
        where = _place(path)
        found = {name: where / name for name in (FILE, *BESIDE, *STALE) if (where / name).is_file()}
        found |= {f"{TEMPLATES}/{p.name}": p for p in sorted((where / TEMPLATES).glob("*.jinja"))}
    vocabulary = Vocabulary.open(found.get(FILE), where)
    _ = vocabulary.tokenizer  # refuses what the tokenizers library cannot read, and is needed soon
    kept = {name: p for name, p in found.items() if name in (FILE, *BESIDE) or name.startswith(TEMPLATES)}
    return TokenizerFolder(vocabulary, kept, tuple(name for name in STALE if name in found))


def _place(path: Path) -> Path:
    if path.is_file():
        return path.parent
    return next((p for p in (path / "tokenizer", path, path / "model") if (p / FILE).is_file()), path)


def write_tokenizer(folder: Path, tree: Mapping[str, Any], source: TokenizerFolder,
                    config_changes: Mapping[str, Any] | None = None) -> tuple[str, ...]:  # fmt: skip
    """Write `tree` as tokenizer.json into `folder`, and beside it all that `source` has, with the ids of `tree`.

    Returns the names of files that were left out, because they hold the old vocabulary only. Raises StepFailed where the
    tokenizers library reads other ids than were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomic(folder / FILE, _json(tree))
    made = Vocabulary.open(folder)
    check_ids(made)
    for name, path in source.files.items():
        if name in (FILE, CONFIG):
            continue
        (folder / name).parent.mkdir(exist_ok=True)
        content = path.read_bytes()
        if name == ADDED:
            content = _json({t: made.by_name[t] for t in files.parse_json(content, path) if t in made.by_name})
        files.write_atomic(folder / name, content)
    if CONFIG in source.files or config_changes:
        files.write_atomic(folder / CONFIG, _json(beside(source.config, made) | dict(config_changes or {})))
    return source.stale


def beside(config: Mapping[str, Any], made: Vocabulary) -> dict[str, Any]:
    """tokenizer_config.json with its added tokens at their ids in `made`; what `made` lacks is left out."""
    if DECODER not in config:
        return dict(config)
    entries = {str(i): {k: v for k, v in entry.items() if k != "id"} for i, entry in sorted(made.added.items())}
    return dict(config) | {DECODER: entries}


def check_ids(made: Vocabulary) -> None:
    """Raise StepFailed unless the tokenizers library gives every token the id of the file. It numbers added tokens anew that are
    not in the model's vocabulary, from the number of entries there."""
    tokenizer = made.tokenizer
    for token, i in made.by_name.items():
        if (found := tokenizer.token_to_id(token)) != i:
            raise StepFailed("the tokenizers library reads another id than was written", where=made.path,
                             found=f"{token!r} has {found}", expected=i, fix="please report it with the tokenizer")


def anchored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` (BPE) with its added tokens in the model's vocabulary too, where the library takes their ids from."""
    model = dict(tree["model"])
    vocab = dict(model["vocab"]) | {t["content"]: int(t["id"]) for t in tree.get("added_tokens") or []}
    model["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
    return dict(tree) | {"model": model}


def model_files(extras: Mapping[str, Path], tokenizer: Path, stale: Iterable[str] = STALE) -> dict[str, Path]:
    """The files of a model with another tokenizer: its `extras` with those of the folder `tokenizer` instead of its own."""
    drop = {FILE, *BESIDE, *stale}
    found = {name: path for name, path in extras.items() if name not in drop}
    return found | {name: tokenizer / name for name in read_tokenizer(tokenizer).files}


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
