"""What `prune study` takes, and the prunings that it consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from polygraft import files
from polygraft.config import Unfit, filled
from polygraft.errors import RecipeError
from polygraft.prune.config import Calibrating, Masking, MethodName
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.protect import halved
from polygraft.step import DataRef, Language

Setting = Literal["alone", "hybrid", "equal", "protected"]
EQUAL, OWN = "equal", "mixture"
TARGET, REFERENCE, HYBRID, PROTECTED = "target", "reference", "hybrid", "protected"


class Study(Calibrating):
    """Prune a model by each language's text in turn and read every language: who loses what, beyond what another seed does."""

    langs: tuple[Language, ...] = Field((), description="languages to study (default: all that have a corpus)")
    evaluate: dict[Language, DataRef] = Field(
        default_factory=dict, description="text that is read after each pruning, other than the corpora",
        json_schema_extra={"metavar": "LANG=PATH"},
    )  # fmt: skip
    parallel: bool = Field(False, description="the texts of `evaluate` say the same, line by line")
    methods: tuple[MethodName, ...] = Field(("wanda",), description="methods to compare")
    sparsity: tuple[float, ...] = Field((0.5,), description="shares of weights that become zero")
    patterns: tuple[str, ...] = Field((), description="N:M patterns beside them, N kept of M")
    seeds: int = Field(3, ge=1, description="draws of calibration text for every cell, from `seed` on; the floor needs two")
    settings: tuple[Setting, ...] = Field(
        ("alone", "hybrid"), description="calibrations to compare: each language alone, half of it with half the reference, all "
        "languages alike (equal), alone with a protected set of weights; with `calibrate`, that mixture too"
    )  # fmt: skip
    reference: Language | None = Field(None, description="the language others are compared with (default: en, else the first)")
    more_samples: tuple[int, ...] = Field((), description="also with so many windows, each language alone")
    noise: tuple[float, ...] = Field(
        (), description="also with such a share of the calibration tokens dealt anew, each language alone"
    )  # fmt: skip
    tokens: int = Field(12_000, ge=2, description="tokens of each language that are read after each pruning")
    diagnose: int = Field(2048, ge=0, description="tokens of each language in which states are compared; twice as many are read of "
                          "the dense model; 0: bits per byte and tasks alone")  # fmt: skip
    understanding: tuple[str, ...] = Field((), description="tasks of understanding, as in `polygraft eval`")
    knowledge: tuple[str, ...] = Field((), description="tasks of knowledge and reasoning")
    data: DataRef | None = Field(None, description="folder with the tasks' files (default: the hub)")
    limit: int | None = Field(None, ge=1, description="ask only the first N items of each task")
    shots: int | None = Field(None, ge=0, description="worked examples before each item (default: as each task says)")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.corpus:
            raise ValueError("a study calibrates on text: give a corpus for each language (--corpus sw=PATH)")
        if missing := [g for g in self.languages if g not in self.corpus]:
            raise ValueError(f"`langs` names {', '.join(missing)}, which has no corpus: add --corpus {missing[0]}=PATH")
        if missing := [g for g in self.languages if g not in self.evaluate]:
            raise Unfit(f"no text to read in {', '.join(missing)}: add --evaluate {missing[0]}=PATH, not its corpus",
                        found=", ".join(self.evaluate) or "none")  # fmt: skip
        if self.reference is not None and self.reference not in self.languages:
            raise ValueError(f"the reference {self.reference} is none of the languages studied: {', '.join(self.languages)}")
        if bad := [x for x in self.noise if not 0 < x <= 1]:
            raise ValueError(f"`noise` is a share of tokens over 0 and up to 1, found {bad[0]}")
        if not (self.methods and (self.sparsity or self.patterns) and self.settings):
            raise ValueError("nothing to compare: name methods, sparsity or patterns, and settings")
        try:
            for cell in cells(self):
                masking(self, cell)  # each must be a pruning
                if cell.protected:
                    halved(asked(cell))
        except RecipeError as e:
            raise Unfit(e.what, found=e.found, expected=e.expected, fix=e.fix) from None
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        return self.langs or tuple(self.corpus)

    @property
    def against(self) -> str:
        """The reference language."""
        return self.reference or ("en" if "en" in self.languages else self.languages[0])

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.understanding, *self.knowledge)))


@dataclass(frozen=True)
class Cell:
    """One pruning: `setting` names the calibration, `shares` of languages in it."""

    setting: str
    method: str
    pattern: str
    seed: int
    samples: int
    noise: float = 0.0
    protected: bool = False
    shares: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def group(self) -> tuple[str, str, int, float]:
        """What is the same in all cells that are compared with each other."""
        return self.method, self.pattern, self.samples, self.noise

    @property
    def told(self) -> str:
        noise = f", {self.noise:.0%} noise" if self.noise else ""
        return f"{self.method} at {self.pattern}, {self.setting}, {self.samples} windows{noise}, seed {self.seed}"

    def key(self, *about: Any) -> str:
        """A short name that is another for everything that decides the outcome."""
        return files.digest([asdict(self), *about])[:20]


def settings(config: Study) -> dict[str, tuple[dict[str, float], bool]]:
    """The calibrations that are compared: name -> (shares, whether weights are protected)."""
    found: dict[str, tuple[dict[str, float], bool]] = {}
    others = [g for g in config.languages if g != config.against]
    for kind in dict.fromkeys(config.settings):
        if kind == "alone":
            found |= {g: ({g: 1.0}, False) for g in config.languages}
        elif kind == "hybrid":
            found |= {f"{g}+{config.against}": ({g: 0.5, config.against: 0.5}, False) for g in others}
        elif kind == "protected":
            found |= {f"{g} {PROTECTED}": ({g: 1.0}, True) for g in config.languages}
        elif len(config.languages) > 1:
            found[EQUAL] = (dict.fromkeys(config.languages, 1.0), False)
    return found | ({OWN: (dict(config.calibrate), False)} if config.calibrate else {})


def roles(config: Study, target: str) -> dict[str, str]:
    """What stands side by side for one target language: role -> the setting that plays it, where the study has it."""
    names = {TARGET: target, REFERENCE: config.against, HYBRID: f"{target}+{config.against}", PROTECTED: f"{target} {PROTECTED}",
             EQUAL: EQUAL, OWN: OWN}  # fmt: skip
    known = settings(config)
    return {role: name for role, name in names.items() if name in known and not (role == REFERENCE and name == target)}


def cells(config: Study) -> tuple[Cell, ...]:
    """Every pruning, seed by seed, so that a study that is cut has whole matrices first."""
    return tuple(dict.fromkeys(_cells(config)))


def _cells(config: Study) -> Iterator[Cell]:
    compared = settings(config)
    alone = {g: ({g: 1.0}, False) for g in config.languages}
    patterns = (*(f"{s:g}" for s in config.sparsity), *config.patterns)
    axes = [(compared, config.samples, 0.0), *((alone, n, 0.0) for n in config.more_samples),
            *((alone, config.samples, share) for share in config.noise)]  # fmt: skip
    for seed in range(config.seed, config.seed + config.seeds):
        for among, samples, noise in axes:
            for method in config.methods:
                for pattern in patterns:
                    for name, (shares, protected) in among.items():
                        yield Cell(name, method, pattern, seed, samples, noise, protected, shares)


def masking(config: Study, cell: Cell) -> Masking:
    """One cell as the pruning that it is."""
    same = {name: getattr(config, name) for name in ("model", "field", "seq_len", "dtype", "device", "batch")}
    much: dict[str, Any] = {"pattern": cell.pattern} if ":" in cell.pattern else {"sparsity": float(cell.pattern)}
    protect = {"protect": "auto"} if cell.protected else {}
    seen = dict.fromkeys((*cell.shares, *(config.languages if cell.protected else ())))  # what protects is seen in every language
    shares = {g: cell.shares.get(g, 0.0) for g in seen}
    corpus = {g: config.corpus[g] for g in seen}
    return filled(Masking, {**same, "corpus": corpus, "calibrate": shares, "samples": cell.samples, "seed": cell.seed,
                            "method": cell.method, **much, **protect})  # fmt: skip


def asked(cell: Cell) -> Pattern:
    return Pattern.of(None, cell.pattern) if ":" in cell.pattern else Pattern.of(float(cell.pattern))
