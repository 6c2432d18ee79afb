"""A scheduled check of a model: the evaluation of before, asked again, against the first ancestor and against the parent.

Each update may be within what is tolerated, and all of them together not: so criteria are judged against the first ancestor in the
chain of manifests, and the history of the checks is drawn as one curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError, RecipeError
from polygraft.files import MANIFEST, digest, now, read_json, write_atomic, write_json
from polygraft.poc import ancestry, drift, history
from polygraft.poc.ancestry import Chain
from polygraft.poc.drift import FIRST, NOW, PREVIOUS
from polygraft.poc.history import Check
from polygraft.result import InputRef, Result
from polygraft.sources import SERVER, Source, resolve, with_base

if TYPE_CHECKING:
    from polygraft.evals.findings import Findings
    from polygraft.evals.settings import EvalConfig
    from polygraft.evals.verdicts.criteria import Criteria
    from polygraft.evals.verdicts.folders import Evaluated

Row = dict[str, Any]
RESULT, REPORT, CHECKS = "result.json", "report.html", "checks"
OWN = {CHECKS, "run.lock"}  # what the folder of a watch has whose first check was not finished


@dataclass(frozen=True)
class Before:
    """The evaluation that is asked again: its folder, its settings, where its paths begin, and its items by task and language."""

    folder: Path
    config: EvalConfig
    base: Path
    models: tuple[Evaluated, ...]

    @property
    def digest(self) -> str:
        """Of the items and of every setting that decides a score."""
        rows = sorted(self.models[0].records.items())
        items = {" ".join(key): [[r["id"], r["prompt_sha256_16"]] for r in found] for key, found in rows}
        left = {"models", "reference", "criteria", "data", "corpora", "tasks", "time_budget", "device", "store", "batch_tokens"}
        return digest([self.config.model_dump(mode="json", exclude=left), items])


@dataclass(frozen=True)
class Task:
    """One check, ready to be run. `first` is the first ancestor, `previous` the parent: the same model after one update."""

    before: Before
    criteria: Criteria
    chain: Chain
    first: Source
    first_name: str
    past: tuple[Check, ...]
    out: Path

    @property
    def sources(self) -> dict[str, Source]:
        """The models that are asked, by the names that tables have for them."""
        links = self.chain.links
        found = {f"{FIRST}: {self.first_name}": self.first}
        if len(links) > 1 and links[1].source.path.resolve() != self.first.path.resolve():
            found[f"{PREVIOUS}: {links[1].name}"] = links[1].source
        return found | {f"{NOW}: {links[0].name}": links[0].source}


# ----------------------------------------------------------------------------------------------------------------- checking


def prepare(model: str, of: Path, criteria: Path, out: Path, *, first: str | None = None, base: Path | None = None,
            offline: bool = False) -> Task:
    """Look at everything before anything is loaded. Raises UserError for what would make the check fail or mean nothing."""
    from polygraft.evals.identity import model_digest
    from polygraft.evals.verdicts import criteria as demands

    asked = demands.read(criteria)
    before = read(of, base)
    refuse_slips(asked, before)

    def find(spec: str, base: Source | None = None) -> Source:
        found = resolve(spec, offline=offline, base=base, headers_only=True)
        if found.kind == SERVER:
            raise InputError("a model behind a server cannot be watched: nothing tells which model answers", where=spec,
                             fix="name its folder")
        return found

    chain = standing(ancestry.chain(model, find), offline)
    if first is not None:
        root, name = find(first).downloaded(offline=offline), ancestry.name_of(first)
    elif chain.ancestors:
        root, name = chain.links[-1].source, chain.links[-1].name
    else:
        raise InputError("no ancestor of the model is at hand", where=model, found=chain.broken or "no manifest: polygraft did not "
                         "make this model", fix="name what it is to be compared with: --first MODEL")
    refuse_taken(out)
    past = tuple(history.read(out / history.NAME))
    history.refuse_other(past, out / history.NAME, evaluation=before.digest, first=name, first_digest=model_digest(root))
    return Task(before, asked, chain, root, name, past, out)


def refuse_taken(out: Path) -> None:
    """Raise RecipeError for a folder of something else: nothing of a watch goes into it."""
    if out.exists() and not (out.is_dir() and ((out / history.NAME).exists() or {p.name for p in out.iterdir()} <= OWN)):
        raise RecipeError("the output is taken by something else", where=out, expected="a new folder, or one of `polygraft watch`",
                          fix="name a new folder")


def standing(chain: Chain, offline: bool) -> Chain:
    """The chain with every adapter on the model that it was trained from, and the models that are asked on this machine."""
    links = list(chain.links)
    for i in range(len(links) - 2, -1, -1):
        if links[i].source.adapter is not None and links[i].source.base is None:
            links[i] = replace(links[i], source=with_base(links[i].source, links[i + 1].source))
    for i in {0, min(1, len(links) - 1), len(links) - 1}:
        links[i] = replace(links[i], source=links[i].source.downloaded(offline=offline))
    return replace(chain, links=tuple(links))


def read(of: Path, base: Path | None = None) -> Before:
    """A finished evaluation and how to ask it again. Raises InputError where it is none, or where its settings cannot be read."""
    from pydantic import ValidationError

    from polygraft.evals.settings import EvalConfig
    from polygraft.evals.verdicts import folders

    models = tuple(folders.read_evaluation(of))
    entry = read_json(of / MANIFEST).get("recipe")
    if not isinstance(entry, dict) or not str(entry.get("use", "")).startswith("eval@"):
        raise InputError("the evaluation does not say what was asked", where=of / MANIFEST, expected="the entry of an eval step",
                         fix="name what `polygraft eval --out` or a recipe's eval step wrote")
    own = {"models": [NOW], "reference": None, "criteria": None, "time_budget": None}
    try:
        config = EvalConfig.model_validate({k: v for k, v in entry.items() if k not in ("id", "use")} | own)
    except ValidationError as e:
        said = str(e).partition("\n")[2][:200]
        raise InputError("the settings of the evaluation cannot be read", where=of / MANIFEST, found=said,
                         fix="it was made by another version of polygraft: evaluate again") from e
    return Before(of, config, begin(config, of, base), models)


def begin(config: EvalConfig, of: Path, base: Path | None) -> Path:
    """Where the evaluation's relative paths begin: what is given, else the folder of those that know most of them."""
    from polygraft.recipetext import references

    if base is not None:
        return base
    names = [name.target for _, name in references(config) if name != NOW]
    places = [Path.cwd(), *of.resolve().parents]
    return max(places, key=lambda p: sum((p / name).exists() for name in names))


def refuse_slips(asked: Criteria, before: Before) -> None:
    """Raise RecipeError, before a model is loaded, for a demand that matches nothing of the evaluation."""
    from polygraft.evals.verdicts import criteria as demands

    found = findings({m.label: m for m in before.models}, before.models[0].label, before.config.seed).demanded()
    for c, place in zip(asked.criteria, asked.places):
        for f in demands.matching(c, found.figures, place):
            demands.reachable(c, f.metric, place)


# ------------------------------------------------------------------------------------------------------------------ running


def run(task: Task, *, language: str = "en", offline: bool = False, tell: Any = None) -> tuple[Result, Check]:
    """Ask the models, write the check, its line in the history, and the report. Raises UserError; then nothing was added."""
    from polygraft.evals.identity import model_digest
    from polygraft.lock import lock

    with lock(task.out):
        task = replace(task, past=tuple(history.read(task.out / history.NAME)))  # another check may have ended meanwhile
        moment, links = now(), task.chain.links
        folder = task.out / CHECKS / f"{len(task.past) + 1:04d}-{moment.replace(':', '')}"
        pairs = compared(ask(task, folder, offline=offline, tell=tell), task.before.config.seed)
        verdicts = drift.verdicts(task.criteria, pairs)
        check = Check(moment, links[0].name, model_digest(links[0].source), task.first_name, model_digest(task.first),
                      links[1].name if len(links) > 1 else "", task.before.digest, verdicts[FIRST].passed, verdicts[FIRST].reasons,
                      tuple(link.name for link in links), drift.changes(pairs), task.chain.broken)
        inputs = tuple(InputRef(name, s.spec, s.revision, s.identity) for name, s in task.sources.items())
        result = drift.result(task.chain, task.criteria, pairs, verdicts, (*task.past, check))
        result = replace(result, inputs=inputs, data=result.data | {"evaluation": str(folder)})
        write_json(task.out / RESULT, result.to_json())
        write_atomic(task.out / REPORT, report(result, language).encode())
        history.append(task.out / history.NAME, check)
    return result, check


def compared(asked: Mapping[str, Evaluated], seed: int) -> dict[str, Findings]:
    """The model beside the first ancestor, and beside its parent where that is another."""
    label = {name.partition(": ")[0]: name for name in asked}
    return {kind: findings({label[kind]: asked[label[kind]], label[NOW]: asked[label[NOW]]}, label[kind], seed)
            for kind in (FIRST, PREVIOUS) if kind in label}


def ask(task: Task, folder: Path, *, offline: bool, tell: Any) -> dict[str, Evaluated]:
    """Evaluate the models on the items of before; records by label. Raises InputError where the items are not those of before."""
    from polygraft import recipe as engine
    from polygraft.evals.verdicts import folders
    from polygraft.step import ModelName
    from polygraft.steps import TABLE

    sources, step = task.sources, next(s for s in TABLE if s.name == "eval")
    config = task.before.config.model_copy(update={"models": tuple(map(ModelName, sources))})
    more = {"tell": tell} if tell else {}
    engine.run_step(step, config, folder, folder=task.before.base, offline=offline, resolve=lambda spec, **_: sources[spec], **more)
    found = {m.label: m for m in folders.read_evaluation(folder)}
    return {label: same_items(task.before, found[label]) for label in sources}


def same_items(before: Before, found: Evaluated) -> Evaluated:
    """The records of the items of before, in their order. Raises InputError where one is missing or is another question.

    As in `polygraft compare`, a question may be sent in another chat template."""
    from polygraft.evals.verdicts import folders

    records = {}
    for key, rows in before.models[0].records.items():
        records[key], lacking = min((matched(rows, found.records.get(key, ()), same) for same in (folders.sent, folders.asked)),
                                    key=lambda pair: len(pair[1]))
        if lacking:
            raise InputError("the items are not those of the evaluation", where=f"{before.folder}: {' '.join(key)}",
                             found=f"{len(lacking)} of {len(rows)} are missing or were asked otherwise, the first: {lacking[0]}",
                             expected="the same files and the same version of the task",
                             fix="restore what has changed, or evaluate again and begin another history")
    return replace(found, records=records)


def matched(rows: Sequence[Row], there: Sequence[Row], same: Callable[[Row], Any]) -> tuple[list[Row], list[str]]:
    """The records that are of the same items, in the order of `rows`, and the ids of those that are not there."""
    known = {same(r): r for r in there}
    found = [(r, known.get(same(r)) if same(r) is not None else None) for r in rows]
    return [hit for _, hit in found if hit is not None], [str(r["id"]) for r, hit in found if hit is None]


def findings(models: Mapping[str, Evaluated], reference: str, seed: int) -> Findings:
    """What the items that all these models share say."""
    from polygraft.evals.findings import Findings
    from polygraft.evals.verdicts import folders, suites

    asked, _ = folders.shared(models, reference)
    named = tuple(dict.fromkeys(t for m in models.values() for t in m.named))
    return Findings(asked, reference, seed, suites.united(s for m in models.values() for s in m.suites), named)


def report(result: Result, language: str) -> str:
    from polygraft.report import Meta, render

    return render([result], Meta(name="watch", question=result.title, language=language))
