"""Figures of tokenizers: against their formulas, on planted faults, and as the step `analyze tokenizer`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from oracle import tokenizer_metrics_oracle as oracle
from polygraft import checkpoint
from polygraft.anatomy import Anatomy
from polygraft.cli import root
from polygraft.errors import InputError, RecipeError
from polygraft.recipe import run_step
from polygraft.steps import TABLE
from polygraft.tokenfile import Vocabulary
from polygraft.vocab import tables
from polygraft.vocab.metrics import digits, figures, reach, rows
from polygraft.vocab.metrics.counting import Reader, sample, spaced, word
from polygraft.vocab.metrics.steps import Tokenizers
from polygraft.vocab.metrics.study import parity, study
from test_tokenfile import TEXT, byte_level, sentencepiece
from tiny import FAMILIES, TIED, folder

STEP = next(s for s in TABLE if s.name == "analyze.tokenizer")
DOCS = ["the cat sat on the mat, the dog sat!", "кошка сидела на окне", "naïve 123 café", "日本語 🙂 x"]


def vocabulary(tmp_path, core, change=lambda tree: None) -> Vocabulary:
    tree = json.loads(core.to_str())
    change(tree)
    tmp_path.mkdir(parents=True, exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    return Vocabulary.open(tmp_path)


@pytest.fixture(scope="module", params=["bytes", "bpe", "unigram"])
def made(request, tmp_path_factory) -> Vocabulary:
    core = byte_level() if request.param == "bytes" else sentencepiece(request.param)
    return vocabulary(tmp_path_factory.mktemp(request.param), core)


def prefixed(tmp_path) -> Vocabulary:
    """A SentencePiece tokenizer that puts a space before every text, as Llama's does."""

    def change(tree):
        tree["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, tree["normalizer"]]}

    return vocabulary(tmp_path, sentencepiece(), change)


# ---------------------------------------------------------------------------------------------------------------- counts


def test_totals_are_those_of_encoding_every_document_alone(made):
    found = Reader(made).count(DOCS)
    one = [made.tokenizer.encode(d, add_special_tokens=False).ids for d in DOCS]
    assert found.sums[:, figures.column("tokens")].tolist() == [len(ids) for ids in one]
    assert found.sums[:, figures.column("characters")].tolist() == [len(d) for d in DOCS]
    assert found.sums[:, figures.column("bytes")].tolist() == [len(d.encode()) for d in DOCS]
    assert found.counts.tolist() == np.bincount([i for ids in one for i in ids], minlength=made.size).tolist()
    assert found.sums[:, figures.column("lossless")].tolist() == [made.tokenizer.decode(ids) == d for d, ids in zip(DOCS, one)]


def test_words_are_cut_as_they_stand_in_text(made, tmp_path):
    words = ["the", "cat", "sat", "on", "the", "mat", "the", "dog", "sat"]
    for v in (made, prefixed(tmp_path)):
        own = v.tokenizer.encode("a", add_special_tokens=False).tokens[0].startswith("▁")
        cuts = [len(v.tokenizer.encode(w if own else " " + w, add_special_tokens=False).ids) for w in words]
        found = Reader(v).count([DOCS[0]])
        e = figures.estimates(found.sums)
        assert e["fertility"].value == pytest.approx(oracle.fertility(cuts))
        assert e["continued words"].value == pytest.approx(oracle.continued(cuts))
        assert e["STRR of running words"].value == pytest.approx(100 - oracle.continued(cuts))


def test_a_word_without_its_space_is_cut_bare_also_where_the_tokenizer_adds_one(tmp_path):
    v = prefixed(tmp_path)
    found = Reader(v).count(["cat cat"])
    bare = len(v.tokenizer.encode("\ncat", add_special_tokens=False).ids) - len(v.tokenizer.encode("\n", add_special_tokens=False).ids)
    assert found.words.costs == [(len(v.tokenizer.encode("cat", add_special_tokens=False).ids), bare)]


def test_retention_on_the_list_counts_types_and_text_counts_occurrences(tmp_path):
    v = vocabulary(tmp_path, byte_level(size=300, text=["the " * 50]))
    found = Reader(v).count(["the the the xyzzy", "the 42"])
    spaced_, bare, types = found.words.retention()
    assert types == 2 and spaced_ == 0.5  # `the` and `xyzzy`; 42 is no word of letters
    assert figures.estimates(found.sums)["STRR of running words"].value == pytest.approx(100 * 4 / 6)
    assert bare == (0.5 if v.by_bytes.get(b"the") else 0.0)


@pytest.mark.parametrize(("run", "said"), [("«слово».", "слово"), ("...", ""), ("don't,", "don't"), ("हिन्दी।", "हिन्दी"),
                                           ("(x)", "x"), ("100%", "100"), ("c++", "c")])  # fmt: skip
def test_a_word_loses_what_surrounds_it_and_nothing_else(run, said):
    assert word(run) == said


def test_of_languages_without_spaces_nothing_is_said_per_word(made):
    assert not spaced("zh") and not spaced("ja") and not spaced("th") and spaced("ko") and spaced("vi") and spaced("ru")
    found = study([("a", made, {})], {"zh": lambda: ["日本語の文", "もう一つ"]})
    assert "fertility" not in found[0].estimates["zh"] and found[0].counted["zh"].words is None


@given(st.lists(st.text(alphabet="ab \n", max_size=12), max_size=6), st.integers(1, 30))
def test_a_sample_is_the_beginning_of_the_text(documents, most):
    found = list(sample(documents, most))
    assert sum(map(len, found)) <= most
    assert "".join(documents).startswith("".join(found)) and (len(found) == len(documents) or sum(map(len, documents)) > most
                                                               or "".join(found) == "".join(documents)[: sum(map(len, found))])


def test_bytes_of_characters_that_no_token_has_are_counted(made):
    found = Reader(made).count(["🙂🙂"])
    assert found.total("fallback") == 8 and found.total("unknown") == 0
    assert Reader(made).count(["the cat"]).total("fallback") == 0


def test_what_cannot_be_written_is_unknown_and_no_round_trip_gives_it_back(tmp_path):
    def change(tree):
        tree["model"]["byte_fallback"] = False
        tree["model"]["vocab"] = {t: i for t, i in tree["model"]["vocab"].items() if not t.startswith("<0x")}

    v = vocabulary(tmp_path, sentencepiece(), change)
    found = Reader(v).count(["the 🙂", "cat"])
    assert found.total("unknown") == 1 and found.total("lossless") == 1 and found.changed == ["the 🙂"]


# --------------------------------------------------------------------------------------------------------------- figures


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=30), st.sampled_from([0.5, 1, 2.5, 3]))
def test_renyi_efficiency_is_its_formula(counts, alpha):
    if not any(counts):
        with pytest.raises(ValueError):
            figures.renyi_efficiency(np.array(counts), len(counts), alpha)
        return
    made = figures.renyi_efficiency(np.array(counts), len(counts), alpha)
    assert made == pytest.approx(oracle.renyi(counts, len(counts), alpha), abs=1e-12) and -1e-12 <= made <= 1 + 1e-12


def test_renyi_efficiency_knows_the_ends():
    assert figures.renyi_efficiency(np.full(16, 7), 16) == pytest.approx(1)
    assert figures.renyi_efficiency(np.array([9, 0, 0, 0]), 4) == 0
    assert figures.renyi_efficiency(np.full(16, 7), 256) == pytest.approx(0.5)  # over the whole vocabulary, used or not


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=12))
def test_gini_is_its_formula(costs):
    assert figures.gini(costs) == pytest.approx(oracle.gini(costs), abs=1e-12)


def test_a_ratio_is_one_of_totals_and_not_a_mean_of_ratios():
    sums = np.zeros((2, len(figures.COLUMNS)), np.int64)
    sums[:, figures.column("characters")], sums[:, figures.column("tokens")] = [10, 1000], [10, 100]
    assert figures.estimates(sums, (figures.PER_TOKEN,))["characters per token"].value == pytest.approx(1010 / 110)


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_holds_the_truth_and_a_true_difference_is_found(seed):
    rng = np.random.default_rng(seed)
    sums = np.zeros((3000, len(figures.COLUMNS)), np.int64)
    at = figures.column("tokens")
    sums[:, figures.column("characters")] = rng.integers(20, 200, 3000)
    sums[:, at] = rng.binomial(sums[:, figures.column("characters")], 0.5)
    e = figures.estimates(sums)["characters per token"]
    assert e.low < 2.0 < e.high and e.high - e.low < 0.1
    fewer = sums.copy()
    fewer[:, at] = rng.binomial(sums[:, at], 0.8)
    gain = figures.gain(sums, fewer)
    assert gain.low < 25 < gain.high and gain.p < 0.01 and figures.gain(sums, sums).p == 1
    assert figures.differences(sums, fewer)["characters per token"].low > 0


def test_one_document_has_no_interval():
    sums = np.full((1, len(figures.COLUMNS)), 4)
    e = figures.estimates(sums)["characters per token"]
    assert (e.value, e.low, e.high) == (1.0, None, None) and figures.gain(sums, sums) is None and figures.differences(sums, sums) == {}


def test_premiums_are_ratios_of_totals_over_the_reference():
    tokens = [np.array([10, 30]), np.array([20, 100])]
    premiums, gini = figures.parities(tokens, 0)
    assert [p.value for p in premiums] == [1, 3] and gini.value == pytest.approx(oracle.gini([40, 120]))
    assert (premiums[0].low, premiums[0].high) == (None, None)  # it is 1 whatever is drawn


def test_coverage_and_percentile_frequency():
    counts = np.array([0, 1, 6, 3, 0])
    assert figures.coverage(counts).tolist() == pytest.approx([0.6, 0.9, 1.0])
    assert figures.percentile_frequency(counts) == 1 and figures.percentile_frequency(counts, 0.34) == 3
    assert figures.percentile_frequency(np.zeros(3)) == 0


# ----------------------------------------------------------------------------------------------------------------- reach


def test_a_tokenizer_as_trained_reaches_all_its_tokens_but_those_the_oracle_names(made):
    texts = {i: c.decode() for i, c in enumerate(made.contents) if c and i in made.names and made.write_of(c) == made.names[i]
             and not _half(c)}  # fmt: skip
    found = reach.unreachable(made)
    assert set(found) <= oracle.unreachable(made.tokenizer, texts)


def _half(content: bytes) -> bool:
    try:
        content.decode()
        return False
    except UnicodeDecodeError:
        return True


@pytest.mark.parametrize("ignore", [False, True])
def test_a_token_that_no_merges_lead_to_is_found_also_where_they_are_ignored(tmp_path, ignore):
    def change(tree):
        tree["model"]["vocab"] |= {"Ġunmerged": 900, "Ð¿ÑĢÐ": 901}
        tree["model"]["ignore_merges"] = ignore

    v = vocabulary(tmp_path, byte_level(), change)
    assert reach.unreachable(v) == {900: reach.MERGES, 901: reach.MERGES}


def test_a_token_that_the_pre_tokenizer_parts_is_found_and_told_apart(tmp_path):
    core = byte_level(text=["12 34 12 34 the the"] * 9)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                  pre_tokenizers.ByteLevel(add_prefix_space=False)])
    v = vocabulary(tmp_path, core)
    found = reach.unreachable(v)
    assert found[v.by_bytes[b"12"]] == reach.APART and v.by_bytes[b" the"] not in found


def test_where_a_space_is_put_before_every_text_tokens_without_one_are_reached(tmp_path):
    v = prefixed(tmp_path)
    inner = [i for i, c in enumerate(v.contents) if c and not c.startswith(b" ") and c.isalpha() and i not in v.added]
    assert inner and not set(inner) & set(reach.unreachable(v)) - oracle.unreachable(v.tokenizer, {i: v.names[i] for i in inner})


def test_control_tokens_are_one_id_each_unless_something_parts_them(made, tmp_path):
    assert reach.parted_control(made) == []

    def change(tree):  # the library numbers added tokens anew that are not in the model's vocabulary
        tree["added_tokens"].append(tree["added_tokens"][0] | {"id": 2000, "content": "<gap>"})

    assert reach.parted_control(vocabulary(tmp_path, byte_level(), change)) == ["<gap>"]


@pytest.mark.parametrize(("pieces", "kind", "longest"), [
    ([pre_tokenizers.Digits(individual_digits=True)], "single", 1),
    ([pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated")], "left", 3),
    ([pre_tokenizers.Split(Regex(r"\d{1,3}(?=(\d{3})*(?!\d))"), "isolated")], "right", 3),
    ([], "mixed", None),
])  # fmt: skip
def test_the_way_numbers_are_cut_is_told(tmp_path, pieces, kind, longest):
    text = [f"{n:0{w}d}" for w in (2, 3) for n in range(10**w)] if kind != "mixed" else ["12 1234 77 1999 2024 2024"] * 9
    core = byte_level(size=1500, text=text)
    core.pre_tokenizer = pre_tokenizers.Sequence([*pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    found = digits.scheme(vocabulary(tmp_path, core))
    assert found.kind == kind and (longest is None or found.longest == longest) and found.words


# ------------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("family", FAMILIES)
def test_indicators_are_their_formulas_in_every_family(tmp_path_factory, family):
    path = folder(tmp_path_factory.getbasetemp() / "families", family)
    weights = checkpoint.Checkpoint.open(path)
    found = tables.tables(weights, Anatomy.of(weights.config, weights.tensors))
    v = Vocabulary.open(path)
    made = rows.undertrained(v, found)
    table = found["in"].block(0, found["in"].shape[0])
    assert list(made.unused) == sorted({*range(v.size, table.shape[0]), *(v.by_bytes[b] for b in rows.IMPOSSIBLE)})
    expected = oracle.cosine_distances(table, list(made.unused)) if family in TIED else np.linalg.norm(table.astype(float), axis=1)
    np.testing.assert_allclose(made.indicator, expected[: v.size], rtol=1e-9)


class Rows:
    """A table in memory."""

    def __init__(self, values):
        self.values, self.shape, self.key = np.asarray(values, np.float32), np.shape(values), "embed"

    def gather(self, ids):
        return self.values[ids]

    def blocks(self):
        yield from ((i, self.values[i : i + 7]) for i in range(0, len(self.values), 7))


@pytest.mark.parametrize("tied", [True, False])
def test_planted_untrained_rows_are_found_and_no_others(tmp_path, tied):
    v = vocabulary(tmp_path, byte_level())
    rng = np.random.default_rng(0)
    values, centre = rng.standard_normal((v.size + 12, 48)), rng.standard_normal(48)
    planted = [v.by_bytes[b"a"], v.by_bytes[" к".encode()] if " к".encode() in v.by_bytes else v.by_bytes[b"t"]]
    idle = [*rows.known_unused(v, len(values)), *planted]
    values[idle] = (centre if tied else 0) + 0.05 * rng.standard_normal((len(idle), 48))
    values[planted] = centre if tied else 0
    table = Rows(values)
    made = rows.undertrained(v, {"in": table} if tied else {"in": table, "out": table})
    assert set(made.suspects) == set(planted)


def test_without_rows_that_are_known_to_be_unused_nothing_is_claimed(tmp_path):
    v = vocabulary(tmp_path, sentencepiece(text=TEXT), lambda tree: None)
    kept = [i for i, c in enumerate(v.contents) if c in rows.IMPOSSIBLE]
    assert kept  # bytes to fall back on
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    tree["model"]["vocab"] = {t: i for t, i in tree["model"]["vocab"].items() if i not in kept}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    v = Vocabulary.open(tmp_path)
    full = Rows(np.ones((v.size, 4)))
    assert len(rows.known_unused(v, v.size)) == len(v.holes) == len(kept)  # now they are holes, which nothing trains either
    small = vocabulary(tmp_path / "plain", byte_level(), lambda t: t["model"].update(vocab={"a": 0, "b": 1}, merges=[]) or
                       t.update(added_tokens=[]))
    assert rows.undertrained(small, {"in": Rows(np.ones((2, 4)))}).suspects is None
    assert rows.undertrained(v, {"in": full}).suspects is not None


# ------------------------------------------------------------------------------------------------------------------ step


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root_ = tmp_path_factory.mktemp("step")
    model = folder(root_, "llama")
    for name, size in (("small", 300), ("large", 420)):
        (root_ / name).mkdir()
        byte_level(size=size, text=TEXT * 3).save(str(root_ / name / "tokenizer.json"))
    (root_ / "ru.txt").write_text("\n".join(["кошка сидела на окне и смотрела на собаку"] * 9 + ["собака 12 34"]))
    (root_ / "en.txt").write_text("\n".join(["the cat sat on the mat and the dog sat on the log"] * 9 + ["a dog 12 34"]))
    (root_ / "short.txt").write_text("one\ntwo")
    return root_, model


def ran(place, tmp_path, **more):
    return run_step(STEP, Tokenizers(**more), tmp_path / "out", folder=place[0])


def test_two_tokenizers_side_by_side_and_what_the_second_one_adds(place, tmp_path):
    made = ran(place, tmp_path, tokenizers=("small", "large"), corpus={"ru": "ru.txt", "en": "en.txt"})
    titles = {t.title: t for t in made.tables}
    assert {"Characters per token", "Words", "Differences from small", "The vocabulary in use", "Vocabularies"} == set(titles)
    gain = titles["Characters per token"].rows[0][3]
    assert gain.verdict == "better" and gain.value > 0
    small, data = (made.data["tokenizers"][name] for name in ("small", "large"))
    assert 0 < data["added_used"] <= data["added"] == data["size"] - small["size"] and data["rows"] is None
    assert len(made.curves) == 2 and {s.language for s in made.samples} == {"ru", "en"}
    assert "|" in made.samples[0].outputs["large"]
    json.dumps(made.to_json(), allow_nan=False)


def test_a_model_s_rows_are_looked_at_and_parallel_text_alone_is_text(place, tmp_path):
    made = ran(place, tmp_path, models=(str(place[1]),), parallel={"ru": "ru.txt", "en": "en.txt"})
    (name,) = made.data["tokenizers"]
    tokens = made.data["parallel"][name]["tokens"]
    assert made.data["parallel"][name]["premium"]["ru"] == pytest.approx(tokens["ru"] / tokens["en"])
    assert made.data["parallel"][name]["gini"] == pytest.approx(oracle.gini(list(tokens.values())))
    assert made.data["tokenizers"][name]["rows"]["measure"] == "norm of the input row"
    assert any(t.title.startswith("Cost on parallel text") for t in made.tables)


def test_parallel_text_beside_a_corpus_is_counted_by_itself(place, tmp_path):
    made = ran(place, tmp_path, tokenizers=("small",), corpus={"ru": "short.txt"}, parallel={"ru": "ru.txt", "en": "en.txt"})
    assert list(made.data["tokenizers"]["small"]["languages"]) == ["ru"]
    assert set(made.data["parallel"]["small"]["tokens"]) == {"ru", "en"}


@pytest.mark.parametrize(("config", "words"), [
    ({"tokenizers": ("small",), "parallel": {"en": "en.txt", "ru": "short.txt"}}, "en: 10, ru: 2"),
    ({"tokenizers": ("small", "small/"), "corpus": {"en": "en.txt"}}, "named twice"),
    ({"tokenizers": (".",), "corpus": {"en": "en.txt"}}, "tokenizer.json"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(place, tmp_path, config, words):
    with pytest.raises((InputError, RecipeError), match=words):
        ran(place, tmp_path, **config)


@pytest.mark.parametrize("config", [{}, {"tokenizers": ("a",)}, {"tokenizers": ("a",), "parallel": {"en": "x.txt"}},
                                    {"tokenizers": ("a",), "parallel": {"ru": "x.txt", "sw": "y.txt"}},
                                    {"tokenizers": ("a",), "corpus": {"qq": "x.txt"}}])  # fmt: skip
def test_a_config_without_tokenizer_text_or_reference_is_refused(config):
    with pytest.raises(ValueError, match=r"name a model|give text|needs two languages|no such language"):
        Tokenizers(**config)


def test_of_many_languages_a_summary_tells_the_ends(place, tmp_path):
    many = dict.fromkeys(("ru", "uk", "be", "bg", "sr", "mk", "kk"), "ru.txt") | {"en": "en.txt"}
    one = ran(place, tmp_path, tokenizers=("small",), corpus=many)
    assert one.summary[0].startswith("Characters per token: English") and "..." in one.summary[0]
    two = ran(place, tmp_path / "two", tokenizers=("small", "large"), corpus=many)
    assert two.summary[2] == "Of 8 languages, these two gain the most and the least." and len(two.summary) < 8


def test_the_verb_prints_tables(place):
    done = CliRunner().invoke(root, ["analyze", "tokenizer", "--tokenizer", str(place[0] / "small"), "--corpus",
                                     f"en={place[0] / 'en.txt'}"], standalone_mode=False)  # fmt: skip
    assert done.exception is None and "Characters per token" in done.output and "Characters per token: English" in done.output


def test_parity_refuses_texts_of_unequal_length(made):
    reader = Reader(made)
    with pytest.raises(ValueError, match="en: 2, ru: 1"):
        parity("a", {"en": reader.count(["a", "b"]), "ru": reader.count(["a"])}, "en")
