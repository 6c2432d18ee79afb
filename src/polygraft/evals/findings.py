"""What records say: measures, comparisons and tables, the same for models just evaluated and for evaluations read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from polygraft.evals.governance import views
from polygraft.evals.quality import overview
from polygraft.evals.verdicts import compare, seeds
from polygraft.evals.verdicts import suites as suite_results
from polygraft.evals.verdicts import tables as verdict_tables
from polygraft.evals.verdicts.compare import Comparison
from polygraft.evals.verdicts.measures import Measure, from_records
from polygraft.result import Table


class Asked(NamedTuple):
    """One task or corpus in one language: `records[model][i]` is the same item for every model."""

    task: str
    language: str
    records: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Findings:
    """Records of several models, and what they are compared with.

    `suites`: what the suites were made of. `named`: tasks that were asked for by their own names, too. `methods`: the models
    (training seeds) of each method, where verdicts are to be about methods; `reference` is then one of these.
    """

    asked: Sequence[Asked]
    reference: str
    seed: int = 0
    suites: Sequence[suite_results.Composition] = ()
    named: Sequence[str] = ()
    methods: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def measures(self) -> list[Measure]:
        """Per-item columns of every metric that the tasks name."""
        return [m for a in self.asked for m in from_records(a.task, a.language, a.records)]

    @cached_property
    def comparison(self) -> Comparison:
        """Scores and differences of what the tasks name."""
        return self._compared(self.measures)

    def demanded(self) -> Comparison:
        """The same with what every written or chosen answer is judged by: what a criterion may be about."""
        every = (*overview.judged(self.asked), self.measures)  # a task's own metrics last: they count
        return self._compared(list({(m.task, m.language, m.metric.name): m for some in every for m in some}.values()))

    def _compared(self, measures: Sequence[Measure]) -> Comparison:
        extra = [f for s in self.suites for f in suite_results.figures(s, measures)]
        if self.methods:
            return seeds.compared(measures, self.methods, self.reference, self.seed, extra)
        return compare.compared(measures, self.reference, self.seed, extra)

    @cached_property
    def told(self) -> Comparison:
        """The comparison with the differences that are told in words."""
        return suite_results.told(self.suites, self.comparison, self.named)

    def summary(self) -> tuple[str, ...]:
        return verdict_tables.summary(self.told)

    def caveats(self) -> tuple[str, ...]:
        return verdict_tables.caveats(self.told)

    def tables(self) -> tuple[Table, ...]:
        """Suites, tasks, what untidy questions cost, quality and certainty."""
        return (*suite_results.tables(self.suites, self.measures, self.comparison, self.named),
                *views.tables(self.measures, self.seed), *overview.tables(self.asked, self.seed))

    def data(self) -> dict[str, Any]:
        """Plain values for `Result.data`; `suites` are what a later comparison makes their averages from."""
        return self.comparison.data() | {"suites": [s.model_dump(mode="json") for s in self.suites]}
