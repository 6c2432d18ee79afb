"""Trimming: text that needs no token that was taken out is cut as before, other text still comes back; rows keep their bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.errors import InputError
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tokenizer import trim
from test_tokenfile import TEXT, byte_level, sentencepiece

ENGLISH = [TEXT[0], "a naïve café, 3 dogs", "the the cat"]
KINDS = ("bytes", "bpe", "unigram")


def saved(folder, core, change=lambda tree: None):
    tree = json.loads(core if isinstance(core, str) else core.to_str())
    change(tree)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tree, ensure_ascii=False))
    return Vocabulary.open(folder)


def make(kind, folder):
    return saved(folder, byte_level(400) if kind == "bytes" else sentencepiece(kind, 400))


def ids_of(vocabulary, text):
    return vocabulary.tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """A tokenizer, what English alone leaves of it, and the ids of what was left."""
    root = tmp_path_factory.mktemp(request.param)
    old = make(request.param, root / "old")
    kept = trim.closed(old, {i for text in ENGLISH for i in ids_of(old, text)})
    made = trim.without(old, kept)
    return old, saved(root / "new", json.dumps(made.tree)), made


def test_tokens_are_fewer_and_keep_their_bytes_and_order(pair):
    old, new, made = pair
    assert new.size == len(made.old) < old.size and not new.holes
    assert [new.names[n] for n in range(new.size)] == [old.names[int(o)] for o in made.old]
    assert [new.contents[n] for n in range(new.size)] == [old.contents[int(o)] for o in made.old]
    assert (np.diff(made.old) > 0).all() and new.control.keys() == old.control.keys()


@given(st.lists(st.sampled_from([*" ".join(ENGLISH).split(), "cat", "cats", "кошка", "собака", "7", "42", "é", "\n", "  ", "the"]), max_size=12))
def test_text_whose_tokens_stay_is_cut_as_before_and_other_text_comes_back(pair, words):
    old, new, made = pair
    text = " ".join(words)
    before, after = ids_of(old, text), ids_of(new, text)
    if set(before) <= set(made.old.tolist()):
        assert [made.new[i] for i in before] == after
    assert b"".join(new.contents[i] for i in after) == b"".join(old.contents[i] for i in before)


@given(st.text(max_size=20))
def test_any_text_round_trips_as_it_did(pair, text):
    old, new, _ = pair
    assert new.tokenizer.decode(ids_of(new, text)) == old.tokenizer.decode(ids_of(old, text))


def test_the_library_has_every_id_where_the_file_has_it(pair):
    _, new, _ = pair
    assert [new.tokenizer.id_to_token(i) for i in range(new.size)] == [new.names[i] for i in range(new.size)]


def test_bytes_digits_and_control_tokens_stay_when_nothing_is_used(pair):
    old, _, _ = pair
    stay = {old.names[int(i)] for i in trim.closed(old, ())}
    assert set(old.control) <= stay and set("0123456789") & set(old.ids) <= stay
    if old.alphabet == "bytes":
        assert len({t for t in stay if len(t) == 1}) >= 256
    else:
        assert {f"<0x{b:02X}>" for b in range(256)} <= stay


# ------------------------------------------------------------------------------------------------------------ merges


def words_bpe(merges, vocab=None):
    """A byte-level tokenizer with these merges, in this order."""
    tree = json.loads(byte_level(262).to_str())
    tree["model"]["vocab"] = {t: i for t, i in tree["model"]["vocab"].items() if i < 258}
    for a, b in merges:
        tree["model"]["vocab"].setdefault(a + b, len(tree["model"]["vocab"]))
    tree["model"]["merges"] = [list(m) for m in merges]
    return json.dumps(tree)


def test_of_several_ways_to_build_a_token_the_one_that_is_gone_stays(tmp_path):
    """abc is a+bc or ab+c; ab comes first, so that is how it is built, and bc may go."""
    old = saved(tmp_path, words_bpe([("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]))
    assert [old.names[i] for i in ids_of(old, "abc")] == ["abc"]
    kept = {old.names[int(i)] for i in trim.closed(old, ids_of(old, "abc"))}
    assert "ab" in kept and "bc" not in kept
    made = trim.without(old, trim.closed(old, ids_of(old, "abc")))
    assert made.tree["model"]["merges"] == [["a", "b"], ["ab", "c"]]


def test_a_token_that_merges_do_not_reach_keeps_all_that_could_build_it(tmp_path):
    def whole(tree):
        tree["model"]["ignore_merges"] = True  # a word that is a token is taken whole

    old = saved(tmp_path, words_bpe([("b", "c"), ("a", "b"), ("ab", "c")]), whole)
    assert trim.Built(old)._last("abc") is None  # b+c goes first, and a+bc is no merge
    kept = trim.closed(old, ids_of(old, "abc"))
    new = saved(tmp_path / "new", json.dumps(trim.without(old, kept).tree))
    assert [new.names[i] for i in ids_of(new, "abc")] == ["abc"]
    assert {"ab", "abc"} <= {old.names[int(i)] for i in kept}


LETTERS = "abc"
PARTS = st.text(LETTERS, min_size=1, max_size=4)


@st.composite
def merge_lists(draw):
    """Merges in any order whose parts are tokens by then: tiktoken-like lists too, with several ways to one token."""
    known, merges = list(LETTERS), []
    for _ in range(draw(st.integers(1, 14))):
        a, b = draw(st.sampled_from(known)), draw(st.sampled_from(known))
        if len(a + b) <= 6 and (a, b) not in merges:
            merges.append((a, b))
            known += [a + b] if a + b not in known else []
    return draw(st.permutations(merges))


@settings(max_examples=80)
@given(merge_lists(), st.lists(PARTS, min_size=1, max_size=4), st.text(LETTERS + " ", max_size=16), st.booleans())
def test_whatever_the_order_of_merges_used_tokens_are_cut_alike(tmp_path_factory, merges, texts, other, whole):
    folder = tmp_path_factory.mktemp("m")
    old = saved(folder, words_bpe(merges), lambda tree: tree["model"].update(ignore_merges=whole))
    made = trim.without(old, trim.closed(old, {i for t in texts for i in ids_of(old, t)}))
    new = saved(folder / "new", json.dumps(made.tree))
    for text in [*texts, other, "".join(texts)]:
        before, after = ids_of(old, text), ids_of(new, text)
        if set(before) <= set(made.old.tolist()):
            assert [made.new[i] for i in before] == after
        assert b"".join(new.contents[i] for i in after) == text.encode()


def test_merges_as_strings_stay_strings(tmp_path):
    def as_strings(tree):
        tree["model"]["merges"] = [" ".join(m) for m in tree["model"]["merges"]]

    old = saved(tmp_path, byte_level(400), as_strings)
    made = trim.without(old, trim.closed(old, ids_of(old, TEXT[0])))
    assert made.tree["model"]["merges"] and all(isinstance(m, str) for m in made.tree["model"]["merges"])
    Vocabulary.open(saved(tmp_path / "new", json.dumps(made.tree)).path)


def test_ids_in_templates_and_padding_move_with_their_tokens(tmp_path):
    def template(tree):
        last = max(t["id"] for t in tree["added_tokens"])
        extra = {"id": len(tree["model"]["vocab"]) + 3, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}
        tree["added_tokens"].append(extra)
        assert last < extra["id"]
        tree["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}],
                                  "pair": [], "special_tokens": {"<end>": {"id": "<end>", "ids": [extra["id"]], "tokens": ["<end>"]}}}
        tree["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": extra["id"],
                           "pad_type_id": 0, "pad_token": "<end>"}

    old = saved(tmp_path, byte_level(400), template)
    made = trim.without(old, trim.closed(old, ids_of(old, TEXT[0])))
    at = made.new[old.control["<end>"]]
    assert at == len(made.old) - 1 < old.control["<end>"]
    assert made.tree["post_processor"]["special_tokens"]["<end>"]["ids"] == [at] and made.tree["padding"]["pad_id"] == at
    assert trim._processor({"type": "RobertaProcessing", "sep": ["</s>", 7], "cls": ["<s>", 3]}, {7: 1, 3: 0}) == {
        "type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}


def test_a_vocabulary_that_loses_other_text_is_refused(tmp_path):
    tree = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
            "decoder": None, "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"}}
    with pytest.raises(InputError, match="WordLevel"):
        trim.closed(saved(tmp_path, json.dumps(tree)), [0])


def test_without_byte_fallback_all_single_characters_stay(tmp_path):
    old = saved(tmp_path, sentencepiece("bpe", 400), lambda tree: tree["model"].update(byte_fallback=False))
    kept = {old.names[int(i)] for i in trim.closed(old, ())}
    assert {t for t in old.ids if len(t) == 1} <= kept


# ---------------------------------------------------------------------------------------------------------------- use


COUNTS = {"en": np.array([0, 6, 3, 1, 0]), "ru": np.array([0, 0, 0, 2, 2])}


@pytest.mark.parametrize(("how", "ids"), [
    ({}, [1, 2, 3, 4]),
    ({"min_count": 3}, [1, 2, 3]),
    ({"top": 2}, [1, 3]),  # shares: en .6 .3 .1 0, ru 0 0 .5 .5
    ({"top": 99}, [1, 2, 3, 4]),
    ({"coverage": 0.9}, [1, 2, 3, 4]),  # en: 1, 2; ru: 3, 4
    ({"coverage": 0.6}, [1, 3, 4]),
    ({"coverage": 0.5}, [1, 3]),
], ids=str)  # fmt: skip
def test_which_tokens_count_as_used(how, ids):
    assert trim.used(COUNTS, **how).tolist() == ids


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.floats(0.01, 1))
def test_coverage_takes_the_fewest(counts, share):
    count = np.array(counts)
    found = trim.covering(count, share)
    got = count[found].sum()
    assert got >= share * count.sum() - 1e-6
    if len(found):
        assert got - count[found].min() < share * count.sum()


def test_a_multiple_is_filled_with_tokens_that_exist(pair):
    old, _, made = pair
    rest = [i for i in old.names if i not in made.new]
    for multiple in (8, 64):
        found = trim.filled(old, made.old, multiple, rest)
        assert set(made.old.tolist()) <= set(found.tolist()) and (len(found) % multiple == 0 or len(found) > len(old.names) - multiple)
        assert trim.closed(old, found).tolist() == found.tolist()
