"""Searching without a model: a stand-in scores candidates by a rule, so that what strategies and confirmation do can be told exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import config, shapes
from polygraft.anatomy import Anatomy
from polygraft.choose.candidates import window
from polygraft.choose.search import confirm, fanout, numbers, objectives, report, steps, surface
from polygraft.choose.search.asking import Ask, Question, Sheet, split
from polygraft.choose.search.clock import Clock
from polygraft.choose.search.config import Search
from polygraft.choose.search.judge import Judge
from polygraft.choose.search.kept import Kept
from polygraft.choose.search.space import Space, content, ordered
from polygraft.choose.search.strategies import Search as Search_
from polygraft.config import Unfit
from polygraft.errors import InputError, RecipeError
from polygraft.evals.budget import Budget
from polygraft.evals.items import Item
from polygraft.evals.run import Job
from polygraft.evals.tasks import load
from polygraft.evals.tasks.rendering import Asked

LAYERS = 8
NAMES = ("math", "read")
TASK = load("problems")


def anatomy(layers: int = LAYERS) -> Anatomy:
    return Anatomy.of(config(layers=layers), shapes(layers=layers))


def space(layers: int = LAYERS, names=NAMES, **options) -> Space:
    half = len(names) // 2
    given = {"task": names[:half], "language": names[half:], **options}
    return Space(Search(**given), anatomy(layers), tuple(names), {})


def sheet(n: int = 80, languages=("es",), confirm: float = 0.5, seed: int = 0) -> Sheet:
    """Items of one continuation each; no text ever becomes a token here."""
    jobs = [Job(tag, TASK, tuple(Item(f"i{k}", tag, "p", ("c",)) for k in range(n))) for tag in languages]
    asks = tuple(Ask(j) for j in jobs)
    questions = tuple(tuple(Question((a * n + k,), Asked("p", ("c",)), tokens=1) for k in range(n)) for a in range(len(asks)))
    parts = [split(a, confirm, seed, (1, 1)) for a in asks]
    rows = tuple((1, 2 + i) for i in range(n * len(asks)))
    return Sheet(asks, questions, rows, (1,) * len(rows), tuple(p[0] for p in parts), tuple(p[1] for p in parts))


def shares(profile, here: Anatomy, source: int) -> np.ndarray:
    """What each layer's attention takes of a source."""
    return np.array([profile.weights[here.keys(layer=i, kind="attn")[0]][source] for i in range(here.layers)])


class Rule:
    """Nats of an item: what the item costs anyway, `cost` of the candidate's layers, and noise of the pair. Counts its calls."""

    def __init__(self, here: Anatomy, cost, noise: float = 0.0, seed: int = 0):
        self.here, self.cost, self.noise, self.seed, self.calls, self.asked = here, cost, noise, seed, 0, 0

    def __call__(self, profiles, rows, scored, near, progress):
        self.calls, self.asked = self.calls + 1, self.asked + len(profiles) * len(rows)
        values = np.empty((len(profiles), len(rows)))
        for i, p in enumerate(profiles):
            each = shares(p, self.here, 1)
            key = int(1e6 * abs(float(each @ np.arange(1, len(each) + 1)))) + 1
            for j, row in enumerate(rows):
                draw = np.random.default_rng([self.seed, key, row[-1]]).normal()
                values[i, j] = -(5.0 + (row[-1] % 7) + self.cost(each) + self.noise * draw)
        return values, np.zeros(values.shape, bool)


def planted(here: Anatomy, bottom: int, top: int, each: float = 1.0):
    """Every layer that is not where it is needed costs `each` nats."""
    wanted = np.array([1.0 if i < bottom or i >= here.layers - top else 0.0 for i in range(here.layers)])
    return lambda found: each * float(np.abs(found - wanted).sum())


def search(sp: Space, asked: Sheet, rule, folder=None, clock: Clock | None = None, how="the same models") -> report.Outcome:
    kept = None if folder is None else Kept.open(folder, asked.rows, asked.scored, {}, how)
    clock = clock or Clock()
    judge = Judge(asked, objectives.resolve(sp.config.objectives, asked.asks, sp.config.metric), rule, {}, kept, spent=clock.spend)
    return steps.searched(sp.config, sp, judge, clock)


# ------------------------------------------------------------------------------------------------------------ strategies


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("strategy", ["grid", "halving"])
def test_a_planted_window_is_found_and_random_windows_are_rejected(strategy, seed):
    bottom, top = 1 + seed % 3, seed % 2
    sp = space(strategy=strategy, seed=seed)
    o = search(sp, sheet(seed=seed), Rule(sp.anatomy, planted(sp.anatomy, bottom, top), noise=1.0, seed=seed))
    assert (o.best.params["bottom"], o.best.params["top"]) == (bottom, top)
    drawn = [v for v in o.done.of(o.best.name, "problems:es") if v.kind == "random"]
    assert len(drawn) == 3 and all(v.difference.verdict == "better" for v in drawn)


def test_greedy_finds_a_mixture_that_is_no_window():
    sp = space(strategy="greedy", groups=LAYERS)
    wanted = np.array([0, 1, 0, 1, 1, 0, 0, 0.0])
    o = search(sp, sheet(), Rule(sp.anatomy, lambda found: float(np.abs(found - wanted).sum()), noise=0.3))
    assert o.best.params["layers"]["attn"] == wanted.tolist()
    assert [r.best for r in o.picked.trail.rounds][-1] == o.best.name


def test_optuna_finds_what_is_planted_and_says_its_front():
    pytest.importorskip("optuna")
    sp = space(strategy="optuna", groups=4, trials=48, langs=("es", "en"), objectives=("es", "en"))
    o = search(sp, sheet(languages=("es", "en")), Rule(sp.anatomy, planted(sp.anatomy, 2, 0), noise=0.1))
    assert o.best.params["layers"]["attn"] == [1, 1, 0, 0, 0, 0, 0, 0]
    assert o.picked.front and o.picked.front[0] == o.picked.order[0]


def test_without_optuna_it_is_said_how_to_get_it(monkeypatch):
    from polygraft.choose.search import proposals

    monkeypatch.setattr(proposals, "find_spec", lambda name: None)
    sp = space(strategy="optuna")
    with pytest.raises(RecipeError, match=r"pip install 'polygraft\[search\]'"):
        search(sp, sheet(), Rule(sp.anatomy, planted(sp.anatomy, 1, 1)))


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(fanout, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'polygraft\[ray\]'"):
        fanout.over_ray(fanout.Opening((), "auto", "cpu", True), 2, anatomy())


def test_halving_asks_less_and_drops_nothing_that_it_would_choose():
    wide = {"bottoms": "0..7", "tops": "0..3"}
    sp, half = space(**wide), space(strategy="halving", **wide)
    rules = [Rule(s.anatomy, planted(s.anatomy, 2, 1), noise=0.5) for s in (sp, half)]
    whole, less = (search(s, sheet(), r) for s, r in zip((sp, half), rules))
    assert content(whole.best) == content(less.best)
    assert rules[1].asked < 0.75 * rules[0].asked
    assert len(less.picked.trail.candidates) + len(less.picked.trail.dropped) == len(whole.picked.trail.candidates)


def test_the_best_of_the_better_pair_of_several_is_found():
    names = ("m1", "m2", "r1", "r2")
    sp = space(names=names, bottoms="0..2", tops="0,1")
    here = sp.anatomy

    def score(profiles, rows, scored, near, progress):
        good = np.array([shares(p, here, 1)[4] + shares(p, here, 2)[0] for p in profiles])  # m2 in the middle, r1 at the bottom
        return np.tile(good[:, None] - 5.0, (1, len(rows))) + 0.01 * np.arange(len(rows)) % 1, np.zeros((len(profiles), len(rows)), bool)

    o = search(sp, sheet(), score)
    assert (o.best.params["task"], o.best.params["language"]) == ("m2", "r1")
    assert {c.name for c in o.done.controls} >= {*names, "m2+r1 soup"}  # the paper's default is this very window
    assert any("It is the same model as m2+r1 paper's default" in line for line in report.summary(o))
    assert not any(c.name.startswith("m1+") for c in o.done.controls)


# ---------------------------------------------------------------------------------------------------------- confirmation


def test_where_nothing_differs_no_winner_is_named():
    sp, unlasting = space(), []
    for seed in range(6):
        o = search(sp, sheet(seed=seed), Rule(sp.anatomy, lambda found: 0.0, noise=1.0, seed=seed))
        every = o.done.of(o.best.name, "problems:es")
        assert every and not any(v.difference.verdict == "better" for v in every)
        assert any("No candidate beats" in line for line in report.summary(o))
        unlasting.append(confirm.optimism(o.objectives[0], o.done, o.best.name, o.reference))
    assert np.mean(unlasting) > 0.2, "the best of many that are alike looked better than it is"


def test_items_that_confirm_took_no_part_in_the_choice():
    asked = sheet(n=40, languages=("es", "en"))
    for a in range(2):
        chosen, held = ({i for unit in side[a] for i in unit} for side in (asked.select, asked.held))
        assert not chosen & held and chosen | held == set(range(40))
    assert asked.select[0] == asked.select[1], "the same problems in every language"
    sp = space(langs=("es", "en"))
    o = search(sp, asked, Rule(sp.anatomy, planted(sp.anatomy, 2, 1)))
    assert {e.n for e in o.done.values["problems:es+en"].values()} == {40}


@pytest.mark.parametrize("strategy", ["grid", "halving", "greedy"])
def test_until_the_choice_is_made_no_item_that_confirms_is_asked(strategy):
    sp, asked = space(strategy=strategy, groups=4), sheet()
    rule, rows = Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=0.5), set()
    judge = Judge(asked, objectives.resolve((), asked.asks, "nats"), lambda p, some, *rest: (rows.update(map(tuple, some)), rule(p, some, *rest))[1], {})
    picking = Search_(sp, judge, Clock(), sp.anchors(), "math")
    confirm.chosen(picking, steps.STRATEGIES[strategy](picking, asked.select, asked.held))
    held = {asked.rows[r] for r in asked.rows_of(0, asked.held[0])}
    assert rows and held and not rows & held


def test_a_best_that_loses_elsewhere_whatever_is_tried_is_told_so():
    """Every window is worse in English than the task expert: the order knows no better one, so the reader must."""
    sp = space(langs=("es", "en"), objectives=("es", "en"), bottoms="1..3", tops="0")
    here, asked = sp.anatomy, sheet(languages=("es", "en"))

    def score(profiles, rows, *_):
        swapped = np.array([shares(p, here, 1).sum() for p in profiles])
        better = np.array([1.0 if row[-1] - 2 < 80 else -1.0 for row in rows])  # the first 80 rows are Spanish
        return -20.0 + np.outer(swapped, better) + 0.001 * np.arange(len(rows)), np.zeros((len(profiles), len(rows)), bool)

    o = search(sp, asked, score)
    assert any("No candidate is within 0 of math in every other objective" in line and "worse in en" in line for line in report.summary(o))
    assert not report.lost_elsewhere(search(space(langs=("es", "en"), objectives=("es", "en"), tolerance=3.0, bottoms="1..3", tops="0"), asked, score))


def test_layers_that_fit_nowhere_else_have_no_random_windows_and_that_is_said():
    sp = space(bottoms="0", tops="0")
    o = search(sp, sheet(), Rule(sp.anatomy, planted(sp.anatomy, 0, 0)))
    assert any("no random window to compare with" in line for line in report.summary(o))
    assert not report.missing(search(space(bottoms="2", tops="0"), sheet(), Rule(sp.anatomy, planted(sp.anatomy, 2, 0))))


def test_the_surface_shows_every_window_with_its_verdict():
    sp = space(bottoms="0..3", tops="0..2", transitions="0,1", task=("math",))
    o = search(sp, sheet(), Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=0.2))
    tables = [t for t in report.tables(o) if t.heat]
    assert [t.title for t in tables] == ["problems:es: windows less math (transition 0)", "problems:es: windows less math (transition 1)"]
    [one] = [row for row in tables[0].rows if row[0] == "top 1"]
    assert tables[0].columns == ("", "bottom 0", "bottom 1", "bottom 2", "bottom 3")
    assert one[3].verdict == "better" and one[3].value == min(c.value for row in tables[0].rows for c in row[1:] if c)
    assert "the best is b2 u1 t0" in tables[0].note
    assert surface.slices([]) == {}


def test_a_finished_search_is_a_result_that_can_be_stored():
    from polygraft.result import Result, encode

    sp = space(langs=("es", "en"), objectives=("es", "en"))
    o = search(sp, sheet(languages=("es", "en")), Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=0.5))
    made = report.result(o, sp.anatomy, (), ("a note",), {"work": {"layers": 1}})
    assert Result.from_json(made.to_json()) == Result.from_json(encode(made))
    assert made.data["chosen"]["params"]["bottom"] == 2 and made.maps and made.data["front"]


# ------------------------------------------------------------------------------------------------------- resuming, time


def test_what_was_asked_before_is_not_asked_again(tmp_path):
    sp = space(strategy="halving")
    first = Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=0.5)
    one = search(sp, sheet(), first, tmp_path)

    def never(*_):
        raise AssertionError("asked again")

    again = search(sp, sheet(), never, tmp_path)
    assert report.data(again) == report.data(one) and first.calls > 3


def test_a_search_goes_on_where_it_was_cut_off(tmp_path):
    sp = space(strategy="greedy", groups=4)
    whole = search(sp, sheet(), Rule(sp.anatomy, planted(sp.anatomy, 2, 2), noise=0.5))
    rule = Rule(sp.anatomy, planted(sp.anatomy, 2, 2), noise=0.5)

    def cut(*call):
        if rule.calls == 3:
            raise KeyboardInterrupt
        return rule(*call)

    with pytest.raises(KeyboardInterrupt):
        search(sp, sheet(), cut, tmp_path)
    after = Rule(sp.anatomy, planted(sp.anatomy, 2, 2), noise=0.5)
    assert report.data(search(sp, sheet(), after, tmp_path)) == report.data(whole)
    assert after.calls > 0


def test_what_another_search_left_in_the_folder_is_not_read(tmp_path):
    sp = space(strategy="halving")
    search(sp, sheet(), Rule(sp.anatomy, planted(sp.anatomy, 2, 1)), tmp_path, how="these models")
    other = Rule(sp.anatomy, planted(sp.anatomy, 1, 0))
    o = search(sp, sheet(), other, tmp_path, how="others of the same names")
    assert other.calls > 3 and (o.best.params["bottom"], o.best.params["top"]) == (1, 0)


class Watch:
    """A clock that moves by what is asked."""

    def __init__(self, rule: Rule, each: float):
        self.rule, self.each = rule, each

    def __call__(self) -> float:
        return self.rule.asked * self.each


@pytest.mark.parametrize(("seconds", "said"), [(60.0, None), (20.0, "items chose"), (0.9, "one in 4 was tried")])
def test_a_budget_cuts_items_and_then_candidates(seconds, said, monkeypatch):
    sp = space(bottoms="0..3", tops="0..2")
    rule = Rule(sp.anatomy, planted(sp.anatomy, 2, 1))
    watch = Watch(rule, 0.01)
    monkeypatch.setattr("polygraft.choose.search.judge.time.monotonic", watch)
    clock = Clock(Budget(seconds, watch))
    o = search(sp, sheet(160), rule, clock=clock)
    assert any(said in note for note in clock.notes) if said else not clock.notes
    assert watch() <= 1.1 * seconds
    assert o.done.verdicts


@pytest.mark.parametrize("strategy", ["grid", "halving", "greedy"])
def test_a_search_within_a_budget_that_was_cut_off_goes_on_with_what_is_left_of_it(strategy, tmp_path, monkeypatch):
    """The seconds of what was answered before the cut count as they did then: the same items, and no second budget."""
    sp = space(bottoms="0..3", tops="0..2", strategy=strategy, groups=4)
    rule, limit = Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=0.5), 20.0
    watch = Watch(rule, 0.01)
    monkeypatch.setattr("polygraft.choose.search.judge.time.monotonic", watch)
    whole = search(sp, sheet(160), rule, tmp_path / "whole", Clock(Budget(limit, watch)))
    assert watch() <= 1.1 * limit
    stop = rule.calls + rule.calls // 2

    def cut(*call):
        if rule.calls == stop:
            raise KeyboardInterrupt
        return rule(*call)

    with pytest.raises(KeyboardInterrupt):
        search(sp, sheet(160), cut, tmp_path / "cut", Clock(Budget(limit, watch)))
    before, clock = rule.asked, Clock(Budget(limit, watch))
    again = search(sp, sheet(160), rule, tmp_path / "cut", clock)
    assert report.data(again) == report.data(whole)
    assert 0 < (rule.asked - before) * 0.01 < limit and clock.budget.left == pytest.approx(limit - watch.each * rule.asked / 2, abs=0.05)


def test_halving_that_turns_out_slower_than_timed_stops_with_what_all_were_asked(monkeypatch):
    sp = space(bottoms="0..7", tops="0..3", strategy="halving")
    rule = Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=0.2)

    class Slower(Watch):
        def __call__(self) -> float:
            return 0.001 * min(self.rule.asked, 800) + 0.02 * max(0, self.rule.asked - 800)

    watch = Slower(rule, 0.0)
    monkeypatch.setattr("polygraft.choose.search.judge.time.monotonic", watch)
    clock = Clock(Budget(30.0, watch))
    o = search(sp, sheet(400), rule, clock=clock)
    assert any("The time was over after" in note for note in clock.notes)
    assert len(o.picked.trail.candidates) + len(o.picked.trail.dropped) == len(sp.grid()) and o.done.verdicts


def test_a_budget_that_holds_nothing_is_refused(monkeypatch):
    sp = space()
    rule = Rule(sp.anatomy, planted(sp.anatomy, 2, 1))
    watch = Watch(rule, 10.0)
    monkeypatch.setattr("polygraft.choose.search.judge.time.monotonic", watch)
    with pytest.raises(RecipeError, match="does not hold a search"):
        search(sp, sheet(), rule, clock=Clock(Budget(5.0, watch)))


def test_an_answer_that_is_no_number_is_refused_by_name():
    sp = space()
    with pytest.raises(InputError, match="b0 u0 t0: a candidate's likelihoods"):
        search(sp, sheet(), lambda profiles, rows, *_: (np.full((len(profiles), len(rows)), np.nan), np.zeros((len(profiles), len(rows)), bool)))


# ---------------------------------------------------------------------------------------------------------------- fan-out


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12))
def test_several_workers_give_what_one_gives_in_the_order_asked(workers, candidates):
    sp = space(bottoms="0..3", tops="0..2")
    some = [c.profile for c in sp.grid()][:candidates][::-1]
    rule = Rule(sp.anatomy, planted(sp.anatomy, 2, 1), noise=1.0)
    rows = [[1, 2], [1, 3], [1, 4]]
    alone = rule(some, rows, [1, 1, 1], None, None)
    calls = []

    def worker(call):
        calls.append(len(call[0]))
        return lambda: rule(*call, None)

    found = fanout.shared([worker] * workers, lambda promised: [p() for p in promised], sp.anatomy)(some, rows, [1, 1, 1], None, lambda *_: None)
    assert all(np.array_equal(a, b) for a, b in zip(found, alone))
    assert sum(calls) == len(some) and len(calls) == min(workers, len(some)) and max(calls) - min(calls) <= 1


def test_runs_of_candidates_share_their_lower_layers():
    sp = space(bottoms="0..3", tops="0..3")
    some = [c.profile for c in sp.grid()]
    bottoms = [int(shares(some[i], sp.anatomy, 1)[:4].sum()) for i in ordered(some, sp.anatomy)]
    assert sum(a != b for a, b in pairwise(bottoms)) == 3, "candidates of one bottom stand together"


# ------------------------------------------------------------------------------------------------------ words and numbers


@pytest.mark.parametrize(("text", "wanted"), [("0..3", (0, 1, 2, 3)), ("0..6:3,1", (0, 1, 3, 6)), (" 4 , 2", (2, 4)), ("5", (5,))])
def test_numbers_are_read_as_they_are_typed(text, wanted):
    assert numbers.parse(text) == wanted


@pytest.mark.parametrize("text", ["", "a", "3..1", "1..", "0..3:0", "-1", "0..9999", "1.5"])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(Unfit):
        numbers.parse(text)


def test_a_front_is_what_nothing_beats():
    values = np.array([[1, 1], [2, 0], [0, 2], [0, 0], [2, 0], [np.nan, 3]], float)
    assert objectives.front(values) == [0, 1, 2]
    assert objectives.ranks(values).tolist() == [0, 0, 0, 2, 1, 6]
    assert objectives.best(values, np.array([0.0, 1.0]), 0.0)[0] == 0
    assert objectives.best(values, np.array([0.0, 1.0]), 1.0)[0] == 1


def test_objectives_are_named_by_language_task_or_both():
    asks = sheet(n=4, languages=("es", "en")).asks
    both = objectives.resolve((), asks, "nats")
    assert [o.name for o in both] == ["problems:es+en"] and both[0].parts == ((0, "nats"), (1, "nats")) and both[0].sign == -1
    assert [o.parts for o in objectives.resolve(("en", "problems:es"), asks, "accuracy")] == [((1, "accuracy"),), ((0, "accuracy"),)]
    with pytest.raises(RecipeError, match="did you mean"):
        objectives.resolve(("problem",), asks, "nats")
    with pytest.raises(RecipeError, match="twice"):
        objectives.resolve(("es", "problems:es"), asks, "nats")


def test_too_few_items_are_refused():
    with pytest.raises(InputError, match="too few items"):
        split(Ask(Job("es", TASK, tuple(Item(f"i{k}", "es", "p", ("c",)) for k in range(5)))), 0.5, 0, (4, 6))


def test_windows_that_do_not_fit_are_left_out_and_no_window_at_all_is_refused():
    names = [c.name for c in space(4, bottoms="0..4", tops="0..4", transitions="1").grid()]
    assert "b2 u1 t1" not in names and "b1 u1 t1" in names and len(set(names)) == len(names)
    with pytest.raises(RecipeError, match="no window fits"):
        space(4, bottoms="5", tops="0").grid()


def test_one_model_is_not_tried_twice():
    some = space(bottoms="0..2", tops="0", transitions="0,1", weights=("plain", "ramp")).grid()
    assert len({content(c) for c in some}) == len(some)
    assert window(anatomy(), NAMES, bottom=0, top=0, transition=1).profile.weights == some[0].profile.weights
