"""Continued merges against counting everything again; extended tokenizers against what they were."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.merges_oracle import continued
from polygraft import recipe
from polygraft.errors import InputError, RecipeError, StepFailed
from polygraft.step import Step
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.scripts import script_of
from polygraft.vocab.tokenizer import checks, counting, extend, filters, optimise, parted, steps, texts, trim
from polygraft.vocab.tokenizer.folder import read_tokenizer, write_tokenizer
from polygraft.vocab.tokenizer.merges import WALL, Words, learn
from test_tokenfile import TEXT, byte_level, sentencepiece

WORDS = st.lists(st.tuples(st.text("abc", min_size=1, max_size=12), st.integers(1, 5)), min_size=1, max_size=12)
LETTERS = {0: b"a", 1: b"b", 2: b"c"}
NEW = ["большая собака лаяла на кошку", "собака и кошка жили-были", "the dog barked at the cat", "ёжик 2024 года, 17 лет"] * 8
ANY = st.text(st.sampled_from("абвсошкaбthe dogcat\n 0129,.-ё日🦙<s>"), max_size=40)


def ids(text: str) -> list[int]:
    return ["abc".index(c) for c in text]


@settings(max_examples=150, deadline=None)
@given(WORDS, st.integers(0, 6), st.integers(0, 12), st.integers(1, 3), st.sampled_from(["abca", "cc", "bab", ""]), st.integers(0, 9))
def test_merges_are_those_of_counting_everything_again(words_, old, size, least, unreached, wall):
    words = [(ids(t), n) for t, n in words_]
    before, cuts = continued(words, LETTERS, [], old, 3, 2)
    contents = dict(LETTERS)
    for a, b, c in before:
        contents[c] = contents[a] + contents[b]
    if unreached and unreached.encode() not in contents.values():  # a token that no merge makes
        contents[len(contents)] = unreached.encode()
    if wall < len(cuts):
        cuts[wall] = [*cuts[wall][:1], WALL, *cuts[wall][1:]]
    start = [(cut, n) for cut, (_, n) in zip(cuts, words, strict=True)]
    wanted, after = continued(start, contents, before, size, len(contents), least)
    made = learn(Words.of(start), contents, before, size, first=len(contents), min_count=least)
    assert [(m.left, m.right, m.token) for m in made.merges] == wanted
    assert made.tokens == sum(len(cut) * n for cut, (_, n) in zip(after, words, strict=True))


def test_an_old_token_reached_by_a_new_merge_goes_on_by_its_old_merges():
    """b c | a b | ab c | abc d: `abcd` is cut a bc d, and a + bc leads to a token that the last merge begins with."""
    contents = {0: b"a", 1: b"b", 2: b"c", 3: b"d", 4: b"bc", 5: b"ab", 6: b"abc", 7: b"abcd"}
    known = [(1, 2, 4), (0, 1, 5), (5, 2, 6), (6, 3, 7)]
    start = [([0, 4, 3], 10), ([4, 3, 0, 4, 3, 3], 2), ([3, 0, 4], 4)]
    wanted, after = continued(start, contents, known, 2, 8, 2)
    made = learn(Words.of(start), contents, known, 2, first=8)
    assert made.merges[0].token == 6 and after[0] == [7]
    assert [(m.left, m.right, m.token) for m in made.merges] == wanted
    assert made.tokens == sum(len(cut) * n for cut, (_, n) in zip(after, start, strict=True))


# ------------------------------------------------------------------------------------------------------- whole tokenizers


def opened(tmp_path, core, change=lambda tree: None, name="old"):
    """A tokenizer in a folder, with a template and a config beside it."""
    folder = tmp_path / name
    folder.mkdir()
    tree = json.loads(core.to_str())
    change(tree)
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return read_tokenizer(folder)


def free(vocabulary):
    return filters.allowed(vocabulary, digits=9, joined=True, longest=24)


def extended(tmp_path, old, size=40, corpus=NEW, **more):
    """`old` extended, written and read again."""
    v = old.vocabulary
    more.setdefault("allowed", free(v))
    made = extend.extend(v, counting.counts(corpus, v).words, size, **more)
    write_tokenizer(tmp_path / "new", made.tree, old)
    return made, Vocabulary.open(tmp_path / "new")


def as_llama3(tree):
    """Whole words first, merges as strings, control tokens that are not in the model's vocabulary, and their ids at its end."""
    model = tree["model"]
    names = [t["content"] for t in tree["added_tokens"]]
    kept = {t: i for i, t in enumerate(t for t in sorted(model["vocab"], key=model["vocab"].get) if t not in names)}
    model.update(vocab=kept, ignore_merges=True, merges=[" ".join(m) for m in model["merges"]])
    for i, t in enumerate(tree["added_tokens"]):
        t["id"] = len(kept) + i


def single_digits(tree):
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                                   tree["pre_tokenizer"]]}  # fmt: skip


def prefixed(tree):
    tree["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, tree["normalizer"]]}


KINDS = {"bytes": (byte_level, lambda tree: None), "llama3": (byte_level, as_llama3), "digits": (byte_level, single_digits),
         "metaspace": (sentencepiece, lambda tree: None), "llama2": (sentencepiece, prefixed)}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp(request.param)
    make, change = KINDS[request.param]
    old = opened(tmp_path, make(), change)
    return (old.vocabulary, *extended(tmp_path, old))


def test_it_loads_elsewhere_as_the_old_one_does(pair):
    old, _, new = pair
    before, after = ({c.name: c.ok for c in checks.loadable(v.path.parent, old.path.parent)} for v in (old, new))
    assert after["ids"] and after["transformers"] and after["saved and loaded again"] and after["reach"]
    assert after == before


def test_every_old_id_and_merge_stays_and_new_ones_follow(pair):
    old, made, new = pair
    assert made.tokens == 40 and new.size == old.size + 40 and not new.holes
    assert all(new.names[i] == token for i, token in old.names.items())
    assert new.merges[: len(old.merges)] == old.merges
    assert len(new.merges) == len(old.merges) + len(made.learned.merges)
    assert set(new.control) == set(old.control) and {t: new.id_of(t) for t in old.control} == old.control
    assert type(new.model["merges"][-1]) is type((old.model["merges"] or [[]])[0])


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_text_is_only_cut_more_coarsely(pair, text):
    old, _, new = pair
    before, after = (v.tokenizer.encode(text, add_special_tokens=False).ids for v in (old, new))
    assert len(after) <= len(before)
    ends = [{sum(map(len, done[:i])) for i in range(1, len(done) + 1)}
            for done in ([v.contents[i] or v.names[i].encode() for i in cut] for v, cut in ((old, before), (new, after)))]  # fmt: skip
    assert ends[1] <= ends[0]
    back = [v.tokenizer.decode(cut, skip_special_tokens=False) for v, cut in ((old, before), (new, after))]
    assert back[0] == back[1]


def test_the_text_takes_fewer_tokens_and_new_ones_are_used(pair):
    old, _, new = pair
    before, after = extend.check_coarser(old, new, NEW)
    used = {i for text in NEW for i in new.tokenizer.encode(text, add_special_tokens=False).ids if i >= old.size}
    assert after < 0.7 * before and len(used) > 10


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_a_frequent_word_becomes_one_token(tmp_path, make):
    old = opened(tmp_path, make())
    made, new = extended(tmp_path, old, corpus=[*NEW, *["некий зурбаган и зурбаган"] * 40], size=80)
    assert " зурбаган".encode() not in old.vocabulary.by_bytes and " зурбаган".encode() in new.by_bytes
    last = next(m for m in made.learned.merges if made.learned.added.get(m.token) == " зурбаган".encode())
    assert last.count == 80


def test_a_cut_that_is_not_coarser_is_found(tmp_path):
    a, b = opened(tmp_path, byte_level()), opened(tmp_path, byte_level(text=NEW), name="other")
    with pytest.raises(StepFailed, match="cuts where"):
        extend.check_coarser(a.vocabulary, b.vocabulary, TEXT)


def test_unigram_has_no_merges_to_continue(tmp_path):
    old = opened(tmp_path, sentencepiece("unigram")).vocabulary
    with pytest.raises(InputError, match=r"only a BPE(?s:.)*vocab train"):
        extend.extend(old, Counter(a=2), 5, allowed=free(old))


def test_characters_that_sentencepiece_lacks_become_tokens(tmp_path):
    old = opened(tmp_path, sentencepiece())
    assert "Ё" not in old.vocabulary.ids
    made, new = extended(tmp_path, old, corpus=["Ёж Ёж Ёлка"] * 5)
    assert made.characters and new.contents[new.ids["Ё"]] == "Ё".encode()
    assert len(new.tokenizer.encode("Ёж", add_special_tokens=False).ids) == 1


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_no_text_becomes_a_control_token(tmp_path, make):
    """Text that spells a control token has letters that could be merged to its name."""
    old = opened(tmp_path, make())
    v = old.vocabulary
    words = Counter({"x<s>": 50, "<s": 60, "</s>x": 40})
    made = extend.extend(v, words, 20, allowed=free(v))
    write_tokenizer(tmp_path / "new", made.tree, old)
    new = Vocabulary.open(tmp_path / "new")
    assert not {m.token for m in made.learned.merges} & set(new.control.values())
    assert [new.names[i] for i in made.learned.added] and "<s>" not in {new.names[i] for i in made.learned.added}


def test_added_tokens_that_only_the_config_names_keep_their_ids(tmp_path):
    old = opened(tmp_path, byte_level())
    top = old.vocabulary.size
    config = {"added_tokens_decoder": {str(top): {"content": "<|ghost|>", "special": True}}}
    (tmp_path / "old/tokenizer_config.json").write_text(json.dumps(config))
    result = run(tmp_path, asked(tmp_path, old, size=10))
    new = read_tokenizer(tmp_path / "out")
    assert new.vocabulary.control["<|ghost|>"] == top and result.data["new_tokens"] == 10
    assert new.vocabulary.tokenizer.encode("a<|ghost|>").ids[-1] == top
    assert new.config["added_tokens_decoder"][str(top)]["content"] == "<|ghost|>"


# --------------------------------------------------------------------------------------------------------------- filters


def test_digits_stay_as_the_old_tokenizer_has_them(tmp_path):
    old = opened(tmp_path, sentencepiece(text=["1 2 3 4 5 6 7 8 9 0 a b"] * 4, size=290))
    v = old.vocabulary
    corpus = ["2024 2024 2025 v17 v17"] * 9
    for single, longest in ((True, 1), (False, 9)):
        allowed = filters.allowed(v, digits=1 if single else 9, joined=not single, longest=24)
        made = extend.extend(v, counting.counts(corpus, v).words, 20, allowed=allowed)
        runs = [max((len(r) for r in "".join(c if c.isdecimal() else " " for c in b.decode()).split()), default=0)
                for b in made.learned.added.values()]  # fmt: skip
        assert (max(runs, default=0) > 1) is (longest > 1)


@pytest.mark.parametrize(("content", "ok"), [
    (" привет", True), ("ё", True), ("hello", False), ("при-вет", False), ("a", False), ("приb", False), (" ", True), ("2", False),
])  # fmt: skip
def test_only_letters_of_the_scripts(tmp_path, content, ok):
    v = opened(tmp_path, byte_level()).vocabulary
    judged = filters.allowed(v, scripts=["CYRILLIC"], digits=9, joined=True, longest=24)
    known = v.write_of(content.encode()) in v.by_name
    assert judged(content.encode()) is (ok and not known)


@pytest.mark.parametrize(("part", "ok"), [(b"\xd0", True), (b"\xe0", True), (b"\xe0\xa4", False), (b"\xe6\x97", False),
                                          (b"\xc3", False), (b"\xf0\x9f", False), (b"\xea\x99", True)])  # fmt: skip
def test_half_a_character_is_judged_by_what_it_may_become(part, ok):
    assert filters.begins(part, frozenset({"CYRILLIC"})) is ok


@given(st.text(max_size=6), st.integers(0, 3), st.integers(0, 3))
def test_whole_characters_are_found_between_halves(text, head, tail):
    start = "\U0001f999".encode()[4 - head :] * (head > 0)
    content = start + text.encode() + "\U0001f999".encode()[:tail]
    assert filters.whole(content) == (text, start, ("\U0001f999".encode()[:tail],) if tail else ())


@pytest.mark.parametrize(("part", "ended", "ok"), [
    (b"\xb9", True, True), (b"\xa4", True, True), (b"\xa4\xb9", True, True), (b"\xa4", False, True), (b"\x9f\x91\x8b", False, False),
    (b"\x9f\x91", False, False), (b"\x91\x8b", False, False), (b"\x8f", True, True),
])  # fmt: skip
def test_the_end_of_a_character_is_judged_by_what_it_may_have_been(part, ended, ok):
    assert filters.goes_on(part, ended, frozenset({"DEVANAGARI"})) is ok


def test_marks_belong_to_a_script_where_they_are_asked_for():
    assert [script_of(c) for c in "ह ि1"] == ["DEVANAGARI", "", "", ""]
    assert [script_of(c, marks=True) for c in "हि्1"] == ["DEVANAGARI"] * 3 + [""]


def test_emoji_make_no_tokens_of_a_script(tmp_path):
    waves = "\U0001f44b\U0001f44b\U0001f680"
    v = opened(tmp_path, byte_level()).vocabulary
    judged = filters.allowed(v, scripts=["DEVANAGARI"], digits=1, joined=False, longest=24)
    raw = waves.encode()
    assert not [raw[i:j] for i in range(len(raw)) for j in range(i + 3, len(raw) + 1) if judged(raw[i:j])]
    assert not judged(b"\x9a\x80") and not judged(b"\x9f\x91") and judged(b"\xa4\xb9"), "two bytes in the middle of a character"


@pytest.mark.parametrize(("text", "digits", "joined", "ok"), [
    ("2024", 1, True, False), ("2024", 4, False, True), ("v2", 4, False, False), ("v2", 1, True, True), ("cat", 1, False, True),
    ("12a34", 2, True, True),
])  # fmt: skip
def test_digits_of_a_token(text, digits, joined, ok):
    assert filters.fits(text, digits, joined) is ok


def test_a_script_that_is_none_is_refused_with_the_nearest():
    assert filters.check_script("cyrillic") == "CYRILLIC"
    with pytest.raises(RecipeError, match=r"(?s)no such script.*CYRILLIC"):
        filters.check_script("cyrilic")


# -------------------------------------------------------------------------------------------------------------- counting


GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def gpt4(tree):
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": GPT4}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}  # fmt: skip


@pytest.fixture(scope="module", params=[lambda tree: None, single_digits, gpt4], ids=["gpt2", "digits", "gpt4"])
def cutting(request, tmp_path_factory):
    return opened(tmp_path_factory.mktemp("cut"), byte_level(), request.param).vocabulary


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab Я1\n\t.,'s\u00a0-日"), max_size=30), max_size=4))
def test_pre_tokens_are_those_of_the_tokenizer(cutting, documents):
    made = counting.counts(documents, cutting)
    wanted = Counter(w for text in documents for w, _ in cutting.tokenizer.pre_tokenizer.pre_tokenize_str(text))
    assert made.words == wanted and made.seen == wanted.total() and made.pruned == 0
    assert made.bytes == sum(len(text.encode()) for text in documents)


def test_a_pre_tokenizer_that_joins_words_is_given_lines(tmp_path):
    def change(tree):
        tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"String": "."}, "behavior": "Isolated", "invert": False},
            tree["pre_tokenizer"] | {"use_regex": False}]}  # fmt: skip

    v = opened(tmp_path, byte_level(), change).vocabulary
    assert set(counting.counts(["a cat. a dog"], v).words) == {"aĠcat", ".", "ĠaĠdog"}


def test_words_begin_with_a_space_where_sentencepiece_puts_one(tmp_path):
    v = opened(tmp_path, sentencepiece(), prefixed).vocabulary
    assert counting.counts(["кот  и пёс", "кот"], v).words == Counter({"▁кот": 2, "▁": 1, "▁и": 1, "▁пёс": 1})
    plain = opened(tmp_path, sentencepiece(), name="plain").vocabulary
    assert counting.counts(["кот и"], plain).words == Counter({"кот": 1, "▁и": 1})


def test_rare_words_go_first_when_there_are_too_many(tmp_path):
    v = opened(tmp_path, byte_level()).vocabulary
    made = counting.counts(["a a a b b c", "a b d"], v, limit=2)
    assert set(made.words) <= {"Ġa", "Ġb", "a"} and made.words["Ġa"] == 2
    assert made.words.total() + made.pruned == made.seen == 9


def test_rare_words_are_left_out_where_there_is_no_room(tmp_path):
    v = opened(tmp_path, byte_level()).vocabulary
    contents = {i: b for i, b in enumerate(v.contents) if b is not None}
    held, pruned = extend.cut(v, Counter({"qqqq": 5, "zzzz": 3, "xx": 1}), contents, limit=6)
    assert held.counts.tolist() == [5, 1] and pruned == 3


@pytest.mark.parametrize("length", [1, 3, 100])
def test_pieces_of_a_document_are_the_document(length):
    text = "one\ntwo\n\nthree four\nfive" * 3
    made = list(counting.pieces([text, "x"], length))
    assert "".join(made) == text + "x" and (len(made) > 2) is (length < 100)


def test_languages_have_their_shares():
    counted = {"ru": counting.Counted(Counter(a=30, b=10), 40, 0, 80), "en": counting.Counted(Counter(b=10), 10, 0, 10)}
    assert texts.weighed(counted, {}) == Counter(a=30, b=20)
    assert texts.weighed(counted, {"ru": 0.5, "en": 0.5}) == Counter(a=30, b=50)


# -------------------------------------------------------------------------------------------------------------- optimising


def test_the_most_used_tokens_stay_and_all_of_them_are_reached(tmp_path):
    old = opened(tmp_path, byte_level(400)).vocabulary
    words = counting.counts(["the cat sat on the mat"] * 9, old).words
    always = len(trim.closed(old, ()))
    made = optimise.most_used(old, words, always + 20)
    new = extend.of_tree(made.tree, old)
    assert len(new.names) == always + 20
    assert {new.names[i] for w in words for i in new.replay(w)} == {old.names[i] for w in words for i in old.replay(w)}
    assert all(new.replay(token) == [i] for token, i in new.ids.items() if token not in old.control)
    count = optimise.usage(old, words)
    kept = np.isin(np.arange(old.size), made.old)
    parts = {p for w in words for i in old.replay(w) for p in trim.closed(old, [i]).tolist()}
    assert kept[count > 0].all() and set(parts) <= set(made.old.tolist())


@pytest.mark.parametrize("keep", [5, 10**6])
def test_what_cannot_be_kept_is_refused_with_what_can(tmp_path, keep):
    old = opened(tmp_path, byte_level()).vocabulary
    with pytest.raises(RecipeError, match=r"(?s)cannot be kept.*never dropped"):
        optimise.most_used(old, Counter(a=1), keep)


# -------------------------------------------------------------------------------------------------------------- the step


def asked(tmp_path, old, corpus=NEW, **more):
    """A config of the step over a tiny model with this tokenizer."""
    text = tmp_path / "ru.txt"
    text.write_text("\n".join(corpus))
    return steps.Extend(**({"model": str(tmp_path / "model"), "corpus": {"ru": str(text)}, "size": 20} | more))


STEP: Step = next(s for s in steps.STEPS if s.name == "vocab.extend")


def run(tmp_path, config):
    import tiny

    model = tmp_path / "model"
    if not model.exists():
        tiny.folder(tmp_path / "made").rename(model)
        for p in (tmp_path / "old").iterdir():
            (model / p.name).write_bytes(p.read_bytes())
    return recipe.run_step(STEP, config, tmp_path / "out")


def test_the_step_writes_a_tokenizer_that_loads_everywhere(tmp_path):
    old = opened(tmp_path, byte_level())
    measured = tmp_path / "en.txt"
    measured.write_text("\n".join(TEXT))
    result = run(tmp_path, asked(tmp_path, old, measure={"en": str(measured)}))
    new = read_tokenizer(tmp_path / "out")
    assert set(new.files) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert new.files["chat_template.jinja"].read_text() == "{{ messages }}"
    assert result.data["new_tokens"] == 20 and result.data["merges"] >= 20
    figures = {row[0]: row[1:] for row in result.tables[0].rows}
    assert figures["Russian"][1].value > 1.1 * figures["Russian"][0].value
    assert figures["English"][1].value >= figures["English"][0].value
    assert not [c for c in result.caveats if "a check found" in c]
    assert "new tokens" in result.summary[0] and "Russian" in result.summary[1]


def test_the_step_makes_room_first(tmp_path):
    old = opened(tmp_path, byte_level(400))
    always = len(trim.closed(old.vocabulary, ()))
    result = run(tmp_path, asked(tmp_path, old, keep=always + 10, size=30))
    new = read_tokenizer(tmp_path / "out").vocabulary
    assert new.size == always + 40 == result.data["kept"] + 30


def test_only_the_scripts_asked_for(tmp_path):
    old = opened(tmp_path, byte_level())
    result = run(tmp_path, asked(tmp_path, old, script=("cyrillic",), size=200))
    new = read_tokenizer(tmp_path / "out").vocabulary
    added = [new.contents[i].decode("utf-8", "ignore") for i in range(old.vocabulary.size, new.size)]
    assert 0 < result.data["new_tokens"] < 200 and "no pair that may be merged" in result.summary[0]
    assert all(c == " " or script_of(c, marks=True) == "CYRILLIC" for text in added for c in text)


@pytest.mark.parametrize(("make", "text", "words", "most"), [
    (byte_level, ["हिंदी भाषा"], 1.0, 10 / 8), (byte_level, ["кот и пёс", "v2 x-y 10"], 0.0, 18 / 9), (byte_level, ["कमल हिंदी"], 0.5, 9 / 5),
    (sentencepiece, ["हिंदी भाषा"], 0.0, 5.0),
], ids=["marks", "none", "half", "sentencepiece"])  # fmt: skip
def test_how_far_a_rule_parts_words(tmp_path, make, text, words, most):
    """GPT-2's pattern: ह|िं|द|ी| भ|ा|ष|ा are parts; numbers and hyphened words are not counted as words, but as parts."""
    found = parted.parted(text, opened(tmp_path, make()).vocabulary)
    assert found.words == words and found.marked == (words > 0)
    assert len(parted.said({"hi": found})) == (words > 0)
    assert found.most == pytest.approx(most)


def test_a_text_without_words_says_nothing_of_parts(tmp_path):
    assert parted.parted(["1 2 3", "--"], opened(tmp_path, byte_level()).vocabulary) is None


def test_text_without_anything_to_merge_is_a_failure(tmp_path):
    with pytest.raises(StepFailed, match="no pair of tokens"):
        run(tmp_path, asked(tmp_path, opened(tmp_path, byte_level()), corpus=["q"], min_count=2))


def test_shares_name_the_languages(tmp_path):
    with pytest.raises(ValueError, match="`share` needs a number"):
        asked(tmp_path, None, share={"en": 0.5})
