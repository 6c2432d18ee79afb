"""`vocab assess`: gains on text that was held out, costs against counting by hand, decisions on planted cases."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.cli import root
from polygraft.errors import InputError
from polygraft.recipe import run_step
from polygraft.steps import TABLE
from polygraft.vocab.assess import costs, decide, gains
from polygraft.vocab.assess.decide import Limits, Option
from polygraft.vocab.assess.steps import Assess
from polygraft.vocab.tokenizer import extend, filters, texts
from test_tokenfile import byte_level, sentencepiece
from test_vocab_metrics import vocabulary
from tiny import FAMILIES, HIDDEN, MOE, TIED, VOCAB, folder

STEP = next(s for s in TABLE if s.name == "vocab.assess")
LIMITS = Limits(gain=1.3, speed=1.1, share=0.5, trimmed=0.3, unwritten=0.001)
SYLLABLES = [a + b for a in "бвгдклмн" for b in "аоуиеы"]


def russian(lines: int, seed: int = 0) -> list[str]:
    """Lines of made-up words in Cyrillic, some of which are far more frequent."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(2, 5))) for _ in range(150)]
    share = 1 / np.arange(1, 151)
    return [" ".join(rng.choice(words, 12, p=share / share.sum())) for _ in range(lines)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("assess")
    (path / "ru.txt").write_text("\n".join(russian(400)))
    (path / "en.txt").write_text("\n".join(["the cat sat on the mat and the dog sat on the log"] * 300))
    (path / "one.txt").write_text("x")
    return path, folder(path, "llama")


def assessed(place, tmp_path, **more):
    config = Assess(model=str(place[1]), **({"corpus": {"ru": "ru.txt"}, "sizes": (50, 200)} | more))
    return run_step(STEP, config, tmp_path / "out", folder=place[0])


# ----------------------------------------------------------------------------------------------------------------- gains


@pytest.mark.parametrize("make", [byte_level, sentencepiece], ids=["bytes", "sentencepiece"])
def test_a_size_is_measured_as_the_extension_of_that_size_would_cut_the_held_out_text(tmp_path, make):
    v = vocabulary(tmp_path, make())
    lines = russian(200)
    split = gains.Split.of(lambda: lines, v)
    assert split.held == tuple(lines[texts.EVERY - 1 :: texts.EVERY])
    found = gains.sizes(v, {"ru": split}, (30, 90))
    allowed = filters.allowed(v, digits=2, joined=True, longest=gains.LONGEST)
    for sized, wanted in zip(found[1:], (30, 90), strict=True):
        made = extend.extend(v, split.counted.words, wanted, allowed=allowed)
        alone = gains.opened(made.tree)
        assert sized.added == made.tokens == wanted
        assert sized.sums["ru"].tolist() == gains.measured(alone, split.held).tolist()
    rates = [s.estimate().value for s in found]
    assert rates == sorted(rates) and rates[-1] > rates[0]


def test_held_out_text_is_not_learned_from(tmp_path):
    v = vocabulary(tmp_path, byte_level())
    common, rare = "щука" * 3, "эхо"
    lines = [common] * 199
    lines[texts.EVERY - 1 :: texts.EVERY] = [rare] * len(lines[texts.EVERY - 1 :: texts.EVERY])
    split = gains.Split.of(lambda: lines, v)
    assert set(split.held) == {rare} and rare not in split.learned() and set(split.learned()) == {common}
    last = gains.sizes(v, {"ru": split}, (40,))[-1]
    assert last.estimate().value == pytest.approx(gains.sizes(v, {"ru": split}, ())[0].estimate().value)  # nothing gained there


def test_of_one_long_document_the_second_half_is_held_out(tmp_path):
    v = vocabulary(tmp_path, byte_level())
    split = gains.Split.of(lambda: ["кошка на окне"], v)
    assert "".join(split.learned()) + "".join(split.held) == "кошка на окне" and split.held


def test_how_often_the_rarest_come_is_counted_after_later_merges_took_their_part():
    M = gains.Merge
    # token 10 is made 100 times, 90 of them go into 11; 12 takes 3 pairs of 11; 13 is made and wholly used up by 14
    merges = [M(1, 2, 10, 100), M(10, 3, 11, 90), M(11, 11, 12, 3), M(4, 5, 13, 8), M(13, 1, 14, 8)]
    left = [100 - 90, 90 - 6, 3, 8]
    assert gains.rarest(merges, 0.0) == 3 and gains.rarest(merges, 0.5) == np.quantile(left, 0.5)
    assert gains.rarest([], 0.1) == 1.0


def test_rarest_agrees_with_counting_tokens_in_the_text(tmp_path):
    v = vocabulary(tmp_path, byte_level())
    lines = russian(200)
    split = gains.Split.of(lambda: lines, v)
    made = extend.extend(v, split.counted.words, 60, allowed=filters.allowed(v, digits=2, joined=True, longest=24))
    tokenizer, merges = gains.beginning(made, v, 60)
    ids = np.concatenate([e.ids for e in tokenizer.encode_batch(list(split.learned()), add_special_tokens=False)])
    counts = np.bincount(ids, minlength=v.size + 60)[v.size :]
    assert gains.rarest(merges, 0.25) == pytest.approx(np.quantile(counts[counts > 0], 0.25), rel=0.1)


# ----------------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_of_a_model_are_those_of_its_tensors(tmp_path_factory, family):
    weights = Checkpoint.open(folder(tmp_path_factory.getbasetemp() / "families", family))
    shape = costs.Shape.of(weights, Anatomy.of(weights.config, weights.tensors))
    tables = [k for k, t in weights.tensors.items() if t.shape[0] == VOCAB]
    total = sum(t.numel for k, t in weights.tensors.items() if k not in tables)
    assert (shape.rows, shape.width, shape.tables, shape.itemsize) == (VOCAB, HIDDEN, 1 if family in TIED else 2, 4)
    assert shape.body == total and shape.body_bytes == 4 * total
    assert shape.bytes(VOCAB) == 4 * (total + shape.tables * VOCAB * HIDDEN) and 0 < shape.share(VOCAB) < 1
    assert (shape.active < shape.body) == (family in MOE)
    assert shape.moved(VOCAB + 8) - shape.moved(VOCAB) == 8 * HIDDEN * 4  # a head's rows are all read, tied or not
    assert shape.forward(VOCAB) == 2 * (shape.active + VOCAB * HIDDEN)
    assert shape.training(VOCAB, body=True) == 3 * shape.forward(VOCAB)


SHAPE = costs.Shape(rows=1000, width=10, tables=2, itemsize=2, body=90_000, body_bytes=180_000, active=90_000, active_bytes=180_000,
                    context=512)  # fmt: skip


def test_speed_is_the_gain_less_what_the_larger_head_moves():
    o = decide.option(SHAPE, 2.0, 1000, 2000, 4.0, 0.0)
    assert o.gain == 2 and o.speed == pytest.approx(2 * (180_000 + 20_000) / (180_000 + 40_000))


def test_serving_pays_back_only_where_a_character_costs_less():
    assert costs.break_even(600.0, 5.0, 3.0) == 300
    assert costs.break_even(600.0, 3.0, 3.0) is None and costs.break_even(600.0, 3.0, 4.0) is None


# -------------------------------------------------------------------------------------------------------------- decisions


def options(*speeds: float) -> list[Option]:
    return [Option(1000 * i, 1000, 1.0, 1.0, s, float(i)) for i, s in enumerate((1.0, *speeds))]


def test_a_larger_size_is_taken_as_long_as_it_is_worth_it_and_there_is_text_for_it():
    assert decide.best(options(1.5, 1.8, 1.81, 2.5), 0.05, lambda o: True).added == 2000
    assert decide.best(options(1.5, 1.8, 2.2), 0.05, lambda o: o.apart <= 1).added == 1000
    assert decide.best(options(1.5, 1.8), 0.05, lambda o: False).added == 2000  # text for none: told as a reason against


@pytest.mark.parametrize(("kind", "gain", "kept", "unwritten", "way"), [
    ("BPE", 2.0, 100, 0.0, "extend"), ("Unigram", 2.0, 100, 0.0, "replace"), ("BPE", 1.1, 900, 0.0, "none"),
    ("BPE", 1.1, 300, 0.0, "trim"), ("BPE", 2.0, 900, 0.05, "replace"), ("Unigram", 1.1, 900, 0.0, "none"),
])  # fmt: skip
def test_the_way_follows_from_gain_kind_and_use(kind, gain, kept, unwritten, way):
    found, why = decide.route(kind, Option(500, 1500, 2.0, gain, gain, 0.0), kept, 1000, unwritten, LIMITS)
    assert found == way and why


# ------------------------------------------------------------------------------------------------------------------ step


def test_a_tokenizer_of_bytes_gains_much_on_russian_and_is_extended(place, tmp_path):
    made = assessed(place, tmp_path, text=1e6, available=1e6, served=1e9)
    data = made.data
    assert data["route"] == "extend" and data["chosen"]["gain"] > 1.3
    assert {c["name"]: c["verdict"] for c in data["checks"]}["text to train on"] == "go"
    assert [o["added"] for o in data["options"]] == [0, 50, 200]
    assert data["training"]["months"] == pytest.approx(data["training"]["characters"] / (1e9 * data["options"][0]["per_token"]))
    assert made.summary[0].startswith("Go") and len(made.curves) == 1
    json.dumps(made.to_json(), allow_nan=False)


def test_too_little_text_is_a_reason_against_it(place, tmp_path):
    made = assessed(place, tmp_path, available=10.0)
    assert made.data["verdict"] == "no-go" and made.summary[0].startswith("No-go")
    assert any("text to train on" in s and "(no-go)" in s for s in made.summary)


def test_thresholds_are_the_config_s(place, tmp_path):
    made = assessed(place, tmp_path, gain=50.0, trimmed=1.0)
    assert made.data["route"] == "none" and made.data["verdict"] == "no-go" and "less than 50" in made.summary[0]
    made = assessed(place, tmp_path / "trim", gain=50.0, trimmed=0.0)
    assert made.data["route"] == "trim" and made.data["verdict"] == "go"


def test_several_languages_are_told_apart(place, tmp_path):
    made = assessed(place, tmp_path, corpus={"ru": "ru.txt", "en": "en.txt"})
    assert set(made.data["languages"]) == {"ru", "en"}
    table = next(t for t in made.tables if t.title == "Characters per token by language")
    assert [row[0] for row in table.rows] == ["Russian", "English"] and len(table.columns) == 4


@pytest.mark.parametrize("text", ["x", "one short line", "\n".join(russian(130))[:9_999]], ids=["a letter", "a line", "less than a page"])
def test_too_little_text_to_decide_on_is_refused(place, tmp_path, text):
    (tmp_path / "few.txt").write_text(text)
    with pytest.raises(InputError, match=r"(?s)too little text.*corpus\.ru|corpus\.ru.*too little text") as refused:
        assessed(place, tmp_path, corpus={"ru": str(tmp_path / "few.txt")})
    assert "10,000" in str(refused.value)


def test_a_rule_that_parts_words_is_told(place, tmp_path):
    syllables = [c + v for c in "कखगमनसर" for v in ("ा", "ि", "ी", "े", "्य")]
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(syllables, 3)) for _ in range(12)) for _ in range(400)]
    (tmp_path / "hi.txt").write_text("\n".join(lines))
    core = json.loads((place[1] / "tokenizer.json").read_text())
    assert core["pre_tokenizer"]["type"] == "ByteLevel", "GPT-2's pattern"
    made = assessed(place, tmp_path, corpus={"hi": str(tmp_path / "hi.txt")})
    assert made.data["parted"]["hi"]["words"] == 1 == made.data["parted"]["hi"]["marked"] and made.data["parted"]["hi"]["most"] < 2
    assert any("Hindi" in line and "before any merge (at vowel signs" in line for line in made.summary)
    best = max(o["per_token"] for o in made.data["options"])
    assert best <= made.data["parted"]["hi"]["most"], "no vocabulary goes over it"
    russian_one = assessed(place, tmp_path / "ru")
    assert russian_one.data["parted"]["ru"]["words"] == 0 and not any("before any merge" in line for line in russian_one.summary)


def test_a_unigram_tokenizer_is_compared_with_a_new_one(place, tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    for file in place[1].iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    core = sentencepiece("unigram", size=264)
    core.save(str(made / "tokenizer.json"))
    with pytest.raises(InputError, match="beyond the embedding"):
        assessed((place[0], made), tmp_path)
    big = folder(tmp_path / "big", "llama", vocab_size=400)
    core.save(str(big / "tokenizer.json"))
    result = assessed((place[0], big), tmp_path)
    assert [o["added"] for o in result.data["options"]] == [0]
    assert result.data["route"] in ("replace", "none", "trim") and result.data["verdict"] in ("go", "caution", "no-go")


def test_the_verb_plans_from_headers(place):
    done = CliRunner().invoke(root, ["vocab", "assess", str(place[1]), "--corpus", f"ru={place[0] / 'ru.txt'}", "--plan"],
                              standalone_mode=False)  # fmt: skip
    assert done.exception is None and "sizes tried: 4,000" in done.output


def test_a_verdict_is_its_worst_reason():
    c = decide.Check("x", "", "", "go")
    assert decide.verdict([c]) == "go" and decide.verdict([c, replace(c, verdict="caution")]) == "caution"
    assert decide.verdict([replace(c, verdict="caution"), replace(c, verdict="no-go")]) == "no-go"
