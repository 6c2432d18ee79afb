"""tokenizer.model, SentencePiece's own file: pieces by id with scores, which llama.cpp's converter reads instead of tokenizer.json.

It is a protobuf message (sentencepiece_model.proto): field 1 a piece, field 2 how it was trained, field 3 how text is normalised.
Pieces are kept byte for byte, so that scores, and with them every cut, stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polygraft.errors import InputError

FILE = "tokenizer.model"
PIECE, TRAINER = 1, 2
SIZE = 4  # vocab_size of the training
IDS = {40: 0, 41: 1, 42: 2, 43: -1}  # unk, bos, eos, pad, and what they are where nothing is said
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5


def fields(data: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """(number, value, the field as it stands) of a message. Raises ValueError where it is none."""
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if wire == BYTES else ({EIGHT: 8, FOUR: 4}[wire], at)
            value, at = data[at : at + size], at + size
        if at > len(data) or not number:
            raise ValueError("the message ends in the middle of a field")
        yield number, value, data[start:at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the message ends in the middle of a number")
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at


def _number(field: int, value: int) -> bytes:
    return _coded(field << 3 | VARINT) + _coded(value & (1 << 64) - 1)


def _coded(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def pieces(data: bytes, where: object) -> list[str]:
    """The pieces in order of their ids. Raises InputError for a file that is none of SentencePiece's."""
    try:
        return [next(v for n, v, _ in fields(value) if n == 1).decode()  # type: ignore[arg-type, union-attr]
                for number, value, _ in fields(data) if number == PIECE]  # fmt: skip
    except (ValueError, KeyError, StopIteration, RuntimeError, AttributeError, TypeError) as e:
        raise InputError("not a file of SentencePiece", where=where, found=str(e)[:80] or type(e).__name__,
                         fix="get the model again from its source") from None


def kept(data: bytes, ids: Sequence[int]) -> bytes:
    """The file with the pieces `ids` (ascending) and no others; control tokens are named by their new ids."""
    new = {int(old): i for i, old in enumerate(ids)}
    made, at = bytearray(), 0
    for number, value, raw in fields(data):
        if number == PIECE:
            made += raw if at in new else b""
            at += 1
        elif number == TRAINER and isinstance(value, bytes):
            trained = _trained(value, new)
            made += _coded(TRAINER << 3 | BYTES) + _coded(len(trained)) + trained
        else:
            made += raw
    return bytes(made)


def _trained(value: bytes, new: Mapping[int, int]) -> bytes:
    """The settings of the training with the number of pieces and the ids of control tokens as they now are."""
    made, seen = bytearray(), dict(IDS)
    for number, one, raw in fields(value):
        if number in IDS and isinstance(one, int):
            seen[number] = one - (1 << 64) if one >> 63 else one
        elif number != SIZE:
            made += raw
    for number, old in seen.items():
        moved = new.get(old, old) if old >= 0 else old
        made += _number(number, moved) if moved != IDS[number] else b""
    return bytes(made) + _number(SIZE, len(new))


def cuts(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, as the SentencePiece library cuts it."""
    import sentencepiece

    reader: Any = sentencepiece.SentencePieceProcessor()
    reader.Load(str(path))
    return [list(ids) for ids in reader.EncodeAsIds(list(texts))]
