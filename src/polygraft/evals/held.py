"""The texts of evaluation items, for whoever must not train on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polygraft.config import Document, parse
from polygraft.evals.jobs import fetched, make_jobs
from polygraft.evals.run import Job
from polygraft.evals.settings import EvalConfig
from polygraft.step import Context
from polygraft.watching import Watch

PIECE = 400  # characters of a document that are one item
Text = tuple[str, str, str, str]  # task, language, id, text


def texts(watch: Watch, against: Sequence[str], data: str | None, context: Context) -> list[Text]:
    """Every item of the watched tasks, the start of every watched corpus, and every item of the tasks of `against` (`mgsm:sw`).

    data: the folder of the files of `against`, else the watch's. All items are told, not only those that a watch would ask. While
    planning, tasks that come from the hub are left out. Raises UserError for tasks, languages or files that do not exist.
    """
    found: dict[Text, None] = {}
    asked = [_asked(watch.tasks, watch, watch.data, watch.corpora)] if watch.wanted else []
    asked += [_asked(tuple(against), watch, data or watch.data, {})] if against else []
    for config in asked:
        if context.planning and fetched(config, context):
            continue
        for job in make_jobs(config, context):
            found |= dict.fromkeys(_texts(job))
    return list(found)


def _asked(tasks: Sequence[str], watch: Watch, data: str | None, corpora: dict[str, str]) -> EvalConfig:
    tree = {"models": ["none"], "tasks": list(tasks), "langs": list(watch.langs), "corpora": dict(corpora), "shots": 0}
    return parse(EvalConfig, Document(tree | ({"data": data} if data else {}), "against", {(): "against"}))


def _texts(job: Job) -> Iterator[Text]:
    for item in job.items:
        right = item.choices[item.target] if item.choices else ""
        yield job.title, item.language, item.id, f"{item.prompt} {right}".strip()
    for i, document in enumerate(job.documents):
        for start in range(0, len(document), PIECE):
            yield job.title, job.language, f"{i}:{start}", document[start : start + PIECE]
