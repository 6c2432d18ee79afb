"""Alignment data: questions in other languages with the task of putting them into English.

SLAM (arXiv 2501.03681) and QAlign (arXiv 2401.07817) align a model so, with the questions of MGSM8KInstruct. A pair's English side
stands in its own row, or in a file of English questions that rows are matched with by number. Nothing here knows of a model.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from polygraft import data, languages
from polygraft.config import Strict, Unfit
from polygraft.errors import InputError, RecipeError, suggestion
from polygraft.result import InputRef, Table
from polygraft.step import Context, DataRef
from polygraft.tune.data import uneven
from polygraft.tune.data.gathering import Example
from polygraft.tune.examples import digest

INSTRUCTION = "Translate the following sentences from {Source} to English. {question}"  # QAlign's words; SLAM's are not published
FIELDS = ("Source", "question")
TEXT = ("question", "text", "source")  # columns of the source text, after that of the language's own tag
ENGLISH = ("en", "english", "en_question", "target")
ANSWER, ENGLISH_ANSWER = ("answer",), ("en_answer", "english_answer")
NUMBER = "i"  # the column that says which English question a row belongs to, counted from 0


def _checked(tag: str) -> str:
    try:
        found = languages.check(tag)
    except RecipeError as e:
        raise Unfit(e.what, found=e.found, expected=e.expected, fix=e.fix) from None
    if found == "en":
        raise Unfit("pairs lead from other languages to English", found=tag, fix="name the English side with `english`")
    return found


class Alignment(Strict):
    """Where pairs come from and how they are asked."""

    pairs: dict[Annotated[str, AfterValidator(_checked)], DataRef] = Field(
        min_length=1, description="questions of each language (.jsonl, .txt, also .gz, .xz) in a column of its tag or `question`; "
        "their English in `en` or `english`, where the field `english` names no file", json_schema_extra={"metavar": "LANG=PATH"})
    english: DataRef | None = Field(None, description="English questions, matched by the column `i` (counted from 0), else by line")
    answers: bool = Field(False, description="pairs of answers too, as tasks of their own (SLAM's released set is named so)")
    per_language: int | None = Field(None, ge=1, description="at most so many pairs of a language, drawn by `seed`")
    balance: bool = Field(False, description="as many pairs of each language as the one with the fewest has")
    instruction: str | None = Field(None, description=f"what is asked, with {{Source}} and {{question}} (default: {INSTRUCTION})")
    instruction_file: DataRef | None = Field(None, description="a text file that holds the instruction")


@dataclass(frozen=True)
class Pair:
    """One task: `source` in `language`, and its English."""

    language: str
    source: str
    target: str


@dataclass(frozen=True)
class Count:
    """What became of the rows of one language: `used` pairs go on to training, the others were left out for these reasons."""

    language: str
    rows: int = 0
    used: int = 0
    empty: int = 0
    same: int = 0
    alone: int = 0
    again: int = 0
    bare: int = 0
    spare: int = 0


Collected = tuple[list[Pair], Count]
COLUMNS = {"language": "language", "rows": "rows", "used": "pairs", "empty": "one side empty",
           "same": "both sides alike", "alone": "no English row", "again": "said before",
           "bare": "answers that are numbers", "spare": "beyond the limit"}


@dataclass(frozen=True)
class Aligned:
    """The examples, labelled with their language, what became of every language's rows, and what they were made of."""

    examples: list[Example]
    counts: tuple[Count, ...]
    inputs: tuple[InputRef, ...]

    def table(self) -> Table:
        """Counts by language, without columns that are 0 throughout."""
        shown = [f for f in COLUMNS if f in ("language", "rows", "used") or any(getattr(c, f) for c in self.counts)]
        rows = tuple(tuple(getattr(c, f) for f in shown) for c in self.counts)
        return Table("Alignment data", tuple(COLUMNS[f] for f in shown), rows)

    def caveats(self) -> tuple[str, ...]:
        """Warnings: unequal languages."""
        return uneven.told({c.language: c.used for c in self.counts}, "pairs", "`balance` takes equally many")


def gather(config: Alignment, context: Context, seed: int) -> Aligned:
    """Every language's pairs as examples (messages of one turn), language after language.

    Raises RecipeError for the instruction, InputError for a file, a row, or a language that has no pair left.
    """
    asked = instruction(config, context)
    english = table(context.data(config.english)) if config.english else None
    found = {}
    for language, name in config.pairs.items():
        path = context.data(name)
        source = table(path)
        _check_lengths(source, english, path, config.english)
        found[language] = collect(language, source, english, config.answers, path)
    kept = limited(found, config.per_language, config.balance, seed)
    examples, inputs = [], []
    for language, (pairs, _) in kept.items():
        new = [example(p, asked) for p in pairs]
        examples += [Example(row, language) for row in new]
        inputs.append(InputRef("pairs", f"{language}={config.pairs[language]}", digest=digest(new)))
    return Aligned(examples, tuple(count for _, count in kept.values()), tuple(inputs))


def example(pair: Pair, asked: str) -> dict[str, Any]:
    """One turn of a chat: the instruction filled in, and the English text."""
    words = asked.format(Source=languages.name(pair.language), question=pair.source)
    return {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": pair.target}]}


# ------------------------------------------------------------------------------------------------------------ instruction


def instruction(config: Alignment, context: Context) -> str:
    """The instruction in use, with both kinds of field checked. Raises RecipeError, InputError for its file."""
    if config.instruction is not None and config.instruction_file is not None:
        raise RecipeError("two instructions", where="instruction_file", found=config.instruction_file, fix="give one of them")
    if config.instruction_file is None:
        return check_instruction(INSTRUCTION if config.instruction is None else config.instruction, "instruction")
    path = context.data(config.instruction_file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError("the instruction cannot be read", where=path, found=getattr(e, "strerror", None) or "not UTF-8",
                         fix="name a UTF-8 text file") from e
    return check_instruction(text.rstrip("\n"), path)


def check_instruction(text: str, where: object) -> str:
    """The text itself if it holds {question} once and no field but {Source} beside it. Raises RecipeError."""
    try:
        fields = [(name, spec, turned) for _, name, spec, turned in string.Formatter().parse(text) if name is not None]
    except ValueError as e:
        raise RecipeError("not an instruction", where=where, found=str(e), expected=INSTRUCTION, fix="write {{ for a brace") from e
    for name, spec, turned in fields:
        if name not in FIELDS or spec or turned:
            raise RecipeError("unknown field in the instruction", where=where, found=f"{{{name}}}", expected="{Source}, {question}",
                              fix=suggestion(name, FIELDS) if name else "write {{ for a brace")
    if [name for name, _, _ in fields].count("question") != 1:
        raise RecipeError("the instruction does not say once where the question stands", where=where, found=repr(text)[:120],
                          expected="{question}, once", fix=f"for example: {INSTRUCTION}")
    return text


# ------------------------------------------------------------------------------------------------------------------ pairs

Rows = dict[int, tuple[str, dict[str, Any]]]  # number of the English question -> (file:line, row)


def table(path: Path) -> Rows:
    """Rows of a .jsonl or .txt file by the number of their English question: the column `i`, else the line, counted from 0.

    Raises InputError for a number that is none or comes twice, and for a file without rows.
    """
    found: Rows = {}
    for where, row in _read(path):
        place = row.get(NUMBER, int(where.rpartition(":")[2]) - 1)
        if not isinstance(place, int) or isinstance(place, bool) or place < 0:
            raise InputError(f"`{NUMBER}` is not the number of a question", where=where, found=repr(place)[:80],
                             expected="0 or more", fix="count the English questions from 0")
        if place in found:
            raise InputError("two rows have the same number", where=where, found=place,
                             expected=f"another `{NUMBER}` than {found[place][0]}", fix="give each row its own")
        found[place] = where, row
    if not found:
        raise InputError("no pairs", where=path, found="an empty file", expected="at least one row", fix="check the file")
    return found


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = data.ending(path)
    if kind.startswith(".txt"):
        yield from ((where, {TEXT[0]: data.decode(line, where)}) for where, line in data.lines(path))
    elif kind.startswith(".jsonl"):
        yield from data.objects(path)
    else:
        raise InputError("not a file of questions", where=path, found=path.suffix or "no ending",
                         expected=".jsonl or .txt, also as .gz or .xz", fix="turn it into one of these")


def _check_lengths(source: Rows, english: Rows | None, path: Path, name: str | None) -> None:
    """Rows that are matched by line must be as many on both sides. Raises InputError."""
    if english is None or len(source) == len(english) or any(NUMBER in row for _, row in source.values()):
        return
    raise InputError("rows are matched by line, and the files differ in length", where=path, found=f"{len(source):,} rows",
                     expected=f"{len(english):,}, as in {name}",
                     fix=f"add a column `{NUMBER}` with the number of the English row, from 0")


def collect(language: str, source: Rows, english: Rows | None, answers: bool, path: Path) -> Collected:
    """The pairs of one language in file order, and what was left out. Raises InputError where nothing is left."""
    pairs: dict[Pair, None] = {}
    lost: Counter[str] = Counter()
    for place, (where, row) in source.items():
        for kind, pair in _tasks(language, place, row, english, answers, where):
            fault = kind or judged(pair)
            if not fault and pair in pairs:
                fault = "again"
            if fault:
                lost[fault] += 1
            else:
                pairs[pair] = None
    if not pairs:
        raise InputError(f"no pair of {languages.name(language)} is left", where=path,
                         found="; ".join(f"{COLUMNS[k]}: {n:,}" for k, n in lost.items()),
                         fix="check the file and its English side")
    if answers and lost["bare"] == len(source):
        raise InputError("the answers are bare numbers, so there is nothing in them to translate", where=path,
                         found=f"{len(source):,} of {len(source):,}", fix="give worked answers, or leave `answers` out")
    return list(pairs), Count(language, len(source), len(pairs), **lost)


def _tasks(language: str, place: int, row: Mapping[str, Any], english: Rows | None, answers: bool,
           where: str) -> Iterator[tuple[str, Pair]]:  # fmt: skip
    """(why it is none, or "", pair) of the question, and of the answer where it is asked for."""
    if english is not None and place not in english:
        yield "alone", Pair(language, "", "")
        return
    at, other = english[place] if english is not None else (where, row)
    columns = (*TEXT, *ENGLISH) if english is not None else ENGLISH
    yield "", Pair(language, _text(row, (language, *TEXT), where), _text(other, columns, at))
    if answers:
        source = _text(row, ANSWER, where)
        target = _text(other, (*ENGLISH_ANSWER, *ANSWER) if english is not None else ENGLISH_ANSWER, at)
        yield "bare" if is_number(source) else "", Pair(language, source, target)


def _text(row: Mapping[str, Any], columns: tuple[str, ...], where: str) -> str:
    name = next((c for c in columns if c in row), None)
    if name is None:
        raise InputError("no such column", where=where, found=", ".join(map(str, list(row)[:8])) or "an empty object",
                         expected=" or ".join(f"`{c}`" for c in columns), fix=_missing(columns))
    if not isinstance(row[name], str):
        raise InputError(f"`{name}` is not text", where=where, found=repr(row[name])[:80], expected="text", fix="mend the row")
    data.check_text(row[name], where)
    return row[name].strip()


def _missing(columns: tuple[str, ...]) -> str:
    """What to do about a column that is not there."""
    if columns[0] in (*ENGLISH, *ENGLISH_ANSWER):
        return f"add the English text as `{columns[0]}`, or name a file of English questions with `english`"
    return f"rename the column that holds the text to `{columns[0]}`"


def judged(pair: Pair) -> str:
    """Why a pair teaches nothing: "empty", "same", or ""."""
    if not pair.source or not pair.target:
        return "empty"
    return "same" if pair.source == pair.target else ""


def is_number(text: str) -> bool:
    """Whether a text has no letter of any script: `72`, `$1,200.50`."""
    return not any(c.isalpha() for c in text)


def limited(found: Mapping[str, Collected], most: int | None, balance: bool, seed: int) -> dict[str, Collected]:
    """At most `most` pairs of each language, or equally many: drawn by `seed`, kept in their order."""
    least = min(len(pairs) for pairs, _ in found.values()) if balance else None
    bounds = [b for b in (most, least) if b is not None]
    return {language: _drawn(pairs, count, min(bounds, default=len(pairs)), f"pairs/{seed}/{language}")
            for language, (pairs, count) in found.items()}


def _drawn(pairs: list[Pair], count: Count, size: int, seed: str) -> Collected:
    if size >= len(pairs):
        return pairs, count
    places = sorted(random.Random(seed).sample(range(len(pairs)), size))
    return [pairs[i] for i in places], replace(count, used=size, spare=len(pairs) - size)


