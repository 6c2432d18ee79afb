"""`tune embeddings`: train rows of the token embedding and of the output head, and nothing else: new words, or all of them.

With tied embeddings both are one tensor, and a row of it is trained once. On plain text with `blocks` this is the continued
pretraining of LEP (arXiv 2412.21140, section 2.4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from polygraft.config import Unfit
from polygraft.errors import InputError, RecipeError
from polygraft.files import sha256_file
from polygraft.result import InputRef
from polygraft.selection import Selection
from polygraft.step import Context, DataRef, ModelRef, Step
from polygraft.tokenfile import FILE, Vocabulary
from polygraft.tune import parts
from polygraft.tune.body import Body
from polygraft.tune.config import Around, Training
from polygraft.tune.parts import Listed
from polygraft.tune.processes import sharding
from polygraft.tune.running import Task, begin, tuning_step

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Shapes

NEW = "new"
TABLES = {"both": "embedding and head", "embed": "embedding", "head": "head"}


class Embeddings(Training):
    """Train rows of the token embedding and of the output head. All other weights stay byte for byte, unless `body` is given."""

    rows: Listed = Field((), description="which tokens, by number (32000- or 0-99,512), or `new`: those that `base` lacks "
                         "(default: all)", json_schema_extra={"metavar": "A-B,..."})
    base: ModelRef | None = Field(None, description="with rows `new`: a model with the vocabulary from before")
    tokens: DataRef | None = Field(None, description="or a file of tokens, one a line, as the tokenizer's vocabulary writes them")
    tables: Literal["both", "embed", "head"] = Field("both", description="embedding and head, or one of them (untied models)")
    norm: bool = Field(False, description="train the final norm too")
    body: int = Field(0, ge=0, description="also train the body a little: rank of a LoRA on attention and FFN, merged at the end")

    @model_validator(mode="after")
    def _based(self) -> Self:
        if (NEW in self.rows) != (self.base is not None):
            if self.base is None:
                raise Unfit("rows `new` need `base`: new compared with what?", fix="name the model with the vocabulary from before")
            raise Unfit("`base` without rows `new`: nothing is compared with it", fix="add rows `new`, or leave `base` out")
        return self


def task(config: Embeddings, context: Context, around: Around) -> Task:
    """The examples, and the rows of embedding and head."""
    made = begin(config, context, around, "Tuning of embeddings")
    anatomy, shapes = made.anatomy, {key: t.shape for key, t in made.checkpoint.tensors.items()}
    wanted, more = chosen(config, context, made, shapes)
    selection = rows_of(wanted, config.tables, config.norm, anatomy, shapes)
    vocab = tokens_of(anatomy, shapes)
    count = vocab if wanted is None else len(wanted)
    what = "embedding and head, one tensor" if anatomy.tied else TABLES[config.tables]
    told = f"Tokens: {count:,} of {vocab:,} ({what}){', and the final norm' if config.norm else ''}."
    made = replace(made, inputs=(*made.inputs, *more), summary=(told,))
    if not config.body:
        return replace(made, selection=selection)
    if kind := sharding():
        raise RecipeError("a body of low rank is not trained in shards", where="accelerate", found=kind,
                          fix="use ddp.yaml, or leave `body` out")  # fmt: skip
    body = Body(config.body, config.seed, anatomy, shapes)
    said = f"The body moves by a LoRA of rank {config.body} on {len(body.slots)} matrices, merged into them."
    return replace(made, selection=selection | body.selection, hooks=(body,), summary=(told, said))


def tokens_of(anatomy: Anatomy, shapes: Shapes) -> int:
    """Rows of the token embedding."""
    return int(next(shapes[key][0] for key, p in anatomy.parts.items() if p.label == "embed" and len(shapes[key]) == 2))


def chosen(config: Embeddings, context: Context, made: Task,
           shapes: Shapes) -> tuple[np.ndarray | None, tuple[InputRef, ...]]:  # fmt: skip
    """The rows that `rows` and `tokens` mean together (None: all), and the file that they were read from."""
    if not config.rows and config.tokens is None:
        return None, ()
    vocab, inputs = tokens_of(made.anatomy, shapes), []
    numbers = [word for word in config.rows if word != NEW]
    found = parts.numbers(numbers, vocab, "token", "rows") if numbers else []
    if config.base is not None:
        base = context.model(config.base)
        inputs.append(base.ref(config.base))
        found += new_tokens(made.checkpoint.extras.get(FILE), base.weights.extras.get(FILE), vocab)
    if config.tokens is not None:
        path = context.data(config.tokens)
        known = Vocabulary.open(made.checkpoint.extras.get(FILE), where="tokens").by_name
        found += read_tokens(path, {token: row for token, row in known.items() if row < vocab})
        inputs.append(InputRef("tokens", config.tokens, digest=sha256_file(path)))
    return np.unique(found), tuple(inputs)


def new_tokens(model: Path | None, base: Path | None, rows: int) -> list[int]:
    """The ids of a tokenizer.json that another one has not: by their bytes, control tokens by name. Raises InputError for none."""
    ours, theirs = Vocabulary.open(model, where="model"), Vocabulary.open(base, where="base")
    control = {i: name for name, i in ours.control.items()}
    found = [i for i, content in enumerate(ours.contents) if i in ours.names and i < rows and
             (control[i] not in theirs.by_name if i in control else content not in theirs.by_bytes)]
    if not found:
        raise InputError("the model has no token that its base lacks: there are no new rows", where="rows",
                         found=f"{len(ours.names):,} tokens, {len(theirs.names):,} in the base",
                         fix="name the model of before the vocabulary grew, or leave `rows` out")
    return found


def read_tokens(path: Path, vocabulary: Mapping[str, int]) -> list[int]:
    """The rows of a file's tokens, one a line; empty lines mean nothing. Raises InputError with file:line for an unknown one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError("cannot be read as UTF-8 text", where=path, found=getattr(e, "strerror", None) or str(e)) from e
    words = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1)]
    for number, word in words:
        if word and word not in vocabulary:
            raise InputError("no token of this model", where=f"{path}:{number}", found=repr(word)[:80],
                             expected="a token as the vocabulary of tokenizer.json writes it", fix=meant(word, vocabulary))
    found = [vocabulary[word] for _, word in words if word]
    if not found:
        raise InputError("no tokens", where=path, expected="at least one", fix="write one token a line")
    return found


def meant(word: str, vocabulary: Mapping[str, int]) -> str:
    """What to write in place of a word that is no token: the same behind a space, else the nearest tokens."""
    spaced = [space + word for space in "▁Ġ" if space + word in vocabulary]
    near = spaced or get_close_matches(word, vocabulary, n=3)
    whole = "a word that is several tokens has no row of its own"
    return f"did you mean {' or '.join(f'`{token}`' for token in near)}?" if near else f"take the line out: {whole}"


def rows_of(rows: np.ndarray | None, tables: str, norm: bool, anatomy: Anatomy, shapes: Shapes) -> Selection:
    """These rows (None: all) of embedding, head or both, and the final norm. Raises RecipeError for one of tied ones."""
    if anatomy.tied and tables != "both":
        raise RecipeError("embedding and head are one tensor in this model: neither can be trained without the other",
                          where="tables", found=tables, expected="both", fix="leave `tables` out")
    labels = ("embed", "head") if tables == "both" else (tables,)
    keys = [key for key, part in anatomy.parts.items() if part.label in labels]
    if short := [key for key in keys if rows is not None and rows[-1] >= shapes[key][0]]:
        raise InputError("a selected row is beyond the tensor", where=short[0], found=int(rows[-1]),  # type: ignore[index]
                         expected=f"0 to {shapes[short[0]][0] - 1}")
    final = [key for key, part in anatomy.parts.items() if part.kind == "final_norm"] if norm else []
    return Selection(dict.fromkeys(keys, rows) | dict.fromkeys(final))


def embeddings_step(around: Around) -> Step:
    return tuning_step("tune.embeddings", Embeddings, task, around)
