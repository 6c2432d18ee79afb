"""What a tokenizer that was made must do elsewhere: in transformers, in llama.cpp's converter, in vLLM, and beside the one it was
made from. Read from files; each check says what was found, so that what was not checked is seen too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polygraft import chat
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint, config_value
from polygraft.errors import UserError
from polygraft.model import load_tokenizer, quiet
from polygraft.result import Table
from polygraft.tokenfile import FILE, Vocabulary
from polygraft.vocab import tables
from polygraft.vocab.metrics import digits, reach
from polygraft.vocab.metrics.counting import Reader
from polygraft.vocab.tokenizer import llamacpp, sentencefile
from polygraft.vocab.tokenizer.folder import check_ids, read_tokenizer

# scripts, spaces, numbers, a character of four bytes, one that is composed: what cutting and joining may lose
PROBE = ("The cat's 12 mice ran 3.5 km.", "Привет, мир! Ещё 1234567 слов.", "naïve café — déjà vu", "1 000 000,00 руб.",
         "  two  spaces\n\n\tand a tab ", "x = [i**2 for i in range(10)]  # ok", "你好，世界。日本語のテキスト", "नमस्ते दुनिया",
         "مرحبا بالعالم", "สวัสดีชาวโลก", "\U0001f999\U0001f469\U0001f3fd\u200d\U0001f680")  # fmt: skip
TURNS = ({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Да?"})
VLLM_MULTIPLE = 64


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and whether it is as it must be (None: it says something, and no more)."""

    name: str
    found: str
    ok: bool | None


def loadable(folder: Path, before: Path | Mapping[str, Path] | None = None) -> list[Check]:
    """Check the tokenizer in `folder`, beside the one in `before`, and the tensors where a model lies there too."""
    made = read_tokenizer(folder)
    place = made.files[FILE].parent
    old = None if before is None else read_tokenizer(before)
    model = Checkpoint.open(place) if (place / "config.json").is_file() else None
    rows = None if model is None else config_value(model.config, "vocab_size")
    found = [*own(made.vocabulary, old.vocabulary if old else None), *in_transformers(place, made.vocabulary, rows)]
    if old is not None:
        found += names_and_chats(place, old.files)
    found += in_llamacpp(place, made.vocabulary, model)
    found += in_vllm(made.vocabulary, model) if model is not None else ()
    return found


def table(checks: Sequence[Check], title: str = "Does it load elsewhere") -> Table:
    """One row a check."""
    words = {True: "yes", False: "NO", None: ""}
    return Table(title, ("check", "found", "as it must be"), tuple((c.name, c.found, words[c.ok]) for c in checks),
                 "vLLM and llama.cpp are not run: their conditions are checked on the files")


def failed(checks: Iterable[Check]) -> tuple[str, ...]:
    """A sentence for each check that failed."""
    return tuple(f"{c.name}: {c.found}" for c in checks if c.ok is False)


# ------------------------------------------------------------------------------------------------------------- by itself


def own(made: Vocabulary, old: Vocabulary | None) -> Iterator[Check]:
    """Ids, round trips, tokens that nothing leads to, control tokens, digits; beside `old` where there is one."""
    try:
        check_ids(made)
        yield Check("ids", f"{len(made.names):,} tokens have the id of the file in the tokenizers library", True)
    except UserError as e:
        yield Check("ids", str(e.found), False)
    lost, before = broken(made), [] if old is None else broken(old)
    were = f" (before: {len(PROBE) - len(before)})" if before else ""
    yield Check("round trip", f"{len(PROBE) - len(lost)} of {len(PROBE)} texts come back{were}", set(lost) <= set(before))
    yield reached(made, old)
    parted = reach.parted_control(made)
    yield Check("control tokens", ", ".join(parted[:5]) + " are cut" if parted else f"{len(made.control)}, each one id", not parted)
    scheme = digits.scheme(made).words
    was = scheme if old is None else digits.scheme(old).words
    yield Check("digits", scheme if was == scheme else f"{scheme}, before: {was}", was == scheme)


def broken(vocabulary: Vocabulary) -> list[str]:
    """Texts of the probe that do not come back from their ids; white space at the start, which SentencePiece adds, apart."""
    ids = Reader(vocabulary).encode(PROBE)
    back = vocabulary.tokenizer.decode_batch(ids, skip_special_tokens=False)
    return [text for text, again in zip(PROBE, back) if again.lstrip(" ") != text.lstrip(" ")]


def reached(made: Vocabulary, old: Vocabulary | None) -> Check:
    """Whether there are tokens that no text leads to, other than those that were so before."""
    now = {made.names[i] for i in reach.unreachable(made)}
    was = set() if old is None else {old.names[i] for i in reach.unreachable(old)}
    new = sorted(now - was)
    words = f"{len(now):,} tokens that no text leads to" + (f" ({len(was):,} before)" if old is not None else "")
    return Check("reach", words + (f", new: {', '.join(map(repr, new[:3]))}" if new and old is not None else ""),
                 not new if old is not None else None)


# ----------------------------------------------------------------------------------------------------------- elsewhere


def in_transformers(folder: Path, made: Vocabulary, rows: int | None) -> Iterator[Check]:
    """Loaded by AutoTokenizer, saved and loaded again: the ids of tokenizer.json each time, no token beyond the model's rows."""
    expected = Reader(made).encode(PROBE)
    with quiet(), tempfile.TemporaryDirectory(prefix="polygraft-") as scratch:
        try:
            loaded = load_tokenizer(folder)
            loaded.save_pretrained(scratch)
            again = load_tokenizer(Path(scratch))
        except UserError as e:
            yield Check("transformers", str(e.found), False)
            return
        kind = type(loaded).__name__
        if not loaded.is_fast:
            yield Check("transformers", f"{kind}, which is no fast tokenizer", False)
            return
        for name, one in (("transformers", loaded), ("saved and loaded again", again)):
            wrong = [text for text, ids in zip(PROBE, expected) if one(text, add_special_tokens=False)["input_ids"] != ids]
            yield Check(name, f"{kind}: other ids for {wrong[0]!r}" if wrong else f"{kind}: the same ids", not wrong)
        if more := {t: i for t, i in loaded.get_vocab().items() if t not in made.by_name}:  # a class may add what it always has
            named = ", ".join(f"{t!r} ({i})" for t, i in sorted(more.items(), key=lambda item: item[1])[:3])
            yield Check("transformers: more tokens", f"{kind} adds {named}; the model has {rows or 'unknown'} rows",
                        rows is None or max(more.values()) < rows)


def names_and_chats(folder: Path, before: Mapping[str, Path]) -> Iterator[Check]:
    """The same tokens as bos, eos, pad ...; the same template, and the same text and control tokens of a chat."""
    new, old = chat.plain(_extras(folder)), chat.plain(before)
    if new is None or old is None:
        return
    changed = [f"{n}: {old.names.get(n)!r} is {new.names.get(n)!r}" for n in sorted(old.names.keys() | new.names.keys())
               if old.names.get(n) != new.names.get(n)]
    yield Check("special tokens", "; ".join(changed) or f"{len(new.names)} alike", not changed)
    if old.chat_template is None and new.chat_template is None:
        yield Check("chat template", "none, as before", True)
        return
    same = old.chat_template == new.chat_template
    yield Check("chat template", "the same text" if same else "another text", same)
    try:
        texts = [c.apply_chat_template(TURNS, add_generation_prompt=True) for c in (old, new)]
    except Exception as e:  # a template may raise whatever it likes
        yield Check("a chat", f"the template cannot render it: {str(e)[:80]}", None)
        return
    lost = [t for t in _control(old, texts[0]) if t not in _control(new, texts[1])]
    ok = texts[0] == texts[1] and not lost
    yield Check("a chat", f"{len(set(_control(new, texts[1])))} control tokens, rendered as before" if ok else
                f"lost {', '.join(lost)}" if lost else "rendered otherwise", ok)  # fmt: skip


def _control(tokenizer: chat.Plain, text: str) -> list[str]:
    """Control tokens of a text, as they are found in it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = {i: t.content for i, t in tokenizer.core.get_added_tokens_decoder().items() if t.special}
    return [special[i] for i in ids if i in special]


def _extras(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in folder.iterdir() if p.is_file()}


def in_llamacpp(folder: Path, made: Vocabulary, model: Checkpoint | None) -> Iterator[Check]:
    """What llama.cpp's converter takes from the folder: the pre-tokenizer, merges and special tokens, names of tensors."""
    yield pre_tokenizer(made, folder)
    if made.kind == "BPE":
        rows = None if model is None else config_value(model.config, "vocab_size")
        special, merges = llamacpp.special_tokens(folder, rows)
        beyond = [f"{name} {i}" for name, i in special.items() if i not in made.names]
        named = ", ".join(f"{name} {made.names[i]}" for name, i in special.items() if i in made.names) or "no special tokens"
        found = f"{merges:,} merges, {named}" + (f"; no token: {', '.join(beyond)}" if beyond else "")
        yield Check("llama.cpp: merges", found, merges == len(made.merges) and not beyond)
    if model is not None:
        anatomy = Anatomy.of(model.config, model.tensors, where=folder)
        kind = str(model.config.get("model_type"))
        unknown = llamacpp.unknown_names(kind, anatomy.layers, model.tensors)
        if unknown is None:
            yield Check("llama.cpp: tensors", f"it has no architecture for {kind}", None)
        else:
            found = f"no name for {', '.join(unknown[:3])}" if unknown else f"{len(model.tensors):,} names known"
            yield Check("llama.cpp: tensors", found, not unknown)


def pre_tokenizer(made: Vocabulary, folder: Path) -> Check:
    """The name that llama.cpp has for this pre-tokenizer; the converter does not find it by itself once the vocabulary changed.

    Of SentencePiece, whether its file is there, has the same ids, and cuts text alike.
    """
    name = "llama.cpp: pre-tokenizer"
    if made.alphabet != "bytes" and (path := folder / sentencefile.FILE).is_file():
        pieces = sentencefile.pieces(path.read_bytes(), path)
        same = pieces == [made.names.get(i) for i in range(len(pieces))]
        alike = sum(a == b for a, b in zip(sentencefile.cuts(path, PROBE), Reader(made).encode(PROBE))) if same else 0
        words = f"{alike} of {len(PROBE)} texts cut alike" if same else "other ids than tokenizer.json"
        return Check(name, f"SentencePiece, {path.name} with {len(pieces):,} pieces: {words}", alike == len(PROBE))
    if made.kind != "BPE":
        return Check(name, f"{made.kind}: converted from a SentencePiece file only, which is not written", False)
    if made.alphabet == "bytes":
        found = llamacpp.pre_tokenizer(made)
        if found is None:
            return Check(name, "it has none of this structure", False)
        return Check(name, f"`{found[0]}` ({found[1]}); the converter must be told, since it knows ids of a sample text only", True)
    if made.falls_back and llamacpp.by_merges_of_text(made):
        return Check(name, "SentencePiece by its merges: `gemma4` as tokenizer.ggml.model, which the converter must be told", True)
    if made.falls_back:
        return Check(name, "SentencePiece: taken from tokenizer.json without scores, by which llama.cpp merges", False)
    return Check(name, "neither bytes nor SentencePiece with bytes to fall back on", False)


def in_vllm(made: Vocabulary, model: Checkpoint) -> Iterator[Check]:
    """vLLM loads tables with exactly vocab_size rows, and takes ids below that; it pads them in memory itself."""
    anatomy = Anatomy.of(model.config, model.tensors, where=model.path)
    rows = config_value(model.config, "vocab_size")
    shapes = {key: model.tensors[key].shape[0] for key in tables.stored(model, anatomy)}
    wrong = [f"{key} has {n:,}" for key, n in shapes.items() if n != rows]
    found = f"{'; '.join(wrong)}, vocab_size is {rows}" if wrong else f"vocab_size {rows:,}, as every table has"
    yield Check("vLLM: rows", found, not wrong)
    yield Check("vLLM: ids", f"the largest is {made.size - 1:,}", rows is not None and made.size <= rows)
    if rows:
        yield Check("vLLM: padding", f"in memory to a multiple of {VLLM_MULTIPLE}: {-rows % VLLM_MULTIPLE} rows more", None)
