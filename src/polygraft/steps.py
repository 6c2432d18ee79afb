"""The explicit table of steps: what a recipe may `use`. A step that is not here does not exist."""

from __future__ import annotations

from polygraft.analysis.delta.steps import STEPS as DELTA
from polygraft.analysis.layers.steps import STEPS as LAYERS
from polygraft.analysis.neurons.lape import entropy, lape
from polygraft.analysis.neurons.steps import STEPS as NEURONS
from polygraft.analysis.reading.steps import STEPS as READING
from polygraft.analysis.steering.bench import Bench
from polygraft.analysis.steering.steps import steer_step
from polygraft.analysis.subspace.lsar import lsar
from polygraft.analysis.subspace.steps import STEPS as SUBSPACE
from polygraft.choose.auto.steps import STEPS as AUTO
from polygraft.choose.search.steps import STEPS as SEARCH
from polygraft.evals import conditions, held
from polygraft.evals.callback import WATCHERS
from polygraft.evals.copies import copies
from polygraft.evals.quality.identify import forget, spoken
from polygraft.evals.quality.repetition import loop
from polygraft.evals.steps import STEPS as EVALS
from polygraft.evals.tasks.problems.examples import examples
from polygraft.merge.steps import STEPS as MERGE
from polygraft.prune.harm import Judge
from polygraft.prune.steps import steps as prune_steps
from polygraft.prune.study.around import Around as StudyAround
from polygraft.step import Step
from polygraft.tune.pretraining import pretrain
from polygraft.tune.steps import steps as tune_steps
from polygraft.vocab.around import Around
from polygraft.vocab.steps import steps as vocab_steps
from polygraft.world.steps import STEPS as WORLD

BENCH = Bench(conditions.write, conditions.language, conditions.nats, conditions.planned, conditions.Conditions,
              conditions.seconds)
AROUND = Around(conditions.load, conditions.answers, conditions.nats, conditions.language, copies,
                lambda text: bool(loop(text)[0]), pretrain)
JUDGE = Judge(conditions.load, conditions.nats)
STUDY = StudyAround(JUDGE, lsar, lape, entropy, conditions.planned, conditions.Conditions)
ANALYSIS = (*DELTA, *READING, *NEURONS, *LAYERS, *SUBSPACE, steer_step(BENCH))
TABLE: tuple[Step, ...] = (*ANALYSIS, *MERGE, *SEARCH, *AUTO, *EVALS, *WORLD,
                          *tune_steps({"problems": examples}, WATCHERS, held.texts), *vocab_steps(AROUND),
                          *prune_steps(JUDGE, STUDY, spoken, forget))
