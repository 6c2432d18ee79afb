"""From what people preferred to a table: wins, ties and losses per language, Wilson intervals, exact sign tests, Holm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from polygraft import stats
from polygraft.evals.governance.sheet import Judged
from polygraft.result import Cell, Estimate, Result, Table

ALL = "all"


@dataclass(frozen=True)
class Count:
    """How often each model was preferred in one language, or in all; p of the exact sign test, which ties do not enter."""

    language: str
    a: int
    b: int
    ties: int
    p: float
    holm: float

    @property
    def share(self) -> Estimate:
        """Of the pairs with a winner, how many b won, in percent."""
        n = self.a + self.b
        low, high = stats.wilson(self.b, n)
        return Estimate(100 * self.b / n if n else 50.0, 100 * low, 100 * high, n, "%", stats.verdict(self.b - self.a, self.holm))


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p that both are as likely; no pair with a winner: 1."""
    return stats.mcnemar([1] * wins + [0] * losses, [0] * wins + [1] * losses)


def counts(judged: Sequence[Judged]) -> list[Count]:
    """One count a language and, where there are several, one of all; Holm over the languages, the total by itself."""
    by = {lang: [j.preferred for j in judged if j.language == lang] for lang in dict.fromkeys(j.language for j in judged)}
    raw = {lang: (got.count("a"), got.count("b"), got.count("tie")) for lang, got in by.items()}
    p = {lang: sign_test(b, a) for lang, (a, b, _) in raw.items()}
    out = [Count(lang, *raw[lang], p[lang], h) for lang, h in zip(by, stats.holm(list(p.values())))]
    if len(by) > 1:
        a, b, ties = (sum(r[i] for r in raw.values()) for i in range(3))
        out.append(Count(ALL, a, b, ties, sign_test(b, a), sign_test(b, a)))
    return out


def result(judged: Sequence[Judged], names: tuple[str, str]) -> Result:
    """A table and a sentence; `data` has the counts."""
    a, b = names
    found = counts(judged)
    rows: tuple[tuple[Cell, ...], ...] = tuple((c.language, c.b, c.ties, c.a, c.share, c.p, c.holm) for c in found)
    total = found[-1]
    said = {stats.BETTER: f"{b} was preferred to {a}: {total.b} to {total.a}",
            stats.WORSE: f"{a} was preferred to {b}: {total.a} to {total.b}",
            stats.UNCLEAR: f"Neither {a} nor {b} was preferred beyond chance: {total.a} to {total.b}"}[total.share.verdict]
    table = Table(f"Preferred without knowing which: {b} against {a}",
                  ("language", f"{b} preferred", "ties", f"{a} preferred", f"{b}, of those with a winner", "p (sign test)",
                   "p (Holm)"), rows, "exact two-sided sign tests, Wilson intervals; p of languages adjusted over the languages")
    return Result("ab@1", "", f"Blind comparison of {a} and {b}",
                  summary=(f"{said}, {total.ties} ties, p = {total.p:.2g}.",), tables=(table,),
                  caveats=("One sheet is one person's view of these answers; answers that read the same count as ties.",),
                  data={"a": a, "b": b, "counts": [asdict(c) for c in found]})
