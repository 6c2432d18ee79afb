"""Stages: smoke, pilot, full. Each is a recipe in the same run folder, sized by what the stage before took; all of them resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from polygraft import recipe as engine
from polygraft.errors import RecipeError, ResourceError, UserError
from polygraft.evals.budget import parse_duration
from polygraft.files import digest, read_json, resource_errors, write_atomic, write_json
from polygraft.planning import RunPlan
from polygraft.poc import budget, gather
from polygraft.poc.config import STAGES, Poc, Stage
from polygraft.poc.costs import read_prices
from polygraft.poc.deciding import Done, Setup, carried, decide, equal
from polygraft.poc.decision import Decision, Reason
from polygraft.poc.evaluation import target
from polygraft.poc.facts import facts
from polygraft.poc.given import check_files, check_models
from polygraft.poc.methods import TABLE, Sizes, lacking
from polygraft.poc.report import write
from polygraft.poc.texts import texts
from polygraft.poc.writing import FILE, INPUTS, SCORES, Written, recipe, write_inputs
from polygraft.recipe import Event
from polygraft.recipetext import NAME
from polygraft.sources import resolve
from polygraft.steps import TABLE as STEP_TABLE
from polygraft.store import RunFolder, read_result

ASKED, STAGED = "poc.json", "stages"
OWN_NEURONS = ("neurons", "steer")  # methods that act on the neurons that the language has for itself
EMPTY = ("no neuron is selected: nothing would be trained", "no neurons to edit")  # what their steps say where it has none
Tell = Callable[[Event], None]
Out = dict[str, tuple[str, Reason]]


@dataclass(frozen=True)
class Planned:
    """What a stage would do: its recipe, the plan of it, and the methods that are left out with their reasons."""

    stage: Stage
    sizes: Sizes
    run: RunPlan
    out: Out

    @property
    def equal(self) -> Reason:
        """What is equal for every method, in words."""
        return equal(self.sizes)


# ------------------------------------------------------------------------------------------------------------------ setup


def setup(config: Poc, folder: Path, *, offline: bool) -> Setup:
    """Everything read, checked and dealt; input files are written below `folder / "inputs"`. Raises UserError."""
    found, read = target(Path(config.eval).expanduser(), config.lang), texts(config)
    check_files(config, found)
    prices = read_prices(Path(config.prices).expanduser()) if config.prices else None
    base = resolve(config.models["base"], offline=offline, headers_only=True)
    sources = {name: base if name == "base" else resolve(spec, offline=offline, base=base, headers_only=True)
               for name, spec in config.models.items()}
    check_models(config, sources)
    inputs = folder / INPUTS
    with resource_errors(folder):
        write_inputs(inputs, found, read)
    known = facts(config, read, inputs, sources)
    return Setup(config, found, read, known, inputs, parse_duration(config.budget), prices, sources)


def check_out(out: Path) -> None:
    """Raise RecipeError for a folder that cannot be a run's, or that holds something else."""
    if not NAME.match(out.name):
        raise RecipeError("not a plain name for a folder of runs", where="--out", found=out.name or str(out),
                          expected="letters, digits, `-` and `_`, at most 64")
    if out.exists() and not (out.is_dir() and ((out / STAGED).is_dir() or not any(out.iterdir()))):
        raise RecipeError("the output is taken by something else", where=out, expected="a new folder, or one of `polygraft poc`",
                          fix="name a new folder")


def _asked(config: Poc) -> str:
    """What a stage's sizes and omissions hold for: everything but how far to go and what it is worth."""
    return digest(config.model_dump(mode="json", exclude={"stage", "prices", "licence"}))


def _before(out: Path, stage: Stage, config: Poc) -> tuple[Sizes, Out] | None:
    """The sizes of this stage and what it leaves out, as the stage before it found; None where that has not run."""
    path = out / STAGED / f"{STAGES[STAGES.index(stage) - 1]}.json"
    if not path.is_file() or (value := read_json(path)).get("asked") != _asked(config):
        return None
    return Sizes(**value["next"]), carried(Decision.from_json(value["decision"]))


def none_applies(out: Out) -> RecipeError:
    lines = "\n".join(f"  {name}: {reason.text}" for name, (_, reason) in out.items())
    return RecipeError(f"no method applies to what is given\n{lines}", where="poc", fix="give what one of them needs")


def why(method: str, step: str, ready: Setup, error: UserError, code: str = "refused") -> Reason:
    """Why a method cannot go on, in words that say what the user may do."""
    if method in OWN_NEURONS and error.what in EMPTY:
        return Reason("no-neurons", {"language": ready.facts.name})
    return Reason(code, {"why": error.what} | ({"step": step} if code == "failed" else {}))


# ------------------------------------------------------------------------------------------------------------------- plan


def plan(config: Poc, out: Path, *, offline: bool = False) -> Planned:
    """What the next stage of `out` would do: the one asked for, or the first that has to run before it. Nothing is written to
    `out`, and no weight is read."""
    check_out(out)
    with TemporaryDirectory(prefix="polygraft-") as scratch:
        ready = setup(config, Path(scratch), offline=offline)
        left: Out = {m: ("absent", reason) for m, reason in lacking(ready.facts).items()}
        stage, sizes = STAGES[0], budget.smoke(ready.facts.longest)
        for later in STAGES[1 : STAGES.index(config.stage) + 1]:
            if (before := _before(out, later, config)) is None:
                break  # what it will do is known when the stage before it has run
            stage, (sizes, left) = later, before
        run, left, _ = _plannable(ready, sizes, left, Path(scratch), out, offline)
        return Planned(stage, sizes, run, left)


def _plannable(ready: Setup, sizes: Sizes, left: Out, folder: Path, out: Path, offline: bool) -> tuple[RunPlan, Out, Written]:
    """The plan of all methods that planning does not refuse, and their recipe, written to `folder`. Raises RecipeError for none."""
    left = dict(left)
    while methods := [m for m in TABLE if m not in left]:
        written = recipe(out.name, ready.config, ready.target, ready.texts, ready.facts, sizes, methods)
        with resource_errors(folder):
            write_atomic(folder / FILE, written.text.encode())
        planned = engine.plan(engine.read_recipe(folder / FILE, STEP_TABLE), out.parent, offline=offline)
        wrong = {s.id: s.errors[0] for s in planned.steps if s.errors}
        if not wrong:
            return planned, left, written
        for id, error in wrong.items():
            left |= {m: ("absent", why(m, id, ready, error)) for m in written.owners[id] if m not in left}
    raise none_applies(left)


# -------------------------------------------------------------------------------------------------------------------- run


def run(config: Poc, out: Path, *, offline: bool = False, language: str = "en", tell: Tell = lambda _: None) -> Decision:
    """Run every stage up to the one asked for, skipping what is done; after each its decision is written. Raises UserError.

    A method whose step fails is told as failed, and the others go on; a lack of resources or an interruption ends the run, and the
    same command goes on from there.
    """
    check_out(out)
    with resource_errors(out):
        (out / STAGED).mkdir(parents=True, exist_ok=True)
    ready = setup(config, out, offline=offline)
    write_json(out / ASKED, config.model_dump(mode="json"))
    left: Out = {m: ("absent", reason) for m, reason in lacking(ready.facts).items()}
    before: Sizes | None = None
    sizes, told = budget.smoke(ready.facts.longest), list[Decision]()
    for stage in STAGES[: STAGES.index(config.stage) + 1]:
        done = _stage(ready, sizes, left, out, offline, tell)
        told.append(decide(ready, done, before))
        left = carried(told[-1])
        before = sizes
        if stage != STAGES[-1]:
            sizes = _next(ready, STAGES[STAGES.index(stage) + 1], done)
        write_json(out / STAGED / f"{stage}.json", {"asked": _asked(config), "next": vars(sizes), "decision": told[-1].to_json()})
        write(out, told, language)
        if len(left) == len(TABLE):
            break  # every method was set aside: there is nothing left to run
    return told[-1]


def _stage(ready: Setup, sizes: Sizes, left: Out, out: Path, offline: bool, tell: Tell) -> Done:
    """Run a stage to the end, without the methods that fail on the way."""
    left = dict(left)
    while True:
        _, left, written = _plannable(ready, sizes, left, out, out, offline)
        read = engine.read_recipe(out / FILE, STEP_TABLE)
        heard = Heard(tell)
        try:
            engine.run(read, out.parent, offline=offline, tell=heard)
        except ResourceError:
            raise
        except UserError as e:
            if heard.step not in written.owners:
                raise
            lost = {m: ("failed", why(m, heard.step, ready, e, "failed")) for m in written.owners[heard.step]}
            left |= lost
            for m, (_, reason) in lost.items():
                tell(Event("note", f"{m} cannot go on: {reason.text if reason.code == 'no-neurons' else e.render()}"))
            if len(left) == len(TABLE):
                return Done(sizes.stage, sizes, out=left)
            continue
        folders = {r.id: f for f in RunFolder(out).folders() for r in (read_result(f),)}
        return Done(sizes.stage, sizes, {id: read_result(f) for id, f in folders.items()}, folders, written.owners, left)


class Heard:
    """Passes news on, and knows which step was begun last."""

    def __init__(self, tell: Tell):
        self.tell, self.step = tell, ""

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self.step = event.step
        self.tell(event)


def _next(ready: Setup, stage: Stage, before: Done) -> Sizes:
    """The sizes of the stage that follows, by what this one took."""
    results = before.results
    training = {id: (float(r.data["seconds"]), int(r.data["steps"])) for id, r in results.items() if gather.seen(r)}
    measuring = [r.cost.seconds for id, r in results.items() if id.startswith(SCORES) or id == "steer"]
    everything = sum(r.cost.seconds for r in results.values())
    return budget.fitted(stage, ready.budget, budget.pace(training, measuring, everything, before.sizes.items), before.sizes,
                         items=ready.target.items, text_bytes=ready.texts.bytes)
