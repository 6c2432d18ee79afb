"""Which way to make new rows is best is found by trying: a few steps of training with each, judged by bits per byte afterwards.

Loss before training does not predict which model learns fastest, a probe of about 50 steps does ("Beyond Initialization Loss",
arXiv 2608.03494). Every method sees the same blocks of text in the same order; the texts that judge are never trained on.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import __version__, files, stats
from polygraft.data import Corpus
from polygraft.errors import InputError, StepFailed
from polygraft.result import Curve, Estimate, Result, Table
from polygraft.step import Context
from polygraft.vocab.around import Around
from polygraft.vocab.init import making
from polygraft.vocab.init.making import Job, Made
from polygraft.vocab.init.methods import Material, Method

if TYPE_CHECKING:
    from polygraft.vocab.init.steps import Init

EVERY = 10  # one document of so many is held out
LONGEST = 500  # characters of a document that judge
PER_TOKEN = 24  # characters that are gathered for a token of training: blocks begin at lines, what is between is left out
SPEED = 5e10  # operations a second of two cores in training, about


def texts(corpora: Iterable[Corpus], *, held: bool) -> Iterator[str]:
    """The documents to judge by, or all others."""
    for corpus in corpora:
        for i, text in enumerate(corpus.documents()):
            if (i % EVERY == EVERY - 1) is held:
                yield text


def split(corpora: Iterable[Corpus], tokens: int, judging: int) -> tuple[list[str], list[str]]:
    """Texts to train on, as many as `tokens` need, and `judging` of those to judge by; of several corpora alike.

    Raises InputError for too few documents.
    """
    corpora = list(corpora)
    train, judges = list[str](), list[str]()
    for corpus in corpora:
        room = PER_TOKEN * tokens // len(corpora)
        for text in texts([corpus], held=False):
            train.append(text)
            room -= len(text)
            if room <= 0:
                break
        some = [text[:LONGEST] for text, _ in zip(texts([corpus], held=True), range(max(2, judging // len(corpora))))]
        if len(some) < 2:
            raise InputError("too few documents to try methods on", where=corpus.path, expected=f"at least {2 * EVERY}",
                             fix="split the text into documents, one a line")
        judges += some
    return train, judges


@dataclass(frozen=True)
class Trial:
    """One method: nats of every judging text before and after training (float64 [n], [seeds, n]), losses of the first order."""

    before: np.ndarray
    after: np.ndarray
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Tried:
    """All trials, the best, and what was written of it. `bytes` int64 [n] of the judging texts; `steps`, `tokens` of a trial."""

    trials: Mapping[Method, Trial]
    bytes: np.ndarray
    best: Method
    made: Made
    steps: int
    tokens: int

    def facts(self) -> dict[str, Any]:
        """Bits per byte by method: before, after, and after by order of text."""
        scale = math.log(2) * self.bytes.sum()
        return {"steps": self.steps, "tokens": self.tokens, "texts": len(self.bytes), "best": self.best, "bits per byte": {
            name: {"before": t.before.sum() / scale, "after": t.after.sum() / len(t.after) / scale,
                   "orders": (t.after.sum(1) / scale).tolist()} for name, t in self.trials.items()}}  # fmt: skip

    def into(self, result: Result) -> Result:
        """The result with the table of trials, the curve of their losses and a sentence about the best."""
        table = ranked(self)
        x = tuple(float(i + 1) for i in range(self.steps))
        curve = Curve("Loss of the trials", x, {name: t.losses for name, t in self.trials.items()}, "step", "nats per token")
        rivals = [str(row[0]) for row in table.rows if isinstance(row[3], Estimate) and row[3].verdict == stats.UNCLEAR]
        text = f"After {self.steps} steps {self.best} has the fewest bits per byte"
        text += f"; {', '.join(rivals)} cannot be told from it." if rivals else "."
        caveat = ("intervals are of the judging texts; they do not hold what another order of text, more steps or another "
                  "learning rate would change")  # fmt: skip
        return replace(result, summary=(*result.summary, text), tables=(*result.tables, table), curves=(*result.curves, curve),
                       caveats=(*result.caveats, caveat))


def ranked(tried: Tried) -> Table:
    """Methods by bits per byte after the trial, with paired differences from the best (10,000 resamples of the judging texts)."""
    names = sorted(tried.trials, key=lambda name: tried.trials[name].after.sum())
    columns = [tried.trials[n].before for n in names] + [tried.trials[n].after.mean(0) for n in names] + [tried.bytes]
    matrix = np.stack(columns, 1).astype(np.float64)
    drawn = np.concatenate([sums[0] for sums in stats.resampled([matrix])])
    values, samples = (x[..., :-1] / (math.log(2) * x[..., -1:]) for x in (matrix.sum(0), drawn))
    m, n = len(names), len(matrix)
    found = [stats.summarise(float(v), s, n) for v, s in zip(values, samples.T)]
    best = samples[:, m]
    gaps = [stats.summarise(float(values[i] - values[m]), stats.paired(best, samples[:, i]), n) for i in range(m + 1, 2 * m)]
    adjusted = stats.holm([g.p for g in gaps])
    rows = []
    for i, name in enumerate(names):
        gap = None if i == 0 else Estimate(gaps[i - 1].value, gaps[i - 1].low, gaps[i - 1].high, n, "bits per byte", stats.verdict(
            gaps[i - 1].value, adjusted[i - 1], higher_is_better=False))  # fmt: skip
        orders = tried.trials[name].after.sum(1) / (math.log(2) * tried.bytes.sum())
        spread = f"{orders.min():.4f} to {orders.max():.4f}" if len(orders) > 1 else None
        rows.append((name, _estimate(found[i], n), _estimate(found[m + i], n), gap, spread))
    head = ("method", "before", f"after {tried.steps} steps", "difference from the best", "orders of text, least to most")
    return Table("Methods tried", head, tuple(rows), "bits per byte of texts that were not trained on, fewer is better; 95 % "
                 "intervals over texts, differences paired and adjusted for their number (Holm)")  # fmt: skip


def _estimate(found: stats.Bootstrap, n: int) -> Estimate:
    return Estimate(found.value, found.low, found.high, n, "bits per byte")


@dataclass(frozen=True)
class Task:
    """What every trial is: rows that are trained (int64), texts to train on and to judge by, where what is finished lies, and the
    digest of all that decides a trial's outcome but method and order."""

    rows: np.ndarray
    train: list[str]
    judges: list[str]
    folder: Path
    key: str


def task(config: Init, job: Job, material: Material, corpora: tuple[Corpus, ...], folder: Path) -> Task:
    """Raises InputError where nothing is new, or text too short."""
    assert config.probe is not None
    rows = np.union1d(material.composed, material.bare)
    if not len(rows):
        raise InputError("the new tokenizer has no new tokens: there is nothing to try", where=config.tokenizer,
                         fix="leave `probe` out")
    train, judges = split(corpora, config.probe * config.probe_batch * config.probe_length, config.probe_texts)
    said = config.model_dump(mode="json", exclude={"method", "device", "corpus", "probe_seeds"})
    donor = material.donor.vocabulary.path.as_posix() if material.donor else ""
    made_of = [job.weights.identity, files.sha256_file(job.new.path), donor, *(c.digest for c in corpora)]
    key = files.digest([__version__, said, made_of])
    return Task(rows, train, judges, folder / "trials", key)


def tried(config: Init, job: Job, material: Material, corpora: tuple[Corpus, ...], folder: Path, around: Around,
          context: Context) -> Tried:  # fmt: skip
    """Try every method; `folder/model` is the best one's, untrained. A trial that an interrupted run finished is not done again.

    Raises InputError where nothing is new, or text too short; StepFailed for a trial that ends in no number.
    """
    assert config.probe is not None
    given, path = task(config, job, material, corpora, folder), folder / "trial"
    given.folder.mkdir(exist_ok=True)
    runs: dict[Method, list[dict[str, Any]]] = {}
    for i, method in enumerate(config.method):
        context.progress(i, len(config.method), f"trying {method}")
        shutil.rmtree(path, ignore_errors=True)
        runs[method] = [_run(config, job, material, given, method, order, path, around) for order in range(config.probe_seeds)]
    shutil.rmtree(path, ignore_errors=True)
    trials = {m: Trial(np.array(found[0]["before"]), np.array([r["after"] for r in found]), tuple(found[0]["losses"]))
              for m, found in runs.items()}  # fmt: skip
    best = min(trials, key=lambda name: trials[name].after.sum())
    made = making.write(job, best, material, folder / "model")
    one = runs[best][0]
    return Tried(trials, np.array(one["bytes"]), best, made, config.probe, one["tokens"])


def _run(config: Init, job: Job, material: Material, given: Task, method: Method, order: int, path: Path,
         around: Around) -> dict[str, Any]:  # fmt: skip
    """One trial: from its record, or done in `path` and recorded."""
    record, key = given.folder / f"{method}-{order}.json", files.digest([given.key, method, order])
    if record.is_file() and (found := files.read_json(record))["key"] == key:
        return found
    assert config.probe is not None
    if not path.is_dir():
        making.write(job, method, material, path)
    run = around.pretrain(path, given.train, given.judges, rows=given.rows, steps=config.probe, lr=config.probe_lr,
                          batch=config.probe_batch, length=config.probe_length, seed=config.seed + order, device=config.device)
    before, after = run.nats[0], run.nats[config.probe]
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise StepFailed("a trial did not end in numbers", where=method, found="NaN", fix="lower `probe_lr`")
    found = {"key": key, "before": before.tolist(), "after": after.tolist(), "losses": list(run.losses),
             "bytes": run.bytes.tolist(), "tokens": run.tokens}
    files.write_json(record, found)
    return found


def seconds(config: Init, job: Job) -> float:
    """A guess for two CPU cores."""
    if config.probe is None:
        return 0.0
    parameters = sum(t.numel for t in job.weights.tensors.values())
    read = 2 * config.probe_texts * LONGEST / 4
    tokens = config.probe * config.probe_batch * config.probe_length + read / 3  # reading is a third of training
    return len(config.method) * config.probe_seeds * (6.0 * parameters * tokens / SPEED + 5)
