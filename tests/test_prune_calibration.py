"""Calibration text: quotas, draws that nothing else moves, windows, what they are told to be, mixtures."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny as tinymodels
from polygraft.data import Corpus
from polygraft.errors import InputError, RecipeError
from polygraft.prune.calibration import assembled, calibration, drawn, mixture, planned, quotas
from polygraft.prune.config import Calibrating
from polygraft.step import Context

MBS = {"en": 87, "zh-Hans": 47, "fr": 37, "es": 31, "pt": 14, "ar": 13, "vi": 7, "hi": 4, "id": 3, "bn": 3,
       **{f"x{i}": 1 for i in range(10)}}  # arXiv 2404.04748, counts of its published code: 256 windows  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return tinymodels.tokenizer()


def corpus(folder, language="sw", documents=40, seed=0, letters="abcdefgh "):
    rng = np.random.default_rng(seed)
    path = folder / f"{language}.txt"
    path.write_text("\n".join("x" + "".join(rng.choice(list(letters), 60)) for _ in range(documents)) + "\n")
    return Corpus(language, path)


def config(folder, languages=("sw", "en"), **more):
    named = {g: str(corpus(folder, g, seed=i).path) for i, g in enumerate(languages)}
    return Calibrating(**{"model": "m", "corpus": named, "samples": 8, "seq_len": 16, **more})


def context(folder):
    return Context(model=None, data=lambda ref: folder / ref)


def test_quotas_of_the_published_counts_are_these_counts():
    assert quotas(MBS, 256) == MBS
    assert sum(quotas(MBS, 128).values()) == 128 and min(quotas(MBS, 128).values()) == 1


@given(st.lists(st.floats(1e-3, 100), min_size=1, max_size=8), st.integers(8, 300))
def test_quotas_are_within_one_of_the_shares_or_the_least_that_a_language_gets(shares, samples):
    found = quotas({str(i): s for i, s in enumerate(shares)}, samples)
    assert sum(found.values()) == samples and min(found.values()) >= 1
    ideal = {str(i): s / sum(shares) * samples for i, s in enumerate(shares)}
    if all(x >= 1 for x in ideal.values()):
        assert all(abs(found[g] - ideal[g]) < 1 for g in found)
    ordered = sorted(ideal, key=lambda g: ideal[g])
    assert all(found[a] <= found[b] + 1 for a, b in pairwise(ordered))


def test_a_language_without_a_share_is_left_out_and_too_few_windows_are_refused():
    assert quotas({"sw": 1, "en": 0}, 3) == {"sw": 3}
    with pytest.raises(RecipeError, match="fewer windows than languages"):
        quotas({"sw": 1, "en": 1, "de": 1}, 2)


def test_mixtures_by_name():
    assert mixture("target", "sw") == {"sw": 1} and mixture("english", "sw") == {"en": 1}
    assert mixture("hybrid", "sw") == {"sw": 0.5, "en": 0.5} and mixture("hybrid", "en") == {"en": 1}
    assert mixture("equal", "sw", ["sw", "de"]) == {"sw": 1, "de": 1}


def test_windows_are_pieces_of_the_packed_text_with_bos_ahead(tmp_path, tokenizer):
    c = corpus(tmp_path)
    d = drawn(c, tokenizer, 5, 16, seed=3)
    packed = "".join(c.documents())
    assert d.ids.shape == (5, 16) and (d.ids[:, 0] == tokenizer.bos_token_id).all() and d.skip == 1 and d.tokens == 75
    assert [tokenizer.decode(row[1:]) for row in d.ids] == [packed[15 * i : 15 * i + 15] for i in d.at]
    assert len(set(d.at)) == 5 and d.pool == 40


def test_the_same_seed_draws_the_same_and_other_seeds_and_languages_others(tmp_path, tokenizer):
    c = corpus(tmp_path)
    at = [tuple(drawn(c, tokenizer, 5, 16, seed=s).at) for s in (0, 0, 1)]
    assert at[0] == at[1] != at[2]
    other = Corpus("en", c.path)
    assert tuple(drawn(other, tokenizer, 5, 16, seed=0).at) != at[0]


def test_more_windows_of_a_short_corpus_hold_those_of_fewer(tmp_path, tokenizer):
    c = corpus(tmp_path, documents=10)
    few, many = drawn(c, tokenizer, 8, 16, 0), drawn(c, tokenizer, 20, 16, 0)
    assert few.pool == many.pool == 40 and set(few.at) < set(many.at)


def test_what_one_language_draws_does_not_depend_on_the_others(tmp_path, tokenizer):
    both = calibration(config(tmp_path), context(tmp_path), tokenizer)
    alone = calibration(config(tmp_path, ("sw",), samples=4), context(tmp_path), tokenizer)
    a = np.concatenate([b["input_ids"].numpy() for b, g in zip(both.batches, both.of) if g == "sw"])
    b = np.concatenate([b["input_ids"].numpy() for b in alone.batches])
    assert (a == b).all() and both.digest != alone.digest


def test_batches_hold_one_language_each_and_bos_counts_nothing(tmp_path, tokenizer):
    found = calibration(config(tmp_path, calibrate={"sw": 0.75, "en": 0.25}, batch=4), context(tmp_path), tokenizer)
    assert found.of == ("sw", "sw", "en") and [len(b["input_ids"]) for b in found.batches] == [4, 2, 2]
    for weights, batch in zip(found.weighing, found.batches):
        assert weights.shape == batch["input_ids"].shape and not weights[:, 0].any() and (weights[:, 1:] == 1).all()
    told = found.provenance["languages"]
    assert told["sw"]["windows"] == 6 and told["sw"]["share"] == 0.75 and told["sw"]["tokens"] == 90
    assert told["en"]["digest"] == corpus(tmp_path, "en", seed=1).digest
    assert sum(told[g]["tokens"] for g in told) == sum(float(w.sum()) for w in found.weighing)


def test_without_shares_they_are_equal_and_a_language_of_share_0_is_not_even_opened(tmp_path, tokenizer):
    assert [t.windows for t in calibration(config(tmp_path), context(tmp_path), tokenizer).told] == [4, 4]
    made = config(tmp_path, calibrate={"sw": 1, "en": 0})
    (tmp_path / "en.txt").unlink()
    assert calibration(made, context(tmp_path), tokenizer).languages == ("sw",)


def test_text_in_another_language_and_text_of_single_bytes_is_told(tmp_path, tokenizer):
    found = calibration(config(tmp_path), context(tmp_path), tokenizer, spoken=lambda text, tag: tag == "en" if "a" in text else None)
    assert [n for n in found.notes if "sw" in n and "right file" in n] and not [n for n in found.notes if " en" in n]
    assert all(t.judged <= t.windows and t.characters_per_token == t.bytes_per_token == 1 for t in found.told)
    d = drawn(corpus(tmp_path, "te", letters="కఖగఘ"), tokenizer, 4, 16, 0)
    notes = assembled({"te": d}, tokenizer, 2).notes
    assert len(notes) == 1 and "tokens a character" in notes[0]


def test_a_corpus_that_is_too_short_is_refused_with_what_would_do(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"too short.*\n.*found: 122 tokens: 8 windows") as e:
        drawn(corpus(tmp_path, documents=2), tokenizer, 9, 16, 0)
    assert "seq-len" in str(e.value)


def test_a_plan_says_what_is_read_and_every_reason_why_it_would_fail(tmp_path):
    class Anatomy:
        context = 32

    good = planned(config(tmp_path), context(tmp_path), Anatomy)
    assert not good.problems and good.tokens == 128 and good.read_bytes > 0 and "sw 4, en 4" in good.lines[0]
    made = config(tmp_path, seq_len=64, samples=200)
    (tmp_path / "en.txt").unlink()
    words = " ".join(str(p) for p in planned(made, context(tmp_path), Anatomy).problems)
    assert "longer than what the model sees" in words and "no such corpus" in words and "too short" in words
    assert planned(config(tmp_path, samples=1), context(tmp_path), Anatomy).problems
