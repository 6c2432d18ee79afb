"""What training reads: mixtures, duplicates, evaluation items, the split; each against its definition."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle import data_oracle
from polygraft.config import parse
from polygraft.errors import InputError, RecipeError, UserError
from polygraft.step import LabelledName
from polygraft.tune.data import duplicates, gathering, leaks, mixture
from polygraft.tune.data.config import Mix
from polygraft.tune.data.gathering import Example, gather
from polygraft.tune.data.leaks import LEAST, SHARE, Held
from polygraft.tune.data.split import held_out
from polygraft.tune.data.text import fold, key, units
from polygraft.yamltext import parse_document

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12)
ITEM = "Janet sells sixteen duck eggs a day at the market for two dollars each. How much does she make every day at the market?"
PARAPHRASE = "Every day Janet brings 16 eggs of her ducks to market, where one costs $2. What are her daily earnings there?"


def text(*rows: str, label: str = "sw") -> list[Example]:
    return [Example({"text": r}, label) for r in rows]


def sift(found: list[Example], held: list[Held] = (), seed: int = 0, planning: bool = False, **mix):
    return gather(found, [], Mix(**mix), held, seed, planning)


# ------------------------------------------------------------------------------------------------------------- normal form


@pytest.mark.parametrize("a, b", [
    ("Habari  ya\nasubuhi ", "habari ya ASUBUHI"), ("é", "e\u0301"), ("STRASSE", "straße"), ("\ufb01", "fi"), ("Ⅷ x", "ⅷ x"),
])  # fmt: skip
def test_what_folds_together(a, b):
    assert fold(a) == fold(b) and key({"text": a}) == key({"text": b})


@given(st.text(max_size=30))
def test_folding_is_done_once_for_all_forms(t):
    assert fold(fold(t)) == fold(t) == fold(unicodedata.normalize("NFD", t)) == fold(unicodedata.normalize("NFC", t))
    assert len(units(t)) <= len(fold(t)) and not any(u.isspace() for u in units(t))


def test_the_same_words_in_another_kind_are_the_same_example():
    chat = {"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]}
    assert key(chat) == key({"prompt": "1+1=", "completion": "2"}) != key({"text": "1+1=2"})


@pytest.mark.parametrize("t, n", [("Two words, here.", 3), ("一共多少钱？", 5), ("สวัสดี", 6), ("क्ष के", 2), ("می\u200cخواهم", 1), ("...", 0),
                                  ("cost: $3.50", 3), ("한국어 말", 2), ("リンゴ3個", 5)])  # fmt: skip
def test_units_are_words_or_characters(t, n):
    assert len(units(t)) == n, units(t)


# -------------------------------------------------------------------------------------------------------------- duplicates


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=20))
def test_exact_duplicates(keys):
    first = [keys.index(k) for k in keys]
    assert duplicates.exact(keys) == [None if j == i else j for i, j in enumerate(first)]


@given(st.lists(WORDS, max_size=12), st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.integers(1, 5))
def test_near_duplicates_are_those_of_the_definition(texts, threshold, n):
    assert duplicates.near(texts, threshold, n) == data_oracle.near(texts, threshold, n)


def test_a_planted_near_duplicate_is_found_and_another_text_is_not():
    rng = random.Random(0)
    long = [rng.choice("abcdefghijklmnopqrstuvwxyz") + str(rng.randrange(300)) for _ in range(80)]
    changed = [*long[:40], "other", *long[41:]]
    assert duplicates.near([long, changed, long[::-1]]) == [None, 0, None]


# ------------------------------------------------------------------------------------------------------------------- leaks


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6), st.sampled_from([5, 8]))
def test_leaks_are_those_of_the_definition(rows, items, n):
    wanted = leaks.items([Held(f"t{i}", "en", str(i), " ".join(w)) for i, w in enumerate(items)], n)
    found = leaks.leaks(rows, wanted)
    assert [(k.row, k.item) for k in found] == data_oracle.leaks(rows, items, n, SHARE, LEAST)
    assert all(SHARE - 1e-9 <= k.share <= 1 for k in found) and wanted.unsaid == sum(len(w) < LEAST for w in items)


def test_a_leaked_problem_is_found_whatever_its_form_and_a_paraphrase_is_not():
    held = [Held("mgsm", "en", "7", f"Question: {ITEM}\nStep-by-Step Answer:")]
    rows = [f"... {ITEM.upper().replace('.', ' . ')} She makes 32 dollars.", PARAPHRASE, "Janet sells eggs.", ITEM[: len(ITEM) // 2]]
    found = leaks.leaks([units(r) for r in rows], leaks.items(held, 8))
    assert [(k.row, k.item) for k in found] == [(0, 0)]


def test_what_all_items_of_a_task_share_is_their_form():
    form = "Read the passage and then answer the question below with one of four letters"
    held = [Held("t", "en", str(i), f"{form} word{i} " + " ".join(f"w{i}-{k}" for k in range(9))) for i in range(20)]
    wanted = leaks.items(held, 8)
    assert wanted.unsaid == 0 and not leaks.leaks([units(form), units(f"{form} anything")], wanted)
    assert [k.item for k in leaks.leaks([units(held[3].text)], wanted)] == [3]


def test_the_words_around_every_item_do_not_hide_a_short_one():
    held = [Held("mgsm", "en", str(i), f"Question: {q}\nStep-by-Step Answer:") for i, q in enumerate((
        "Ten birds sat on a wire and four flew away, how many stayed?", "A box has nine red pens and two blue ones, how many pens is that?"))]
    row = "birds: Ten birds sat on a wire and four flew away, how many stayed? Six."
    assert [(k.item, k.share) for k in leaks.leaks([units(row)], leaks.items(held, 8))] == [(0, 1.0)]


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_the_common_beginning_is_the_longest(lists):
    n = leaks._common(lists)
    same = all(w == lists[0] for w in lists)
    assert n == 0 if same else all(w[:n] == lists[0][:n] for w in lists) and not all(w[: n + 1] == lists[0][: n + 1] for w in lists)


def test_scripts_without_spaces_are_searched_by_characters():
    item = "珍妮特的鸭子每天下16颗蛋。她每天早上早餐时吃3颗，每天用4颗为自己的朋友做松饼。"
    wanted = leaks.items([Held("mgsm", "zh", "0", item)], 8)
    assert leaks.leaks([units("答：" + item.replace("，", " ") + "好")], wanted)
    assert not leaks.leaks([units("小明每天吃3颗苹果，他的朋友每天吃4颗。")], wanted)


# --------------------------------------------------------------------------------------------------------- split, mixture


def test_the_split_depends_on_content_alone():
    keys = [key({"text": f"row {i}"}) for i in range(4000)]
    side = {k: held_out(k, 0.1) for k in keys}
    assert 0.08 < sum(side.values()) / len(keys) < 0.12
    assert all(held_out(k, 0.2) for k in keys if side[k]) and not any(held_out(k, 0.0) for k in keys)
    rows = text(*(f"row {i}" for i in range(60)), "ROW  3", *(f"row {i}" for i in range(20)))
    dev = {e.row["text"].casefold().split()[1] for e in sift(rows, dev=0.2).dev}
    again = sift(text(*(f"row {i}" for i in reversed(range(60)))), dev=0.2)
    assert dev == {e.row["text"].split()[1] for e in again.dev}
    assert not dev & {r["text"].casefold().split()[1] for r in again.rows}


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=1), st.integers(0, 200), st.floats(0, 1))
def test_counts_add_up_and_are_near_their_shares(sizes, examples, alpha):
    share = mixture.shares(sizes, {}, alpha)
    assert sum(share.values()) == pytest.approx(1)
    got = mixture.counts(share, sizes, examples, True)
    assert sum(got.values()) == examples and all(abs(got[s] - examples * share[s]) < 1 + 1e-6 for s in sizes)
    most = mixture.counts(share, sizes, None, False)
    assert all(most[s] <= sizes[s] for s in sizes)
    assert any(most[s] + 1 >= sizes[s] - 1e-6 for s in sizes), "the most that can be had"
    assert mixture.shares(sizes, {}, 1.0) == pytest.approx({s: n / sum(sizes.values()) for s, n in sizes.items()})


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), min_size=1, max_size=15), st.integers(0, 40), st.integers(0, 3), st.booleans())
def test_a_pick_is_of_the_size_and_a_larger_one_takes_what_a_smaller_took(keys, count, seed, repeat):
    places = mixture.pick(keys, count, seed, repeat)
    assert len(places) == (count if repeat else min(count, len(keys))) and places == sorted(places)
    times = [places.count(i) for i in range(len(keys))]
    assert max(times) - min(times) <= 1
    more = mixture.pick(keys, count + 1, seed, repeat)
    assert all(more.count(i) >= n for i, n in enumerate(times))
    shuffled = sorted(keys)
    assert sorted(keys[i] for i in places) == sorted(shuffled[i] for i in mixture.pick(shuffled, count, seed, repeat))


def test_another_seed_picks_others():
    keys = [bytes([i]) for i in range(100)]
    assert mixture.pick(keys, 50, 0, False) != mixture.pick(keys, 50, 1, False)


# ------------------------------------------------------------------------------------------------------------ all together


def test_without_options_the_examples_are_taken_as_they_come():
    rows = text("b", "a", "a", "B")
    made = sift(rows)
    assert made.rows == [e.row for e in rows] and (made.tables, made.lines, made.caveats, made.dev) == ((), (), (), ())


def test_weights_draw_what_they_say_and_the_table_tells_it():
    found = [*text(*(f"sw {i}" for i in range(70)), label="sw"), *text(*(f"en {i}" for i in range(500)), label="en")]
    made = sift(found, weights={"sw": 0.7, "en": 0.3})
    assert (made.labels.count("sw"), made.labels.count("en")) == (70, 30)
    table = made.tables[0]
    assert [dict(zip(table.columns, row))["in the mixture"] for row in table.rows] == [70, 30]
    more = sift(found, weights={"sw": 0.7, "en": 0.3}, examples=200, repeat=True)
    assert (more.labels.count("sw"), more.labels.count("en")) == (140, 60) and not more.caveats
    short = sift(found, weights={"sw": 0.7, "en": 0.3}, examples=200)
    assert short.labels.count("sw") == 70 and "70 examples of the 140 asked" in short.caveats[0]
    assert sift(found, weights={"sw": 1, "en": 0}).labels.count("en") == 0


def test_one_of_a_kind_is_said_as_one():
    made = sift(text("x", "a b c", "A b  c", "d e f"), dedup="exact", dev_every=None)
    assert made.lines[0] == "sw: 4 read, 1 duplicate"


def test_every_stage_is_counted():
    found = text("x", "one two three four five six", "ONE two  three four five six", ITEM, f"{ITEM} 32", PARAPHRASE, "long " * 99)
    made = sift(found, [Held("mgsm", "en", "7", ITEM)], min_chars=5, max_chars=300, dedup="exact")
    row = dict(zip(made.tables[0].columns, made.tables[0].rows[0]))
    assert row == {"examples": "sw", "read": 7, "too short": 1, "too long": 1, "duplicates": 1, "evaluation items": 2, "kept": 2,
                   "share": "100.0%", "characters": len(PARAPHRASE) + len("one two three four five six")}
    shown = made.tables[1]
    assert {r[:3] for r in shown.rows} == {("mgsm en", "7", "sw")} and "2 of 4 examples hold 1 of 1 items" in shown.note
    kept = sift(found, [Held("mgsm", "en", "7", ITEM)], leaks="keep")
    assert len(kept.rows) == 7 and "trained on all the same" in kept.tables[1].note
    with pytest.raises(InputError, match="2 of 7 examples hold items of evaluations"):
        sift(found, [Held("mgsm", "en", "7", ITEM)], leaks="refuse")


def test_near_duplicates_go_with_the_exact_ones():
    other = ITEM.replace("two dollars", "2 dollars")
    made = sift(text(*([f"{ITEM} {ITEM.lower()}" + " and so on" * 3] * 2), f"{ITEM} {other}" + " and so on" * 3, PARAPHRASE), dedup="near")
    row = dict(zip(made.tables[0].columns, made.tables[0].rows[0]))
    assert (row["duplicates"], row.get("near duplicates", 0), row["kept"]) == (1, 1, 2)


def test_uneven_and_repeated_data_are_told():
    from polygraft.result import InputRef

    found = [*text("short", label="sw"), *text("long " * 99, label="en")]
    assert "uneven: 495 characters of en, 5 of sw" in sift(found).caveats[0]
    assert not sift(found, alpha=0.3).caveats
    made = gather(found, [InputRef("data", "sw=a", digest="d"), InputRef("data", "en=a", digest="d")], Mix(), [], 0)
    assert made.caveats[0].startswith("en=a holds the same examples as sw=a")


@pytest.mark.parametrize("mix, message", [
    ({"min_chars": 99}, r"data sw: no example is left to train on\n  found: 2 read, 2 too short"), ({"dev": 0.001}, "no example is held out"),
    ({"weights": {"sx": 1.0}}, r"a weight for data that are not there\n  found: sx\n  expected: sw"),
    ({"weights": {"sw": 0.0}}, "all weights are 0"),
])  # fmt: skip
def test_nothing_left_is_refused(mix, message):
    with pytest.raises(UserError, match=message):
        sift(text("one", "two"), **mix)


def test_a_label_without_a_weight_is_refused():
    with pytest.raises(RecipeError, match="data without a weight"):
        sift([*text("a"), *text("b", label="en")], weights={"sw": 1})
    with pytest.raises(InputError, match="data en: no example is left"):
        sift([*text("a"), *text("A", label="en")], dedup="exact")


def test_a_plan_of_many_examples_leaves_the_costly_stages_to_the_run(monkeypatch):
    monkeypatch.setattr(gathering, "SKETCHED", 20)
    found = text(*(f"{ITEM} {i}" for i in range(21)))
    held = [Held("mgsm", "en", "7", ITEM)]
    planned = sift(found, held, planning=True)
    assert len(planned.rows) == len(found) and "looked for when it runs" in planned.lines[-1]
    with pytest.raises(InputError, match="no example is left"):
        sift(found, held)


@pytest.mark.parametrize("line", [
    "{alpha: 2}", "{weights: {sw: -1}}", "{weights: {sw: 1}, alpha: 0.3}", "{dev: 1}", "{dev_every: 5}", "{min_chars: 9, max_chars: 8}",
    "{dedup: fuzzy}", "{leaks: ignore}", "{ngram: 9}", "{weight: {sw: 1}}",
])  # fmt: skip
def test_what_is_typed_is_checked(line):
    from polygraft.tune.sft import Sft

    with pytest.raises(UserError, match=r"r\.yaml:\d"):
        parse(Sft, parse_document(f"model: m\ndata: [a]\nmix: {line}\n", "r.yaml"))


@pytest.mark.parametrize("spec, label, target", [
    ("sw=a.jsonl", "sw", "a.jsonl"), ("a.jsonl", "", "a.jsonl"), ("./a=b.jsonl", "", "./a=b.jsonl"), ("x/a=b", "", "x/a=b"),
    ("problems:en?n=2", "", "problems:en?n=2"), ("en=problems:en?n=2", "en", "problems:en?n=2"), ("zh-Hant=/a=b", "zh-Hant", "/a=b"),
    ("=a", "", "=a"), ("a=", "", "a="),
])  # fmt: skip
def test_labels(spec, label, target):
    name = LabelledName(spec)
    assert (name.label, name.target) == (label, target) and name.at(name.target) == spec


def test_a_label_is_part_of_a_steps_key_and_the_path_is_not(tmp_path):
    """The same file under another name, in another folder, means the same; another label or other bytes do not."""
    from polygraft import recipe
    from polygraft.steps import TABLE

    def made(name: str, data: str, row: str) -> object:
        (tmp_path / name).mkdir()
        (tmp_path / name / "d.jsonl").write_text(json.dumps({"text": row}))
        (tmp_path / name / "e.jsonl").write_text(json.dumps({"text": row}))
        (tmp_path / name / "r.yaml").write_text(f"recipe: 1\nquestion: q\nsteps: [{{id: a, use: tune.sft@1, model: demo:smollm2, data: [{data}]}}]")
        read = recipe.read_recipe(tmp_path / name / "r.yaml", TABLE)
        run = recipe.plan(read, tmp_path / "runs", offline=True)
        return run.steps[0].key

    keys = {n: made(n, d, r) for n, d, r in (("a", "sw=d.jsonl", "x"), ("b", "sw=e.jsonl", "x"), ("c", "en=d.jsonl", "x"), ("d", "sw=d.jsonl", "y"))}
    if not all(keys.values()):
        pytest.skip("the embedded model is not in the cache; `polygraft inspect demo:smollm2` fetches it")
    assert keys["a"] == keys["b"] and len(set(keys.values())) == 3


