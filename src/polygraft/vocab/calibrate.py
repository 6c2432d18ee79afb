"""`vocab calibrate`: examples that teach an adapted model to use its new tokens: copies of text, and its own answers from before.

LEP, arXiv 2412.21140, section 2.4.2: greedy answers of the original instruct model to prompts (self-calibration) and copy tasks
undo what the change of vocabulary did to a model, without teaching it anything else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from polygraft import data, files
from polygraft.config import Strict
from polygraft.errors import InputError, RecipeError
from polygraft.result import Cell, InputRef, Result, Sample, Table
from polygraft.step import Context, DataRef, Detail, Language, ModelRef, Plan, Step
from polygraft.vocab import copytasks

if TYPE_CHECKING:
    from polygraft.vocab.around import Answer, Around

OUT, ASKED = "calibration.jsonl", "answers.jsonl"
TOGETHER = 64  # prompts that are answered between two states on the disk
REASONS = ("empty", "cut off", "in a loop", "in another language", "the same as another")
PROMPTS = "prompts by language: .jsonl (messages, instruction, prompt, question or text) or .txt, one a line"


class Calibrate(Strict):
    """Make examples for calibration: copies of text, and the original instruct model's own greedy answers to prompts."""

    corpus: dict[Language, DataRef] = Field(
        default_factory=dict, description="text to copy, by language: .txt, .jsonl or .parquet",
        json_schema_extra={"metavar": "LANG=PATH"})
    sentences: int = Field(1000, ge=0, description="sentences to copy, of each text")
    paragraphs: int = Field(1000, ge=0, description="paragraphs to copy, of each text")
    against: tuple[DataRef, ...] = Field((), description="evaluation text that must not be among the copies; repeatable")
    model: ModelRef | None = Field(None, description="the original instruct model, which answers the prompts")
    prompts: dict[Language, DataRef] = Field(default_factory=dict, description=PROMPTS, json_schema_extra={"metavar": "LANG=PATH"})
    answers: int = Field(1000, ge=1, description="prompts that are asked, of each file")
    max_tokens: int = Field(512, ge=1, description="longest answer in tokens; one that is cut off there is left out")
    seed: int = Field(0, ge=0, description="which texts and prompts are taken")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="type that answers are computed in")
    device: Annotated[str, Detail] = Field("auto", description="cpu, cuda ...; auto: a GPU where there is one")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.corpus and not self.prompts:
            raise ValueError("nothing to make examples of: name `corpus`, or `prompts` and `model`")
        if bool(self.prompts) != (self.model is not None):
            raise ValueError("`prompts` need the `model` that answers them" if self.prompts else "`model` without `prompts`")
        return self


@dataclass(frozen=True)
class Row:
    """One example, where it is from and what it is."""

    asked: str
    answered: str
    language: str
    kind: str

    def line(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.asked}, {"role": "assistant", "content": self.answered}]
        return {"messages": messages, "kind": self.kind, "language": self.language}


# ---------------------------------------------------------------------------------------------------------------- copies


def copies(config: Calibrate, context: Context) -> tuple[list[Row], Table]:
    """The copy tasks of all texts, and how many there are of each kind. Raises InputError for a text without any."""
    against = [context.data(ref) for ref in config.against]
    overlap = copytasks.Overlap(text for path in against for text in data.open_corpus("und", path).documents())
    made: list[Row] = []
    rows = []
    for language, ref in config.corpus.items():
        path = context.data(ref)
        before = len(made)
        kinds: tuple[tuple[copytasks.Kind, int], ...] = (("sentence", config.sentences), ("paragraph", config.paragraphs))
        for kind, count in kinds:
            found, there, out = copytasks.tasks(data.open_corpus(language, path).documents(), kind, count, overlap, config.seed)
            made += [Row(copytasks.asked(t, language, config.seed), t, language, f"copy {kind}") for t in found]
            rows.append((language, ref, kind, there, out, len(found)))
        if len(made) == before and config.sentences + config.paragraphs:
            raise InputError("no sentence or paragraph to copy", where=path, expected="prose of 40 characters or more in a line",
                             fix="name another text, or take less of it to be the evaluation's")
    note = "taken by the hash of the text; `in the evaluation`: met and left out before there were enough"
    return made, Table("Copies", ("language", "text", "kind", "there are", "in the evaluation", "taken"), tuple(rows), note)


# --------------------------------------------------------------------------------------------------------------- answers


def prompts(path: Path) -> Iterator[str]:
    """The first user's turn of every example of a file, or its lines. Raises InputError naming the line without any."""
    if data.ending(path) not in (".jsonl", ".jsonl.gz", ".jsonl.xz"):
        yield from data.open_corpus("und", path).documents()
        return
    for where, row in data.objects(path):
        text = prompt(row)
        if not text.strip():
            raise InputError("no prompt", where=where, found=", ".join(map(str, list(row)[:8])),
                             expected="`messages`, `instruction` (and `input`), `prompt`, `question` or `text`")
        yield text


def prompt(row: Mapping[str, Any]) -> str:
    """What a user says first in an example, "" where nobody does."""
    messages = row.get("messages")
    if isinstance(messages, list):
        turns = [m.get("content") for m in messages if isinstance(m, Mapping) and m.get("role") == "user"]
        return turns[0] if turns and isinstance(turns[0], str) else ""
    if isinstance(row.get("instruction"), str):
        return "\n".join(x for x in (row["instruction"], row.get("input")) if isinstance(x, str) and x)
    return next((row[k] for k in ("prompt", "question", "text") if isinstance(row.get(k), str)), "")


def kept(asked: Sequence[str], answered: Sequence[Mapping[str, Any]], language: str,
         around: Around) -> tuple[list[Row], Counter[str]]:  # fmt: skip
    """The answers that can be learnt from, and how many of the others were left out why.

    An answer in a language that cannot be told ("und", such as a number) stays.
    """
    rows: list[Row] = []
    out: Counter[str] = Counter()
    seen: set[str] = set()
    for question, answer in zip(asked, answered, strict=True):
        text = str(answer["text"]).strip()
        fault = _fault(text, bool(answer["finished"]), language, around) or ("the same as another" if text in seen else "")
        if fault:
            out[fault] += 1
        else:
            seen.add(text)
            rows.append(Row(question, text, language, "own answer"))
    return rows, out


def _fault(text: str, finished: bool, language: str, around: Around) -> str:
    if not text:
        return "empty"
    if around.loops(text):
        return "in a loop"
    if not finished:
        return "cut off"
    return "in another language" if around.language(text) not in (language, "und") else ""


def answered(asked: Sequence[str], live: Any, limit: int, file: Path, around: Around, context: Context) -> list[dict[str, Any]]:
    """Greedy answers as {text, finished}, some at a time; those that an interrupted run has left in `file` are not asked again."""
    done = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    for start in range(len(done), len(asked), TOGETHER):
        context.progress(start, len(asked), "prompts answered")
        found: Sequence[Answer] = around.answers(live, asked[start : start + TOGETHER], limit, True)
        done += [{"text": a.text, "finished": a.finished} for a in found]
        files.write_atomic(file, json.dumps(done, ensure_ascii=False).encode())
    return done[: len(asked)]


def own(config: Calibrate, context: Context, folder: Path, around: Around) -> tuple[list[Row], Table]:
    """The model's own answers to the prompts of all files, and what became of them."""
    assert config.model is not None
    live = around.load(context.model(config.model), config.dtype, config.device)
    made: list[Row] = []
    rows: list[tuple[Cell, ...]] = []
    for language, ref in config.prompts.items():
        asked = chosen(context.data(ref), config)
        file = folder / f"{language}-{ASKED}"
        found, out = kept(asked, answered(asked, live, config.max_tokens, file, around, context), language, around)
        file.unlink()
        made += found
        rows.append((language, ref, len(asked), *(out[reason] for reason in REASONS), len(found)))
    columns = ("language", "prompts", "asked", *REASONS, "taken")
    return made, Table("Own answers", columns, tuple(rows), "greedy, through the chat template")


def _why(heard: Table | None) -> str | None:
    """How many answers there were, and why they were left out: the sums of the table of own answers."""
    if heard is None:
        return None
    asked, *out = ([sum(int(row[i]) for row in heard.rows) for i in range(2, 3 + len(REASONS))])  # type: ignore[arg-type, misc]
    why = ", ".join(f"{n:,} {reason}" for reason, n in zip(REASONS, out) if n)
    return f"{asked:,} answers" + (f": {why}" if why else "")


def chosen(path: Path, config: Calibrate) -> list[str]:
    """Different prompts of a file by their hash, `answers` at most. Raises InputError where there are none."""
    found = sorted(dict.fromkeys(prompts(path)), key=lambda p: files.digest([config.seed, p]))
    if not found:
        raise InputError("no prompts", where=path, expected="at least one")
    return found[: config.answers]


# ------------------------------------------------------------------------------------------------------------------ step


def plan(config: Calibrate, context: Context) -> Plan:
    lines = []
    for path in (*config.corpus.values(), *config.against):
        data.open_corpus("und", context.data(path))
    if config.corpus:
        count = len(config.corpus) * (config.sentences + config.paragraphs)
        lines.append(f"at most {count:,} copies of {len(config.corpus)} texts, in {OUT}")
    if config.model is None:
        return Plan(tuple(lines))
    source = context.model(config.model)
    stored = sum(t.nbytes for t in source.weights.tensors.values())
    asked = sum(len(chosen(context.data(ref), config)) for ref in config.prompts.values())
    lines.append(f"{asked:,} prompts answered by {config.model}, {config.max_tokens:,} tokens at most each")
    return Plan(tuple(lines), peak_bytes=3 * stored, read_bytes=stored)


def run(config: Calibrate, context: Context, folder: Path, around: Around) -> Result:
    """Write `calibration.jsonl`, whose rows `tune lora` takes as they are."""
    made, table = copies(config, context) if config.corpus else ([], None)
    asked, heard = own(config, context, folder, around) if config.prompts else ([], None)
    rows = sorted([*made, *asked], key=lambda r: files.digest([config.seed, r.asked]))
    if not rows:
        raise RecipeError("no example is left", where="vocab calibrate", found=_why(heard),
                          fix="ask more prompts, raise `max_tokens`, or add text")
    text = "".join(json.dumps(r.line(), ensure_ascii=False) + "\n" for r in rows)
    files.write_atomic(folder / OUT, text.encode())
    source = () if config.model is None else (context.model(config.model).ref("model"),)
    refs = (*source, *(InputRef("data", ref, digest=files.sha256_file(context.data(ref)))
                       for ref in (*config.corpus.values(), *config.prompts.values(), *config.against)))
    kinds = Counter(r.kind for r in rows)
    return Result(
        "vocab.calibrate", context.step_id, "Examples for calibration",
        summary=(f"{len(rows):,} examples in {OUT}: " + ", ".join(f"{n:,} of {kind}" for kind, n in sorted(kinds.items())) + ".",),
        tables=tuple(t for t in (table, heard) if t is not None),
        samples=tuple(Sample(f"{kind} {n}", r.language, r.asked, {"example": r.answered}) for kind in sorted(kinds)
                      for n, r in enumerate([r for r in rows if r.kind == kind][:2], 1)),
        inputs=refs, data={"examples": len(rows), "kinds": dict(kinds)},
        caveats=("the words that ask for a copy are the project's own and were not checked by native speakers",) if made else (),
    )  # fmt: skip


def calibrate_step(around: Around) -> Step:
    return Step("vocab.calibrate", 1, Calibrate, plan, partial(run, around=around), resumable=True)
