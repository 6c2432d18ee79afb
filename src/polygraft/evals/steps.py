"""`eval` as a step of a recipe: several models on the same items, scores with intervals, differences with verdicts."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from polygraft import languages
from polygraft.config import Strict
from polygraft.errors import InputError, RecipeError, UserError, suggestion
from polygraft.evals import metrics, notes, records, run, tasks
from polygraft.evals.governance import views
from polygraft.evals.items import Item
from polygraft.evals.metrics.likelihood import BITS
from polygraft.evals.metrics.quality import DEFAULT
from polygraft.evals.notes import size
from polygraft.evals.opening import Opened, open_engine
from polygraft.evals.quality import overview
from polygraft.evals.responses import Store, store_root
from polygraft.evals.run import BPB, Job
from polygraft.evals.tasks import ProblemKind, TaskFile, foreign, suites
from polygraft.evals.tasks.suites import Entry
from polygraft.evals.verdicts import compare, criteria, planning
from polygraft.evals.verdicts import suites as suite_results
from polygraft.evals.verdicts import tables as verdict_tables
from polygraft.evals.verdicts.measures import Measure, from_records
from polygraft.result import Result, Sample
from polygraft.sources import SERVER
from polygraft.step import Context, DataRef, Detail, ModelRef, Plan, Step

if TYPE_CHECKING:
    from polygraft.sources import Source

SAMPLER = "sampler"  # a corpus that comes with the package: short parallel paragraphs
READING = "problems-generate"
TOKENS_PER_ITEM, BYTES_PER_TOKEN, CPU_FLOPS = 80, 2.5, 5e10  # for the plan's estimate of time only


def _checked(check: Callable[[str], Any], word: str) -> Any:
    """What `check` makes of a word; its RecipeError as a ValueError, which pydantic turns into a fault with its line or flag."""
    try:
        return check(word)
    except RecipeError as e:
        raise ValueError("; ".join(filter(None, (e.what, e.fix)))) from e


def _task(word: str) -> str:
    """A task's or suite's name, checked; a file's name is read when it is known from which folder."""
    if tasks.is_file(word) or foreign.is_foreign(word):
        return word if word.startswith(foreign.PREFIX) else TaskFile(word)
    _checked(suites.load if suites.is_suite(word) else tasks.load, word)
    return word


Language = Annotated[str, AfterValidator(lambda tag: _checked(languages.check, tag))]
TaskName = Annotated[str, AfterValidator(_task)]
PROBLEMS = "which procedural problems are asked: number of steps, operations, split"


class EvalConfig(Strict):
    """Score models on the same items: right answers, likelihoods and bits per byte, with intervals and paired tests.

    Every model is compared with the first one, or with the one that is named as the reference.
    """

    models: tuple[ModelRef, ...] = Field(min_length=1, description="the models", json_schema_extra={"argument": True})
    tasks: tuple[TaskName, ...] = Field(("problems",), description="tasks and suites (`polygraft tasks` lists them), a task file of "
                                   "your own, or lm-eval:NAME for one of lm-eval's")
    langs: tuple[Language, ...] = Field(("en",), description="languages of the tasks, as tags such as sw or zh")
    corpora: dict[Language, DataRef] = Field(
        default_factory=dict, json_schema_extra={"flag": "--corpus", "metavar": "LANG=PATH"},
        description="a text for bits per byte: .txt, .jsonl (also .gz, .xz), .parquet; `sampler` is one that comes with polygraft")
    criteria: DataRef | None = Field(None, description="criteria.yaml: what must hold; exit 6, after everything is written, if not")
    reference: ModelRef | None = Field(None, description="the model that the others are compared with (default: the first)")
    data: DataRef | None = Field(None, description="folder with the tasks' files, such as mgsm/mgsm_sw.tsv (default: the hub)")
    limit: int | None = Field(None, ge=1, description="ask only the first N items of each task; of word problems, N are made "
                              "(default: 100)")
    max_bytes: int = Field(default=200_000, ge=1, description="read a corpus until so many bytes of text")
    problems: ProblemKind = Field(default=ProblemKind(), description=PROBLEMS)
    shots: int | None = Field(default=None, ge=0, description="worked examples before each item (default: as each task says)")
    generate: int = Field(default=0, ge=0, description="word problems a language to answer in writing too, for reading; not scored")
    chat: bool = Field(default=False, description="ask through the model's chat template")
    system: str = Field(default="", description="the system's turn, with `chat` (default: as each task says)")
    trust_task_code: bool = Field(default=False, description="run the Python that a task file of lm-eval's kind brings")
    seed: int = Field(default=0, ge=0, description="seed of the word problems, of the samples shown and of the bootstrap")
    backend: Literal["hf", "vllm"] = Field(
        default="hf", description="what runs the models: hf (transformers) or vllm (extra); a server is a model: server:URL#NAME")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="type to compute in; auto: the checkpoint's own, or float32 where a CPU has no bfloat16")
    device: Annotated[str, Detail] = Field(default="auto", description="cpu, cuda, cuda:1 ...; auto: a GPU where there is one")
    store: Annotated[str | None, Detail] = Field(
        default=None, description="folder of the response store, where answers are found again; `none`: only while this runs")
    batch_tokens: Annotated[int, Detail] = Field(default=1024, ge=1, description="tokens in one batch; less needs less memory")

    @property
    def compared_with(self) -> str:
        return self.reference or self.models[0]


@dataclass(frozen=True)
class Evaluated:
    """What one model gave: the records of each job, in the jobs' order."""

    label: str
    records: list[list[dict[str, Any]]]


# ----------------------------------------------------------------------------------------------------------------- jobs


def make_jobs(config: EvalConfig, context: Context) -> list[Job]:
    """Every task in every language, every corpus, and the problems to be read. Raises UserError for what cannot be asked."""
    jobs = [_job(entry, config, context) for entry in entries(config, context)]
    jobs += [Job(foreign.LANGUAGE, foreign=task) for word in _foreign(config, context) for task in foreign.load(
        word, shots=config.shots, limit=config.limit, seed=config.seed, trusted=config.trust_task_code, offline=context.offline)]
    for language, ref in config.corpora.items():
        jobs.append(Job(language, documents=tuple(documents(language, ref, config.max_bytes, context))))
    if config.generate and "problems" in {j.task.task for j in jobs if j.task}:
        task = tasks.load(READING)
        for language in config.langs:
            found = tasks.items(task, language, limit=config.limit, seed=config.seed, kind=config.problems)
            picked = records.chosen([i.id for i in found], config.generate, config.seed)
            jobs.append(Job(language, task, tuple(found[i] for i in picked), reading=True))
    return jobs


def entries(config: EvalConfig, context: Context) -> list[Entry]:
    """Every task in every language, those of suites too. Raises RecipeError."""
    theirs = _foreign(config, context)
    words = [w for w in _words(config, context) if w not in theirs]
    return list(suites.planned(words, config.langs, data=_data(config, context), chat=config.chat, shots=config.shots,
                               limit=config.limit))


def _words(config: EvalConfig, context: Context) -> list[str]:
    """The tasks, with the paths of task files as they are from here."""
    return [str(context.data(w)) if isinstance(w, TaskFile) else w for w in config.tasks]


def _foreign(config: EvalConfig, context: Context) -> list[str]:
    return [w for w in _words(config, context) if foreign.is_foreign(w)]


def _data(config: EvalConfig, context: Context) -> Path | None:
    return context.data(config.data) if config.data is not None else None


def _job(entry: Entry, config: EvalConfig, context: Context) -> Job:
    found = tasks.items(entry.task, entry.language, data=_data(config, context), shots=entry.shots, limit=entry.limit,
                        seed=config.seed, kind=config.problems, offline=context.offline)
    return Job(entry.language, entry.task, tuple(found))


def documents(language: str, ref: str, max_bytes: int, context: Context) -> list[str]:
    """The first documents of a corpus, whole, until `max_bytes` of UTF-8 are reached. Raises InputError when it has none."""
    taken, size = [], 0
    for text in _corpus(language, ref, context):
        taken.append(text)
        size += len(text.encode("utf-8", "replace"))
        if size >= max_bytes:
            break
    if size == 0:
        raise InputError("the corpus has no text", where=ref, expected="at least one document that is not empty")
    return taken


def _corpus(language: str, ref: str, context: Context) -> Iterator[str]:
    if ref == SAMPLER:
        from polygraft.evals.tasks import sampler

        yield from sampler.paragraphs(language)
        return
    from polygraft.data import parse_corpus

    yield from parse_corpus(f"{language}={context.data(ref)}").documents()


# ----------------------------------------------------------------------------------------------------------------- plan


def faults(config: EvalConfig, context: Context) -> tuple[list[Job], list[UserError]]:
    """The jobs that can be made, and everything that is wrong with the others."""
    wrong: list[UserError] = []
    if config.reference is not None and config.reference not in config.models:
        wrong.append(RecipeError("the reference is not one of the models", found=config.reference,
                                 fix=suggestion(config.reference, config.models)))
    if not config.tasks and not config.corpora:
        wrong.append(RecipeError("nothing to evaluate", expected="at least one task or corpus"))
    wrong += idle(config)
    jobs: list[Job] = []
    try:
        asked = entries(config, context)
        for word in _foreign(config, context):  # read by lm-eval, when the step runs
            foreign.check(word, trusted=config.trust_task_code, offline=context.offline)
    except UserError as e:
        wrong, asked = [*wrong, e], []
    fetched = [e for e in asked if config.data is None and tasks.from_hub(e.task)]
    for entry in asked:  # what comes from the hub is fetched when the step runs, not when it is planned
        try:
            if entry in fetched:
                tasks.check_language(entry.task, entry.language)
            else:
                jobs.append(_job(entry, config, context))
        except UserError as e:
            wrong.append(e)
    for language, ref in config.corpora.items():
        try:
            jobs += make_jobs(config.model_copy(update={"tasks": (), "corpora": {language: ref}}), context)
        except UserError as e:
            wrong.append(e)
    wrong += criteria_faults(config, asked, context)
    if context.offline:
        wrong += [InputError(f"{name} would come from the hub, and this run is offline", fix="name a data folder")
                  for name in dict.fromkeys(e.task.task for e in fetched)]
    return jobs, wrong


def idle(config: EvalConfig) -> list[UserError]:
    """Settings that nothing would use."""
    problems = {"problems", READING} & {t.partition("@")[0] for t in config.tasks}
    found = [("system", config.system and not config.chat, "the system's turn needs a chat template: set `chat: true`"),
             ("problems", config.problems != ProblemKind() and not problems, "add the task problems"),
             ("generate", config.generate and "problems" not in problems, "add the task problems")]
    return [RecipeError(f"`{name}` is set and nothing uses it", fix=f"{fix}, or leave `{name}` out")
            for name, wrong, fix in found if wrong]


def criteria_faults(config: EvalConfig, asked: Sequence[Entry], context: Context) -> list[UserError]:
    """What is wrong with criteria.yaml, as far as can be told before anything is asked."""
    if config.criteria is None:
        return []
    try:
        read = criteria.read(context.data(config.criteria))
    except UserError as e:
        return [e]
    of = [(e.task.task, e.language, name) for e in asked for name in (*e.task.metrics, *(DEFAULT if e.task.written else ()))]
    return [*criteria.slips(read, [*of, *((BPB, language, BITS.name) for language in config.corpora)],
                            skip=[g.name for g in expanded(config)])]


def plan(config: EvalConfig, context: Context) -> Plan:
    """From headers and data files: what is asked, roughly how long it takes, and every reason why it would fail."""
    jobs, wrong = faults(config, context)
    if wrong:
        return Plan(problems=tuple(wrong))
    others = f", compared with {config.compared_with}" if len(config.models) > 1 else ""
    lines = [f"{len(config.models)} model{'s' * (len(config.models) > 1)}{others}", *map(_line, jobs)]
    lines += [f"{word}: as lm-eval runs it; its items are read and counted when the step runs" for word in _foreign(config, context)]
    tokens = sum(sum(map(_tokens, j.items)) + size(j) / BYTES_PER_TOKEN for j in jobs)
    seconds, peak = 0.0, 0
    for ref in config.models:
        if (source := context.model(ref)).kind == SERVER:
            from polygraft.evals.engines.client import Address

            Address.parse(source.spec)
            continue
        parameters, stored = model_size(source)
        seconds += 2 * parameters * tokens / CPU_FLOPS
        peak = max(peak, parameters * 4 + stored)
    return Plan(tuple(lines), peak_bytes=peak + (1 << 29), disk_bytes=1 << 20, seconds=seconds,
                notes=("time is a rough guess for one CPU; an accelerator is much faster",))


def _line(job: Job) -> str:
    if job.task is None:
        return f"{job.name} {job.language}: {len(job.documents)} documents, {size(job):,} bytes"
    shots = f", {job.shots} worked examples" * bool(job.shots)
    seen = f"; {planning.sentence(len(job.items))}" * any(metrics.get(m).binary for m in job.task.metrics)
    return f"{job.name} {job.language}: {len(job.items)} items{shots}{seen}"


def _tokens(item: Item) -> float:
    """Rough tokens that a model reads for an item; worked examples are read once for a whole job."""
    text = item.prompt + "".join(item.choices)
    return max(TOKENS_PER_ITEM, len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def model_size(source: Source) -> tuple[int, int]:
    """(parameters, bytes on disk) of a model, from its headers."""
    tensors = source.weights.tensors.values()
    return sum(t.nbytes // t.itemsize for t in tensors), sum(t.nbytes for t in tensors)


# ------------------------------------------------------------------------------------------------------------------ run


def labels(refs: Sequence[str]) -> list[str]:
    """Short names for tables: the last part of a path where that stays unique."""
    short = [(r.partition("#")[2] if r.startswith(f"{SERVER}:") else Path(r).name) or r for r in refs]
    return [s if short.count(s) == 1 else str(r) for s, r in zip(short, refs)]


def run_step(config: EvalConfig, context: Context, folder: Path) -> Result:
    """Evaluate each model in turn (one in memory at a time). Raises UserError when a model cannot be loaded or scored."""
    jobs = make_jobs(config, context)
    shutil.rmtree(folder / "samples", ignore_errors=True)  # an interrupted run's, half a set; the responses are what is kept
    names = labels(config.models)
    total, done = sum(j.size for j in jobs) * len(names), 0
    evaluated, how = [], ""
    for i, (ref, name) in enumerate(zip(config.models, names)):
        def tick(n: int, text: str = f"{name} ({i + 1} of {len(names)})") -> None:
            nonlocal done
            done += n
            context.progress(done, total, text)

        found, how = evaluate_model(config, context, ref, name, jobs, folder, tick)
        evaluated.append(Evaluated(name, found))
        done = (i + 1) * (total // len(names))
    shutil.rmtree(folder / "responses", ignore_errors=True)  # the samples hold all of it
    reference = names[list(config.models).index(config.compared_with)]
    result = build_result(config, jobs, evaluated, reference, how)
    if config.criteria is None:
        return result
    scored = list({(m.task, m.language, m.metric.name): m for m in (*written(jobs, evaluated), *measures(jobs, evaluated))}.values())
    return criteria.judged(result, criteria.read(context.data(config.criteria)), compare.compared(
        scored, reference, config.seed, extra=suite_figures(config, scored)))


def evaluate_model(config: EvalConfig, context: Context, ref: str, name: str, jobs: Sequence[Job], folder: Path,
                   tick: run.Progress) -> tuple[list[list[dict[str, Any]]], str]:
    """Load one model, run the jobs, and let it go again. Also returns how it was computed, in words."""
    opened = open_engine(context.model(ref), backend=config.backend, dtype=config.dtype, device=config.device, chat=config.chat,
                         batch_tokens=config.batch_tokens, seed=config.seed, offline=context.offline)
    with open_store(opened, config.store, folder, ref) as store:
        found = run.run_jobs(opened.engine, jobs, folder=folder, model=name, store=store, computed=opened.computed,
                             seed=config.seed, chat=config.chat, system=config.system, trusted=config.trust_task_code, progress=tick)
    how = opened.how
    del opened
    gc.collect()
    return found, how


def open_store(opened: Opened, named: str | None, folder: Path, ref: str) -> Store:
    """The model's responses: in the store, or in the step's own folder when there is none or nothing vouches for the weights."""
    root = store_root(named) if opened.digest else None
    return Store(root or folder / "responses", opened.digest or ref)


# --------------------------------------------------------------------------------------------------------------- result


def measures(jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> list[Measure]:
    """Per-item columns of every metric that the jobs give."""
    return [m for i, job in enumerate(jobs) if not job.reading
            for m in from_records(job.title, job.language, {e.label: e.records[i] for e in evaluated})]


def samples(config: EvalConfig, jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> tuple[Sample, ...]:
    """Written answers side by side: those generated to be read, and a few of each generated task, chosen by hash."""
    out = []
    for i, job in enumerate(jobs):
        if job.task is None or job.task.output_type == tasks.CHOICE:
            continue
        ids, task = [x.id for x in job.items], job.task.task
        for k in range(len(ids)) if job.reading else records.chosen(ids, config.generate or 3, config.seed):
            item, outputs = job.items[k], {e.label: str(e.records[i][k]["output"]).strip() for e in evaluated}
            gold = item.golds[0] if item.golds else ""
            out.append(Sample(f"{task}/{item.id}", job.language, item.prompt, outputs, gold, "chosen by the hash of its id"))
    return tuple(out)


def build_result(config: EvalConfig, jobs: Sequence[Job], evaluated: Sequence[Evaluated], reference: str, how: str) -> Result:
    """Tables, verdicts, samples and caveats; `data` holds every score and difference as plain values."""
    scored = measures(jobs, evaluated)
    groups = expanded(config)
    found = compare.compared(scored, reference, config.seed, extra=suite_figures(config, scored))
    settings = config.model_dump(mode="json", exclude={"models", "corpora", "data"})
    asked = sorted({f"{j.name} {j.language} (n = {len(j.items) or len(j.documents) or j.size})" for j in jobs
                    if not j.reading})
    return Result(
        "eval@1", "", f"Evaluation of {', '.join(e.label for e in evaluated)}",
        summary=verdict_tables.summary(found),
        tables=(*suite_results.tables(groups, scored, found), *verdict_tables.tables(found), *views.tables(scored, config.seed),
                *overview.table(written(jobs, evaluated), config.seed)),
        samples=samples(config, jobs, evaluated),
        caveats=(*verdict_tables.caveats(found), 
                 *notes.notes(jobs, by_job(jobs, evaluated), limit=config.limit, max_bytes=config.max_bytes), *suite_results.notes(groups, scored),
                 f"Scores were {how}; other machines and versions differ slightly."),
        data=found.data() | {"settings": settings, "asked": asked, "computed": how, "records": index(jobs, evaluated)},
    )


def expanded(config: EvalConfig) -> list[suites.Expanded]:
    return [suites.expand(t, chat=config.chat, shots=config.shots) for t in config.tasks if suites.is_suite(t)]


def suite_figures(config: EvalConfig, scored: Sequence[Measure]) -> list[compare.Figure]:
    return [f for g in expanded(config) for f in suite_results.figures(g, scored)]


def written(jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> list[Measure]:
    """The quality of everything that was written to be scored."""
    return [m for i, job in enumerate(jobs) if job.task is not None and job.task.written and not job.reading
            for m in overview.measured(job.task.task, job.language, job.items, {e.label: e.records[i] for e in evaluated})]


def by_job(jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> list[dict[str, list[dict[str, Any]]]]:
    """For each job: every model's records."""
    return [{e.label: e.records[i] for e in evaluated} for i in range(len(jobs))]


def index(jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> list[dict[str, str]]:
    """Which file holds whose records of what: how `polygraft compare` finds them."""
    return [{"file": f"samples/{run.sample_name(j, e.label)}.jsonl", "task": j.name, "language": j.language, "model": e.label}
            for j in jobs if not j.reading for e in evaluated]


STEPS = (Step("eval", 1, EvalConfig, plan, run_step, resumable=True),)

__all__ = ["STEPS", "EvalConfig", "build_result", "evaluate_model", "plan", "run_step"]
