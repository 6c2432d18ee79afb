"""One trainer for every way of tuning: TRL's on our examples, our order of them, our training state, and what was chosen.

LoRA: Hu et al. 2021, arXiv 2106.09685. What is trained is held in float32 (a bfloat16 step smaller than 1/256 of a weight would be
rounded away); `bf16` computes in bfloat16 by autocast. What is saved has the base's dtypes.
"""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft import ranks
from polygraft.errors import InputError
from polygraft.files import digest as digest_of
from polygraft.ranks import Ranks
from polygraft.result import Curve, Table
from polygraft.tune import examples, state
from polygraft.tune.adapters import AdapterProof, Laid, lay
from polygraft.tune.chosen import Chosen, checked, choose, everything, size
from polygraft.tune.grafts import Grafts
from polygraft.tune.hooks import Hook
from polygraft.tune.output import after, write_model
from polygraft.tune.packing import check_apart
from polygraft.tune.processes import check_shards, from_first, whole
from polygraft.tune.proof import Proof, prove
from polygraft.tune.settings import Settings
from polygraft.tune.sides import Sides
from polygraft.tune.start import Start
from polygraft.tune.tokenised import prepare
from polygraft.watching import Log, Watcher

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.selection import Selection

STATE = "state"  # where the resumable training state lies while training runs


@dataclass(frozen=True)
class Watched:
    """What scores the model while it is trained, where the readings go, and whether the best step's weights are kept."""

    watcher: Watcher
    log: Log
    best: bool = False
    key: Mapping[str, Any] = field(default_factory=dict)  # what was asked for: a training state of another watch is not resumed


@dataclass(frozen=True)
class Trained:
    """What training did: where the weights are, losses by step, and how much of the model had gradients."""

    path: Path
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    trainable: int
    total: int
    seen: tuple[tuple[int, int, int], ...]  # by step: tokens, those of them with loss, examples
    examples: int  # that there were to read
    steps: int
    planned: int
    resumed: int
    seconds: float
    notes: tuple[str, ...] = field(default=())
    proof: Proof | AdapterProof | None = None  # read from the written files

    @property
    def tokens(self) -> int:
        return sum(n for n, _, _ in self.seen)

    @property
    def answer_tokens(self) -> int:
        return sum(n for _, n, _ in self.seen)

    @property
    def read(self) -> int:
        """Examples that were read, one counted as often as it was."""
        return sum(n for _, _, n in self.seen)

    def curve(self, points: int = 200) -> Curve:
        """Loss and token accuracy over steps, averaged in bins when there are more steps than points."""
        width = max(1, math.ceil(len(self.losses) / points))
        x = tuple(float(min(i + width, len(self.losses))) for i in range(0, len(self.losses), width))
        series: dict[str, tuple[float | None, ...]] = {
            "loss (nats per answer token)": _bins(self.losses, width),
            "answer tokens guessed right": _bins(self.accuracies, width),
        }
        return Curve("Training", x, series, "step", "")

    def ends(self) -> tuple[float, float]:
        """Mean loss over the first and the last tenth of the steps."""
        tenth = max(1, len(self.losses) // 10)
        return _mean(self.losses[:tenth]), _mean(self.losses[-tenth:])

    def table(self) -> Table:
        first, last = self.ends()
        rows = (("steps", self.steps), ("examples seen", self.read),
                ("times round all examples", round(self.read / self.examples, 2)),
                ("tokens seen", self.tokens), ("of them with loss", self.answer_tokens),
                ("trained parameters", self.trainable), ("share of the model", f"{self.trainable / self.total:.2%}"),
                ("loss, first tenth", round(first, 4)), ("loss, last tenth", round(last, 4)))  # fmt: skip
        return Table("Training", ("what", "value"), rows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _bins(values: Sequence[float], width: int) -> tuple[float, ...]:
    return tuple(_mean(values[i : i + width]) for i in range(0, len(values), width))


@dataclass(frozen=True)
class Work(Start):
    """One training. `selection` is what may move; None: everything. For LoRA it says whose matrices get an adapter; None: every
    linear layer. `hooks` are the parts that methods take in the loop. `sides`: the rows are those of several sides, end to end."""

    settings: Settings
    selection: Selection | None = None
    watched: Watched | None = None
    hooks: tuple[Hook, ...] = ()
    sides: Sides | None = None
    named: str | None = None  # where the examples came from, for an error

    @property
    def job(self) -> str:
        """The digest of all that decides the result: a training state belongs to one of these."""
        chosen = [self.selection.to_json()] if self.selection is not None else []
        hooks = [[h.key for h in self.hooks]] if self.hooks else []
        watch = [self.watched.key] if self.watched else []
        sides = [self.sides.key] if self.sides else []
        data = examples.digest(self.rows)
        return digest_of([self.source.identity, data, _meaning(self.settings), *chosen, *hooks, *watch, *sides])


def train(work: Work, folder: Path, progress: Callable[..., None] = lambda *_: None) -> Trained:
    """Train on the examples and write an adapter or a model to `folder/model`.

    While it runs, `folder/state` holds the newest training state; the same call continues from it, to the same bytes as without
    the interruption (same machine, versions and number of processes). Several processes, started by torchrun, do the same steps
    together; the first alone writes. Raises InputError for examples that leave nothing to learn.
    """
    from polygraft.model import device_for

    with ranks.joined(ranks.device(device_for(work.settings.device))) as here:
        return _train(work, Path(from_first(here, str(folder))), progress, here)


def _train(work: Work, folder: Path, progress: Callable[..., None], here: Ranks) -> Trained:
    from polygraft.model import quiet

    begun = time.monotonic()
    ready = prepared(work)
    on_gpu, rows = ready.live.device.startswith("cuda"), bool(ready.grafts.all)
    check_shards(work.settings, gpu=on_gpu, rows=rows, watched=work.watched is not None)
    if work.watched is not None:
        work.watched.watcher.job = work.job
    with quiet():
        trainer = trainer_for(work, ready, folder / STATE, progress, here)
        start = from_first(here, here.rank == 0 and str(state.latest(folder / STATE, work.job) or ""))
        trainer.train(resume_from_checkpoint=start or None)
        if here.rank == 0 and work.watched is not None and work.watched.best and (best := work.watched.log.best) is not None:
            trainer.restore(best.step)
        for hook in work.hooks:
            hook.end(trainer.model, trainer.state.global_step)
    whole(trainer.model, trainer.moved & {name for name, _ in trainer.model.named_parameters()}, here)  # a merged pair is gone
    out = folder / "model"
    proof = _written(work, ready, out) if here.rank == 0 else None
    if here.rank == 0:
        shutil.rmtree(folder / STATE, ignore_errors=True)
    history = [h for h in trainer.state.log_history if "loss" in h]
    trainable = ready.laid.trainable if ready.laid else trainer.trainable
    seen = _seen(trainer.train_dataset, work.settings.batch * work.settings.accumulate)[: trainer.state.global_step]
    return Trained(
        path=out, losses=tuple(h["loss"] for h in history), accuracies=tuple(h.get("mean_token_accuracy", 0.0) for h in history),
        trainable=trainable, total=size(work.checkpoint), seen=seen, examples=ready.examples,
        steps=trainer.state.global_step, planned=ready.steps,
        resumed=int(Path(start).name.removeprefix(state.PREFIX)) if start else 0,
        seconds=time.monotonic() - begun, notes=ready.notes, proof=proof,
    )  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """A model with what is to be trained chosen (or an adapter laid on it), and its rows in the order in which steps see them."""

    live: Live
    chosen: Chosen | None
    laid: Laid | None
    data: Any  # datasets.Dataset of input_ids and labels
    steps: int
    examples: int  # that the rows are drawn from
    notes: tuple[str, ...]

    @property
    def grafts(self) -> Grafts:
        """The rows that are trained of tensors, of the model's own or of an adapter's."""
        found = self.laid or self.chosen
        assert found is not None  # one of the two is
        return found.grafts


def prepared(work: Work) -> Ready:
    """Everything before the first step. Raises InputError for examples that leave nothing to learn."""
    live, chosen = opened(work)
    if work.settings.packing:
        check_apart(live.model)
    laid = lay(live, work.source, work.settings, work.selection) if chosen is None else None
    data, steps, there, notes = ordered(work, live.tokenizer)
    return Ready(live, chosen, laid, data, steps, there, tuple(notes))


def opened(work: Work) -> tuple[Live, Chosen | None]:
    """The model in memory with its trained parameters chosen; None where an adapter is to be laid on it.

    Everything is held in float32, or, where only a part or an adapter is trained and `bf16` computes, the frozen rest in bfloat16.
    """
    from polygraft.model import anatomy_of, device_for, load

    checkpoint, s = work.checkpoint, work.settings
    selection = work.selection
    if selection is not None:
        selection = checked(selection, anatomy_of(work.source.path), checkpoint)
    part = s.dtype == "bf16" and (s.method == "lora" or selection is not None)
    live = load(work.source, dtype="bfloat16" if part else "float32", device=ranks.device(device_for(s.device)))
    if live.tokenizer is None:
        raise InputError("the model has no tokenizer", where=work.source.spec, expected="tokenizer.json")
    if s.method == "lora":
        return live, None
    parts = work.sides.parts if work.sides is not None else ()
    return live, choose(live, everything(checkpoint) if selection is None else selection, checkpoint, parts)


def _written(work: Work, ready: Ready, out: Path) -> Proof | AdapterProof:
    """Write what was trained, and prove from its files that it is that and no more."""
    from polygraft.checkpoint import Checkpoint

    shutil.rmtree(out, ignore_errors=True)  # what a run that was killed while it wrote has left
    if ready.laid is not None:
        return ready.laid.write(work.source, out)
    live, chosen = ready.live, ready.chosen
    assert chosen is not None
    write_model(live, work.checkpoint, out, chosen)
    return prove(work.checkpoint, Checkpoint.open(out), chosen.selection, lambda key: after(live, work.checkpoint, chosen, key))


def _meaning(settings: Settings) -> dict[str, Any]:
    """The settings that decide the result; how often to save and how to save memory do not."""
    return {k: v for k, v in vars(settings).items() if k not in {"save_every", "recompute", "liger", "report_to"}}


def ordered(work: Work, tokenizer: Any) -> tuple[Any, int, int, list[str]]:
    """The training rows in the order in which steps see them, how many optimiser steps that makes, how many examples there are, and
    notes on what was cut."""
    from datasets import concatenate_datasets

    s, context = work.settings, work.anatomy.context
    groups = [work.rows] if work.sides is None else work.sides.split(work.rows)
    made = [prepare(rows, tokenizer, s, context, work.named) for rows in groups]
    sizes = [len(data) for data, _ in made]
    steps, each = s.count(sum(sizes)), s.batch * s.accumulate
    places = examples.order(sizes[0], steps * each, s.seed) if work.sides is None else work.sides.places(sizes, steps, each, s.seed)
    data = made[0][0] if work.sides is None else concatenate_datasets([data for data, _ in made])
    return data.select(places), steps, sum(_held(data)), [note for _, notes in made for note in notes]


def _held(data: Any) -> list[int]:
    """How many examples each row holds: one, where it is not packed."""
    return [len(n) for n in data["seq_lengths"]] if "seq_lengths" in data.column_names else [1] * len(data)


def _seen(data: Any, each: int) -> tuple[tuple[int, int, int], ...]:
    """Tokens, those of them with loss, and examples (a packed row has several) in each run of `each` rows."""
    several = _held(data)
    rows = [(len(labels), sum(label != examples.IGNORE for label in labels), n) for labels, n in zip(data["labels"], several)]
    steps = [zip(*rows[i : i + each], strict=True) for i in range(0, len(rows), each)]
    return tuple((sum(tokens), sum(scored), sum(n)) for tokens, scored, n in steps)


def trainer_for(work: Work, ready: Ready, folder: Path, progress: Callable[..., None], here: Ranks) -> Any:
    """The trainer of these rows; its states lie in `folder`."""
    from transformers import set_seed

    from polygraft.tune.trainer import arguments, trainer_class

    # peft and transformers tell each other of a name that changes
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    s = work.settings
    set_seed(s.seed)
    model = ready.live.model if ready.laid is None else ready.laid.model
    model.train()
    if s.recompute:  # not by the trainer, under which transformers has every layer keep a graph, those too that train nothing
        model.activation_checkpointing_enable()
        model.disable_input_require_grads()
    for hook in work.hooks:
        hook.start(ready.live, ready.chosen)
    return trainer_class()(
        work=work, grafts=ready.grafts, progress=progress, here=here, model=model, train_dataset=ready.data,
        args=arguments(s, ready.steps, folder, bool(work.hooks)), processing_class=ready.live.tokenizer)  # fmt: skip
