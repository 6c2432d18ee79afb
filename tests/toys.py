"""Toy steps and sources for tests of the recipe engine: no tensors, no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from polygraft.config import Strict
from polygraft.errors import InputError
from polygraft.files import sha256_file
from polygraft.recipe import Context, DataRef, Detail, ModelRef, Plan, Step
from polygraft.result import Result, Table


class Blend(Strict):
    """Join the bytes of two models."""

    left: ModelRef
    right: ModelRef
    bottom: int = Field(5, ge=0, le=100)
    share: float = 0.5
    weights: Literal["plain", "magnitude", "ramp"] = "plain"
    quiet: bool = False
    note: str = ""
    threads: Annotated[int, Detail] = 1


class Texts(Strict):
    corpus: DataRef
    limit: int | None = None


class Score(Strict):
    """Count the bytes of models, and of texts."""

    models: list[ModelRef]
    texts: dict[str, Texts] = Field(default_factory=dict)
    batch: Annotated[int, Detail] = 8
    langs: tuple[str, ...] = ()


@dataclass
class Toy:
    """A Source made of one file, `weights`."""

    path: Path
    base: Toy | None = None
    coming: str = ""
    adapter: ClassVar[None] = None
    kind: ClassVar[str] = "folder"
    revision: ClassVar[str] = ""
    missing: ClassVar[dict[str, int]] = {}

    def __post_init__(self) -> None:
        self.spec = str(self.path)
        self.identity = sha256_file(self.path / "weights") + (self.base.identity if self.base else "")

    def read(self) -> bytes:
        return (self.path / "weights").read_bytes()


def resolve(spec: str, *, offline: bool = False, base: Toy | None = None) -> Toy:
    if not (Path(spec) / "weights").is_file():
        raise InputError("no such model", where=spec, expected="a folder with weights", fix="check the path")
    return Toy(Path(spec), base)


def _plan_blend(config: Blend, context: Context) -> Plan:
    left, right = context.model(config.left), context.model(config.right)
    size = len(left.read()) + len(right.read())
    problems = ("the left model is marked as broken",) if left.read().startswith(b"broken") else ()
    return Plan(lines=(f"blend {config.left} and {config.right}",), disk_bytes=size, read_bytes=size, seconds=1.0, problems=problems, like=left)


def _run_blend(config: Blend, context: Context, out: Path) -> Result:
    data = context.model(config.left).read() + b"+" + context.model(config.right).read() + str(config.bottom).encode()
    (out / "model").mkdir()
    (out / "model" / "weights").write_bytes(data)
    context.progress(1, 2, "half")
    if config.note == "fail":
        raise InputError("asked to fail", where="toy", fix="ask for something else")
    if config.note == "crash":
        raise ZeroDivisionError("asked to crash")
    if config.note == "interrupt":
        raise KeyboardInterrupt
    context.progress(2, 2)
    return Result("blend", "", "A blend", summary=(f"{len(data)} bytes",))


def _run_score(config: Score, context: Context, out: Path) -> Result:
    sizes = [(m, len(context.model(m).read())) for m in config.models]
    texts = [(t, context.data(x.corpus).stat().st_size) for t, x in config.texts.items()]
    return Result("score", "", "Sizes", tables=(Table("Bytes", ("what", "bytes"), tuple(sizes + texts)),))


def _plan_score(config: Score, context: Context) -> Plan:
    for name in config.models:
        context.model(name)
    for texts in config.texts.values():
        context.data(texts.corpus)
    return Plan(lines=("count",), seconds=0.5)


BLEND = Step("toy.blend", 1, Blend, _plan_blend, _run_blend, makes_model=True)
BLEND2 = Step("toy.blend", 2, Blend, _plan_blend, _run_blend, makes_model=True)
SCORE = Step("toy.score", 1, Score, _plan_score, _run_score)
TABLE = (BLEND, BLEND2, SCORE)

RECIPE = """\
recipe: 1
name: toys
models:
  a: models/a
  b: models/b
  c: {adapter: models/c, base: a}
steps:
  - id: one
    use: toy.blend@1
    left: a
    right: b
  - id: two
    use: toy.blend
    left: one
    right: c
    bottom: 7
  - id: scores
    use: toy.score
    models: [a, one, two]
    texts:
      sw: {corpus: texts/sw.txt}
"""


def world(folder: Path) -> Path:
    """A folder with toy models, a text and `recipe.yaml`; returns the recipe's path."""
    for name in "abc":
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "weights").write_bytes(name.encode() * 10)
    (folder / "texts").mkdir()
    (folder / "texts" / "sw.txt").write_text("habari\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"
