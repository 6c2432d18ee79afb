"""What an evaluation asks: every task in every language, every corpus; and whatever is wrong with what was wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from polygraft.errors import InputError, RecipeError, UserError, suggestion
from polygraft.evals import records, tasks
from polygraft.evals.metrics.likelihood import BITS
from polygraft.evals.metrics.quality import DEFAULT
from polygraft.evals.quality.overview import CERTAINTY
from polygraft.evals.run import BPB, Job
from polygraft.evals.settings import EvalConfig
from polygraft.evals.tasks import ProblemKind, TaskFile, foreign, pins, suites
from polygraft.evals.tasks.suites import Entry
from polygraft.evals.verdicts import criteria
from polygraft.result import InputRef
from polygraft.step import Context

SAMPLER = "sampler"  # a corpus that comes with the package: short parallel paragraphs
READING = "problems-generate"


def make_jobs(config: EvalConfig, context: Context) -> list[Job]:
    """Every task in every language, every corpus, and the problems to be read. Raises UserError for what cannot be asked."""
    commit = cache(pins.commit)
    jobs = [_job(entry, config, context, commit) for entry in entries(config, context)]
    jobs += [Job(foreign.LANGUAGE, foreign=task) for word in foreign_words(config, context) for task in foreign.load(
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
    return list(suites.planned(_own_words(config, context), config.langs, **_how(config, context)))


def said(config: EvalConfig, context: Context) -> tuple[str, ...]:
    """What a reader must know of how tasks were named: one twice, or one's own whose language nobody named."""
    theirs = [w for w in _words(config, context) if foreign.is_foreign(w)]
    twice = [f"{w} is named twice, and asked once." for w in dict.fromkeys(theirs) if theirs.count(w) > 1]
    asked = [] if "langs" in config.model_fields_set else entries(config, context)
    unnamed = [suites.UNNAMED.format(e.task.name) for e in asked if e.task.folder and not e.task.known_languages()]
    return (*twice, *suites.repeated(_own_words(config, context), config.langs, **_how(config, context)), *unnamed)


def _own_words(config: EvalConfig, context: Context) -> list[str]:
    theirs = foreign_words(config, context)
    return [w for w in _words(config, context) if w not in theirs]


def _how(config: EvalConfig, context: Context) -> dict[str, Any]:
    return {"data": _data(config, context), "chat": config.chat, "shots": config.shots, "limit": config.limit}


def _words(config: EvalConfig, context: Context) -> list[str]:
    """The tasks, with the paths of task files as they are from here."""
    return [str(context.data(w)) if isinstance(w, TaskFile) else w for w in config.tasks]


def foreign_words(config: EvalConfig, context: Context) -> list[str]:
    return [w for w in dict.fromkeys(_words(config, context)) if foreign.is_foreign(w)]


def _data(config: EvalConfig, context: Context) -> Path | None:
    return context.data(config.data) if config.data is not None else None


def _job(entry: Entry, config: EvalConfig, context: Context, commit: pins.Commit = pins.commit) -> Job:
    task, data = entry.task, _data(config, context)
    refs: tuple[InputRef, ...] = ()
    if not context.offline:
        shots = task.num_fewshot if entry.shots is None else entry.shots
        task, refs = pins.pinned(task, entry.language, data=data, shots=shots, commit=commit)
    found = tasks.items(task, entry.language, data=data, shots=entry.shots, limit=entry.limit, seed=config.seed,
                        kind=config.problems, offline=context.offline)
    if task.generation is not None and config.temperature is not None:
        task = task.model_copy(update={"generation": task.generation.model_copy(update={"temperature": config.temperature})})
    return Job(entry.language, task, tuple(found), hub=refs)


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


def faults(config: EvalConfig, context: Context) -> tuple[list[Job], list[UserError]]:
    """The jobs that can be made, and everything that is wrong with the others."""
    wrong: list[UserError] = []
    if config.reference is not None and config.reference not in config.models:
        wrong.append(RecipeError("the reference is not one of the models", found=config.reference,
                                 fix=suggestion(config.reference, config.models)))
    wrong += [RecipeError("one model is named twice", found=ref, expected="each model once", fix="name it once")
              for ref in dict.fromkeys(config.models) if config.models.count(ref) > 1]
    if not config.tasks and not config.corpora:
        wrong.append(RecipeError("nothing to evaluate", expected="at least one task or corpus"))
    wrong += idle(config)
    jobs: list[Job] = []
    try:
        asked = entries(config, context)
        for word in foreign_words(config, context):  # read by lm-eval, when the step runs
            foreign.check(word, trusted=config.trust_task_code, offline=context.offline)
    except UserError as e:
        wrong, asked = [*wrong, e], []
    else:
        if config.tasks and not (asked or config.corpora or foreign_words(config, context)):
            wrong.append(RecipeError("nothing to evaluate", where="langs", found="no language",
                                     expected="at least one, such as sw", fix="name the languages of the tasks"))
    remote = [e for e in asked if config.data is None and tasks.from_hub(e.task)]
    for entry in asked:  # what comes from the hub is fetched when the step runs, not when it is planned
        try:
            if entry in remote:
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
                  for name in dict.fromkeys(e.task.task for e in remote)]
    return jobs, wrong


def fetched(config: EvalConfig, context: Context) -> list[Entry]:
    """What comes from the hub, and is read when the step runs."""
    return [e for e in entries(config, context) if config.data is None and tasks.from_hub(e.task)]


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
    of = [(e.task.task, e.language, name) for e in asked for name in (*e.task.metrics, *beside(e.task))]
    names = [g.name for g in expanded(config)]
    return [*criteria.slips(read, [*of, *((BPB, language, BITS.name) for language in config.corpora)],
                            skip=[*names, *(n.partition("@")[0] for n in names)])]


def beside(task: tasks.Task) -> tuple[str, ...]:
    """The metrics that every task of its kind is judged by besides its own."""
    return DEFAULT if task.written else CERTAINTY if "accuracy" in task.metrics else ()


def expanded(config: EvalConfig) -> list[suites.Expanded]:
    return [suites.expand(t, chat=config.chat, shots=config.shots) for t in config.tasks if suites.is_suite(t)]
