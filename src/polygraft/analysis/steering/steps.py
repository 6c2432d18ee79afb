"""`steer` as a step of a recipe: a model run under edits, and what that changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import data
from polygraft.activity import Activity
from polygraft.analysis.steering import answers, halves, matrix, targets, verdict
from polygraft.analysis.steering.bench import Bench, Evaluation
from polygraft.analysis.steering.config import Steer
from polygraft.analysis.steering.effects import LEAST_CONTROLS, Addition, Ratio, effects, observe
from polygraft.analysis.steering.kept import FOLDER, Kept, keeping
from polygraft.analysis.steering.targets import Row
from polygraft.anatomy import Anatomy
from polygraft.edits import at_work
from polygraft.errors import RecipeError, UserError
from polygraft.meter import LIBRARIES
from polygraft.result import LayerMap, Result, Table
from polygraft.step import Context, Plan, Step

BYTES_PER_TOKEN, BESIDE = 2.5, 24  # of UTF-8 in most languages; answers that are written side by side
OPENING = 5.0  # seconds until a model is open
CAVEATS = (
    "Edits are of this run only: the model on the disk is as it was. To keep one, tune or merge.",
)

UNASKED = ("Nothing was asked of the edited model. Give prompts, tasks or texts (read) to see what the edits do, or use them from "
           'Python: `with edits.applied(live, edits.Edits.load("OUT/edits/WAY")): ...`.')

# ----------------------------------------------------------------------------------------------------------------- plan


def plan(config: Steer, context: Context, bench: Bench) -> Plan:
    """From headers and texts: what is run, how often, and every reason why it would fail."""
    source = context.model(config.model)
    anatomy = Anatomy.of(source.weights.config, source.weights.tensors, where=config.model)
    wrong: list[UserError] = list(_refused(config, anatomy.layers))
    masks = targets.chosen(config, context, anatomy)
    both = targets.both(config, context, anatomy, masks)
    notes = (*targets.foreign(config, context), *targets.few(config, anatomy), *_both(both))
    wrong += [] if wrong else targets.faults(config, context, anatomy, masks)
    rows = len(masks) if config.matrix else len(config.tried)
    runs, answered = 1 + rows * (1 + config.controls), 1 + rows * (1 + min(1, config.controls))
    parameters = sum(t.nbytes // t.itemsize for t in source.weights.tensors.values())
    seconds, faults = _seconds(config, context, bench, masks, parameters, runs, answered)
    wrong += faults
    if not _asks(config):
        notes = (*notes, "nothing is asked of the edited model: its edits are written, and that is all",)
    lines = (f"{config.model}: {', '.join(w.word for w in config.tried)} at {config.positions} positions",
             *(f"neurons {name}: {int(m.sum()):,} in {int(m.any(axis=1).sum())} layers" for name, m in masks.items()),
             f"{runs} runs of the same items: unedited, edited and {config.controls} random controls of each")
    stored = sum(t.nbytes for t in source.weights.tensors.values())
    if _asks(config):
        notes = (*notes, "time is a rough guess for two CPU cores; tasks from the hub are not in it")
    return Plan(lines, parameters * 4 + stored + LIBRARIES, 1 << 22, stored, seconds, notes=notes, problems=tuple(wrong))


def _seconds(config: Steer, context: Context, bench: Bench, masks: Mapping[str, Any], parameters: int, runs: int,
             answered: int) -> tuple[float, list[UserError]]:
    """A guess of the time for `runs` that measure and `answered` that write answers, and what is wrong with what they ask."""
    wrong: list[UserError] = []

    def tokens(read: Callable[[], dict[str, list[str]]]) -> tuple[float, int]:
        try:
            texts = [text for some in read().values() for text in some]
        except UserError as e:
            wrong.append(e)
            return 0.0, 0
        return sum(len(text.encode()) for text in texts) / BYTES_PER_TOKEN, len(texts)

    read, (asked, prompts) = tokens(partial(_documents, config, context))[0], tokens(partial(_prompts, config, context))
    scored, written, faults = bench.planned(_asked(config, masks), context) if config.tasks else (0.0, 0, ())
    passes = config.max_tokens * -(-prompts // BESIDE)
    return (runs * bench.seconds(parameters, read + scored, written, -(-written // BESIDE))
            + answered * bench.seconds(parameters, asked, prompts * config.max_tokens, passes)
            + OPENING * _asks(config)), [*wrong, *faults]


def _refused(config: Steer, layers: int) -> list[UserError]:
    out: list[UserError] = []
    if config.backend == "vllm":
        out.append(RecipeError(
            "neurons cannot be edited under vLLM: it computes act(gate) * up in one fused operation, so the neuron's value never "
            "exists there, and under tensor parallelism each process holds other rows", where="backend",
            fix="leave out `backend: vllm`"))
    if config.verdict and config.controls < LEAST_CONTROLS:
        out.append(RecipeError("a verdict needs random controls", where="controls", found=config.controls,
                               expected=f"at least {LEAST_CONTROLS}"))
    if (config.verdict or config.matrix) and not (config.read or config.tasks):
        out.append(RecipeError("nothing to measure the effect on", where="verdict" if config.verdict else "matrix",
                               fix="name texts that were not read before (read: {sw: PATH}), or tasks"))
    if outside := [i for i in config.layers if not 0 <= i < layers]:
        out.append(RecipeError("no such layer", where="layers", found=outside[0], expected=f"0 to {layers - 1}"))
    if config.matrix and len(config.tried) > 1:
        out.append(RecipeError("the matrix is of one way", where="way", found=", ".join(w.word for w in config.tried),
                               fix="name one, and make a matrix of each"))
    if config.matrix and (config.verdict or config.tasks or config.prompts or not config.read):
        out.append(RecipeError("the matrix is of texts, and is asked for alone", where="matrix", expected="read: {sw: PATH, ...}",
                               fix="leave out verdict, tasks and prompts"))
    if config.positions != "all" and config.read:
        out.append(RecipeError("a text has no prompt and no answer", where="positions", found=config.positions, expected="all"))
    if targets.wanted(config) is not None and not config.corpus and config.activity is None:
        out.append(targets.unread(config))
    return out


# ------------------------------------------------------------------------------------------------------------------ run


def run(config: Steer, context: Context, folder: Path, bench: Bench) -> Result:
    """Write the edits; answer, measure, compare. Raises UserError when something that is needed is missing."""
    from polygraft import model

    source = context.model(config.model)
    anatomy = Anatomy.of(source.weights.config, source.weights.tensors, where=config.model)
    if wrong := _refused(config, anatomy.layers):
        raise wrong[0]
    masks = targets.chosen(config, context, anatomy)
    activity = targets.statistics(config, context, folder)
    tried = targets.rows(config, context, anatomy, masks, activity)
    shutil.rmtree(folder / "edits", ignore_errors=True)  # of a run that was cut
    for row in tried:
        place = folder / "edits" / row.name
        place.mkdir(parents=True, exist_ok=True)
        row.edits.save(place)
    result = Result(
        "steer", context.step_id, f"Steering {config.model}",
        (said(tried, config.positions, _asks(config)), *_both(targets.both(config, context, anatomy, masks))),
        (edited_map(tried, anatomy.layers),), (edits_table(tried),), inputs=(source.ref("model"),),
        caveats=(*CAVEATS, *targets.foreign(config, context), *targets.few(config, anatomy), *reread(config, context, activity)),
        data={"edits": {row.name: row.edits.digest for row in tried}})
    if not _asks(config):
        return replace(result, summary=(*result.summary, UNASKED))
    device = model.device_for(config.device)
    dtype = model.dtype_for(device, config.dtype)[0]
    live = model.load(source, dtype=dtype, device=device, offline=context.offline)
    kept = Kept(folder / FOLDER, (source.identity, str(dtype), device))
    result = _asked_of(live, result, config, context, tried, keeping(bench, kept))
    kept.clear()
    return result


def _asks(config: Steer) -> bool:
    """Whether anything is asked of the edited model."""
    return bool(config.prompts or config.tasks or config.read)


def _asked_of(live: Any, result: Result, config: Steer, context: Context, tried: Sequence[Row], bench: Bench) -> Result:
    """The result with all that was asked of the model."""
    if config.prompts is not None:
        result = _with_answers(result, config, context, live, tried, bench)
    if config.matrix:
        found = matrix.study(live, {r.name: r.edits for r in tried}, {r.name: r.controls for r in tried},
                             _documents(config, context), bench.nats, seed=config.seed, progress=context.progress)
        return _with_study(result, found, "matrix")
    return _with_measures(result, config, context, live, tried, bench) if config.read or config.tasks else result


def _with_answers(result: Result, config: Steer, context: Context, live: Any, tried: Sequence[Row], bench: Bench) -> Result:
    asked = _prompts(config, context)["prompts"]
    edits = {name: e for r in tried for name, e in ((r.name, r.edits), *((answers.at_random(r.name), c) for c in r.controls[:1]))}
    found = answers.ask(live, edits, asked, bench, max_tokens=config.max_tokens, chat=config.chat)
    said = tuple(answers.changed(found, r.name) for r in tried)
    return replace(result, summary=(*result.summary, *said), samples=answers.samples(asked, found, bench),
                   tables=(*result.tables, answers.beside(asked, found), answers.table(found, tried[0].language, bench)))


def _with_measures(result: Result, config: Steer, context: Context, live: Any, tried: Sequence[Row], bench: Bench) -> Result:
    """Effects on texts and tasks beside random controls, the verdict where it is asked for, and the tasks' own tables."""
    fields = _asked(config, [r.language for r in tried])
    evaluation = bench.make(fields, context, context.model(config.model)) if config.tasks else None
    measure = measured(config, context, tried, bench, evaluation)
    observed = observe(live, {r.name: r.edits for r in tried}, {r.name: r.controls for r in tried}, measure, context.progress)
    if config.verdict:
        about = config.about or _about(tried[0].language, list(observed.plain))
        kinds = {r.name: verdict.NEURONS if r.way.neurons else verdict.COMPARATOR for r in tried}
        found, e = halves.judge(observed, about, kinds, seed=config.seed)
        study = Addition((found.sentence,), verdict.tables(found, e), verdict.data(found), verdict.caveats(found))
        result = _with_study(result, study, "verdict")
    else:
        e = effects(observed, seed=config.seed)
        note = "Change from the unedited model on the same items; 95 % paired bootstrap, verdicts by Holm over the table."
        tables = [matrix.table(e, e.own, "What editing changes", note)]
        if any(e.controls):
            tables.append(matrix.table(e, e.specific, "Beyond random neurons, as many in each layer", note))
        tables = [replace(t, columns=("way", *e.columns)) for t in tables]
        result = _with_study(result, Addition((), tuple(tables), matrix.data(e, None), matrix.CAVEATS), "effects")
    if evaluation is None:
        return result
    told = evaluation.result([answers.PLAIN, *(r.name for r in tried)])
    return replace(result, summary=(*result.summary, *told.summary), tables=(*result.tables, *told.tables),
                   samples=(*result.samples, *told.samples), caveats=(*result.caveats, *told.caveats),
                   inputs=(*result.inputs, *told.inputs), data=result.data | {"evaluation": told.data})


def measured(config: Steer, context: Context, tried: Sequence[Row], bench: Bench,
             evaluation: Evaluation | None) -> Callable[[Any], dict[str, Ratio]]:
    """What `observe` measures of the model as it runs: nats of each text, and the tasks' metrics, by column."""
    reading = matrix.Reader(_documents(config, context), bench.nats)
    names = {r.edits.digest: r.name for r in tried}

    def measure(live: Any) -> dict[str, Ratio]:
        found = {f"nats {language}": scores for language, scores in reading(live).items()}
        if evaluation is not None:
            work = at_work(live.model)
            label = answers.PLAIN if work.off else names.get(work.digest, f"control {work.digest[:12]}")
            found |= {name: Ratio(*column) for name, column in evaluation.ask(live, label).items()}
        return found

    return measure


def _about(language: str, columns: Sequence[str]) -> str:
    """What a verdict is about: the first task in the target language, else its nats, else the first column."""
    own = [c for c in columns if language in c.split()]
    return next((c for c in own if not c.startswith("nats ")), next(iter(own), columns[0]))


def _with_study(result: Result, found: Addition, name: str) -> Result:
    return replace(result, summary=(*result.summary, *found.summary), tables=(*result.tables, *found.tables),
                   caveats=(*result.caveats, *found.caveats), data=result.data | {name: found.data})


# ------------------------------------------------------------------------------------------------------------- inputs


def _documents(config: Steer, context: Context) -> dict[str, list[str]]:
    """The first documents of each text that is read under the edits."""
    return {language: list(islice(data.open_corpus(language, context.data(ref), config.field).documents(), config.documents))
            for language, ref in config.read.items()}


def reread(config: Steer, context: Context, activity: Activity | None) -> tuple[str, ...]:
    """A caveat where text whose nats are compared is the very text that the statistics are of."""
    known = {} if activity is None else {g: told["digest"] for g, told in activity.languages.items()}
    same = [g for g, ref in config.read.items() if g in known and data.open_corpus(g, context.data(ref)).digest == known[g]]
    if not same:
        return ()
    return (f"The text read in {', '.join(same)} is the one that the statistics are of: an effect on other text may be smaller.",)


def _prompts(config: Steer, context: Context) -> dict[str, list[str]]:
    return {} if config.prompts is None else {"prompts": answers.prompts(context.data(config.prompts))}


def _asked(config: Steer, targeted: Iterable[str]) -> Mapping[str, Any]:
    """The settings of the evaluation, as the `eval` step names them; by default in the languages of the edits and in English."""
    langs = config.langs or tuple(dict.fromkeys([*filter(None, targeted), "en"]))
    return {name: getattr(config, name) for name in ("tasks", "data", "limit", "shots", "chat", "seed")} | {"langs": langs}


# --------------------------------------------------------------------------------------------------------------- tables


def said(tried: Sequence[Row], positions: str, ran: bool = True) -> str:
    """What was edited, in one sentence; `ran`: the model was run under the edits, not only were they written."""
    where = {"all": "at every token", "prompt": "at the tokens of the prompt", "generated": "at the tokens that the model wrote"}
    counts = ", ".join(f"{r.name} ({n:,} neuron{'s' * (n != 1)})" if (n := neurons(r)) else r.name for r in tried)
    return f"{'Edited' if ran else 'Wrote edits'} {where[positions]}: {counts}."


def _both(n: int) -> tuple[str, ...]:
    """What is said of neurons that are selected and deactivated."""
    said = f"{n:,} neurons are both selected and deactivated: they are edited first, and what deactivates them is done to that."
    return (said,) if n else ()


def neurons(row: Row) -> int:
    """How many single neurons a row edits, those that it silences included."""
    return sum(len(e.rows) for e in row.edits.edits if e.point == "act" and e.rows is not None)


def edits_table(tried: Sequence[Row]) -> Table:
    """What each row edits."""
    body = []
    for row in tried:
        at = {point: [e for e in row.edits.edits if e.point == point] for point in ("act", "residual")}
        whole = sum(e.rows is None for e in at["act"])
        layers = len({e.layer for e in at["act"] if e.rows is not None})
        counts = (neurons(row), layers, whole, len(at["residual"]), len(row.controls))
        body.append((row.name, row.way.word, *counts, row.edits.digest[:12]))
    columns = ("row", "way", "neurons", "in layers", "whole layers", "edits of the stream", "random controls", "digest")
    return Table("What is edited", columns, tuple(body))


def edited_map(tried: Sequence[Row], layers: int) -> LayerMap:
    """Edited neurons of each layer, one row a way (or a language)."""
    counts = np.zeros((len(tried), layers))
    for i, row in enumerate(tried):
        for e in row.edits.edits:
            if e.point == "act" and e.rows is not None:
                counts[i, e.layer] += len(e.rows)
    return LayerMap("Edited neurons of each layer", tuple(r.name for r in tried), layers, tuple(map(tuple, counts.tolist())),
                    unit="neurons", low=0.0)


def steer_step(bench: Bench) -> Step:
    """The step, with what evaluates the model."""
    return Step("steer", 1, Steer, partial(plan, bench=bench), partial(run, bench=bench), resumable=True)


