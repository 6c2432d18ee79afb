"""`prune gram`, `prune score`, `prune text` as steps: what they say, write, plan and refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from oracle.grams_oracle import naive_spearman
from polygraft import arrays, files, model
from polygraft.anatomy import Anatomy
from polygraft.data import Corpus
from polygraft.errors import InputError, RecipeError
from polygraft.prune import harm
from polygraft.prune.calibration import calibration
from polygraft.prune.generated import Text, openings, text_step
from polygraft.prune.grams import candidates, gathering, store
from polygraft.prune.grams.checking import QUICK, Scored, correlations, different, said
from polygraft.prune.grams.gathering import Gram, gram_step
from polygraft.prune.grams.ranking import Scoring, score_step
from polygraft.prune.grams.scoring import Score, matrix, score
from polygraft.prune.pruning import Prune, prune_step
from polygraft.recipe import run_step
from polygraft.result import Result
from polygraft.sources import resolve
from polygraft.step import Context
from test_prune_calibration import corpus

LETTERS = {"sw": "abcdefgh ", "ru": "яжшщ "}


@dataclass
class Cost:
    nats: float
    bytes: int


def nats(live, texts):
    """Nats of every token but the first, by the model as it is now."""
    found = []
    for text in texts:
        ids = torch.tensor([live.tokenizer(text, add_special_tokens=False)["input_ids"][:40]])
        with torch.no_grad():
            found.append(Cost(float(live.model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1), ids.shape[1]))
    return found


JUDGE = harm.Judge(lambda source, dtype, device: model.load(source, dtype="float32", device="cpu"), nats)


def context(folder):
    return Context(model=lambda ref: resolve(ref), data=lambda ref: folder / ref, folder=lambda ref: folder / ref, step_id="x")


@pytest.fixture
def made(tiny, tmp_path):
    """A model, corpora and a store."""
    paths = {g: str(corpus(tmp_path, g, letters=LETTERS[g]).path) for g in LETTERS}
    config = Gram(model=str(tiny("llama")), corpus=paths, samples=6, seq_len=16, dtype="float32", device="cpu")
    (tmp_path / "grams").mkdir()
    return config, gram_step().run(config, context(tmp_path), tmp_path / "grams"), tmp_path


def scoring(config, **more):
    return Scoring(**{"model": config.model, "grams": "grams", "dtype": "float32", "device": "cpu", **more})


def test_a_store_says_what_it_holds_and_a_plan_knew_its_size(made):
    config, result, folder = made
    assert result.data["languages"] == ["sw", "ru"] and result.data["calibration"]["seed"] == 0
    plan = gram_step().plan(config, context(folder))
    assert plan.disk_bytes == result.data["bytes"] and not plan.problems and "2 languages" in plan.lines[0]
    alike = result.maps[0]
    assert alike.rows == ("down", "input.ffn", "input.o", "input.qkv") and all(-1 <= v <= 1 for row in alike.values for v in row)
    square = [row[1:] for row in result.tables[1].rows]
    assert square[0][0] == square[1][1] == pytest.approx(1) and square[0][1] == square[1][0] < 1
    assert not (folder / "grams" / "states").exists()
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.group("F")
@pytest.mark.parametrize("left", ["another model", "other text", "half a file", "the same"])
def test_what_a_killed_gathering_left_is_taken_up_only_by_the_same(made, tiny, monkeypatch, left):
    config, _, folder = made
    before = {"another model": {"model": str(tiny("llama", seed=5))}, "other text": {"seed": 3}}.get(left, {})
    real, stops = arrays.write, store.layer_file(1)

    def write(path, *rest):
        if path.name == stops:
            raise KeyboardInterrupt
        real(path, *rest)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(arrays, "write", write)
        run_step(gram_step(), config.model_copy(update=before), folder / "out")
    first = files.partial_path(folder / "out") / store.layer_file(0)
    if left == "half a file":
        first.write_bytes(first.read_bytes()[:-100])
    gathered = []
    monkeypatch.setattr(arrays, "write", lambda path, *rest: (gathered.append(path.name), real(path, *rest))[1])
    run_step(gram_step(), config, folder / "out")
    assert gathered == ([stops] if left == "the same" else [store.layer_file(0), stops])
    names = {p.name for p in (folder / "out").iterdir()}
    assert names == {"manifest.json", "result.json", store.INDEX, store.layer_file(0), stops}
    for name in (store.layer_file(0), stops):
        assert (folder / "out" / name).read_bytes() == (folder / "grams" / name).read_bytes()


def test_masks_are_scored_ranked_and_held_against_bits_per_byte(made):
    config, _, folder = made
    prune = Prune(model=config.model, corpus={"sw": config.corpus["sw"]}, samples=3, seq_len=16, dtype="float32", device="cpu")
    (folder / "p").mkdir()
    prune_step().run(prune, context(folder), folder / "p")
    asked = scoring(config, pruned=("p",), mixture=("sw", "ru", "sw=0.5+ru=0.5"), worst=3, evaluate=config.corpus, documents=4)
    result = score_step(JUDGE).run(asked, context(folder), folder)
    found = result.data["masks"]
    assert list(found) == ["p", "wanda on sw", "wanda on ru", "wanda on sw=0.5+ru=0.5", "wanda for the worst"]
    assert found["wanda on sw"]["error"]["sw"] < found["wanda on ru"]["error"]["sw"]
    assert found["wanda on ru"]["error"]["ru"] < found["wanda on sw"]["error"]["ru"]
    assert found["wanda for the worst"]["worst"] <= min(found[n]["worst"] for n in found if n.startswith("wanda")) + 1e-9
    assert abs(sum(result.data["shares"].values()) - 1) < 1e-9
    live = JUDGE.load(resolve(str(folder / "p" / "model")), "", "")
    for g in ("sw", "ru"):
        texts = list(Corpus(g, Path(config.corpus[g])).documents())[:4]
        assert found["p"]["bits per byte"][g] == pytest.approx(harm.value(harm.bits(JUDGE, live, {g: texts})[g]), rel=1e-5)
    assert set(result.data["rank correlation"]) == {"sw", "ru"} and "few masks" in " ".join(result.summary)
    assert result.tables[0].rows[0][0] in found and len(result.maps[0].rows) == 7
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_language_that_counts_alone_decides_the_weighted_sum(made):
    config, _, folder = made
    result = score_step(JUDGE).run(scoring(config, mixture=("sw", "ru"), count={"ru": 2}), context(folder), folder)
    for name, told in result.data["masks"].items():
        assert told["weighted"] == pytest.approx(told["error"]["ru"]), name
    assert "wanda on ru is best by the weighted sum" in result.summary[0] and result.data["rank correlation"] == {}


def test_correlation_sees_scores_that_order_masks_as_their_cost_does():
    def rows(errors, costs):
        return [Scored(str(i), Score(("sw",), {"a": np.array([e])}, {"a": np.array([-e])}), {"sw": np.array([[c, 1.0]])})
                for i, (e, c) in enumerate(zip(errors, costs))]  # fmt: skip
    assert correlations(rows([1, 2, 3], [5, 6, 9]), {"sw": None, "de": None}) == {"sw": (pytest.approx(1), pytest.approx(-1))}
    assert correlations(rows([1, 2, 3], [9, 6, 5]), {"sw": None}) == {"sw": (pytest.approx(-1), pytest.approx(1))}
    assert correlations(rows([1, 1], [5, 6]), {"sw": None}) == {"sw": (None, None)}
    assert "of 1.00 to 1.00 by language; column norms alone do with -1.00" in said({"sw": (1.0, -1.0)}, 12)
    assert "cannot be said" in said({"sw": (None, None)}, 12)


def test_masks_to_check_differ_and_there_are_as_many_as_asked():
    for method in (*QUICK, "sparsegpt", "magnitude"):
        for languages in (("sw",), ("sw", "en"), ("sw", "en", "de", "ru", "zh")):
            most = 4 + (method == "sparsegpt") if len(languages) == 1 else 12
            found = different(method, languages, most)
            assert len(set(found)) == most and (method in {m for m, _ in found} or method == "magnitude")
            assert all(set(candidates.shares_of(text)) <= set(languages) for _, text in found)
    assert ("magnitude", "sw") in different("magnitude", ("sw",), 4)
    with pytest.raises(RecipeError, match="4 at most"):
        different("wanda", ("sw",), 10)


def test_scores_are_held_against_bits_per_byte_over_twelve_masks_with_column_norms_beside(made):
    config, _, folder = made
    asked = scoring(config, check=12, evaluate=config.corpus, documents=3)
    result = score_step(JUDGE).run(asked, context(folder), folder)
    found = result.data["masks"]
    assert len(found) == 12 and {"wanda on sw", "ria on ru", "wanda on sw+ru"} <= set(found)
    for g in ("sw", "ru"):
        costs = [m["bits per byte"][g] for m in found.values()]
        for name, key in (("rank correlation", "error"), ("rank correlation of column norms", "error by column norms")):
            assert result.data[name][g] == pytest.approx(naive_spearman([m[key][g] for m in found.values()], costs))
    assert "12 masks" in result.summary[-1] and "column norms alone" in result.summary[-1] and "few masks" not in result.summary[-1]
    assert result.tables[-1].columns[-1] == "of column norms alone" and score_step(JUDGE).plan(asked, context(folder)).lines[0][:2] == "12"
    too_many = score_step(JUDGE).plan(scoring(config, check=99, evaluate=config.corpus), context(folder))
    assert "fewer masks differ" in str(too_many.problems[0])


def test_what_column_norms_alone_say_is_the_diagonal(made):
    config, _, folder = made
    grams, source = store.Grams(folder / "grams"), resolve(config.model)
    anatomy = Anatomy.of(source.weights.config, source.weights.tensors)
    half = candidates.mixed(grams, scoring(config, mixture=("sw",)).made, {"sw": 1})
    found = score(grams, source.weights, anatomy, half)
    for site, kept in grams.sites.items():
        before = {k: matrix(source.weights, anatomy, k, kept.width).astype(np.float64) for k in kept.keys}
        norms = grams.norms(site)
        for key, after in half(site, {k: w.astype(np.float32) for k, w in before.items()}).items():
            for i in (0, 1):
                lost, whole = (sum(float((w[:, j] ** 2).sum() * norms[i, j] ** 2) for j in range(kept.width)) for w in (before[key] - after, before[key]))
                assert found.simple[key][i] == pytest.approx(lost / whole, rel=1e-4)


def test_swaps_on_the_store_help_the_mixture_and_the_worst_language(made):
    config, _, folder = made
    result = score_step(JUDGE).run(scoring(config, mixture=("sw+ru",), swaps=30), context(folder), folder)
    plain, mixed, fair = (result.data["masks"][n] for n in ("wanda on sw+ru", "wanda on sw+ru, 30 swaps", "wanda, 30 swaps for the worst"))
    assert mixed["weighted"] < plain["weighted"] and fair["worst"] < plain["worst"]
    assert fair["worst"] <= mixed["worst"] * 1.02
    assert abs(fair["error"]["sw"] - fair["error"]["ru"]) < abs(plain["error"]["sw"] - plain["error"]["ru"]) + 1e-3


def test_another_model_s_store_and_unknown_languages_are_refused_in_the_plan(made, tiny):
    config, _, folder = made
    other = scoring(config, mixture=("sw",)).model_copy(update={"model": str(tiny("llama", seed=3))})
    assert "another model" in str(score_step(JUDGE).plan(other, context(folder)).problems[0])
    with pytest.raises(InputError, match="another model"):
        score_step(JUDGE).run(other, context(folder), folder)
    assert "no such language" in str(score_step(JUDGE).plan(scoring(config, mixture=("de",)), context(folder)).problems[0])
    assert not score_step(JUDGE).plan(scoring(config, mixture=("sw",)), context(folder)).problems
    plan = score_step(JUDGE).plan(scoring(config, pruned=("sw.txt", "grams")), context(folder))
    assert [("sw.txt" in str(p), "grams" in str(p)) for p in plan.problems] == [(True, False), (False, True)]


@pytest.mark.parametrize(("more", "words"), [({}, "nothing to score"), ({"mixture": ("sw=x",)}, "not a mixture"),
                                             ({"worst": 2, "count": {"sw": 0}}, "weight above 0"), ({"check": 3}, "held out"),
                                             ({"swaps": 3, "worst": 2}, "masks of a `mixture`"),
                                             ({"swaps": 3, "mixture": ("sw",), "method": "sparsegpt"}, "as they are"),
                                             ({"worst": 2, "pattern": "5:4"}, "not a pattern")])  # fmt: skip
def test_what_cannot_be_scored_is_refused_with_a_word(more, words):
    with pytest.raises(ValidationError, match=words):
        Scoring(model="m", grams="g", **more)


def test_a_store_needs_text():
    with pytest.raises(ValidationError, match="corpus"):
        Gram(model="m")


def test_agreement_leaves_experts_out(made):
    _, _, folder = made
    grams = gathering.Grams(folder / "grams")
    assert len(gathering.agreement(grams)) == 8 and all(-1 <= v <= 1 for v in gathering.agreement(grams).values())


# -------------------------------------------------------------------------------------------------------- the model's own text


def test_the_model_s_own_text_begins_as_documents_do_and_serves_as_a_corpus(made, tiny):
    config, _, folder = made
    asked = Text(model=config.model, corpus=config.corpus, documents=5, tokens=40, opening=6, batch=2, dtype="float32", device="cpu")
    results = []
    for name in ("t", "u"):
        (folder / name).mkdir()
        results.append(text_step(JUDGE, lambda text, tag: tag == "sw").run(asked, context(folder), folder / name))
    assert (folder / "t" / "sw.jsonl").read_bytes() == (folder / "u" / "sw.jsonl").read_bytes()
    texts = list(Corpus("sw", folder / "t" / "sw.jsonl").documents())
    heads = {text[:6] for text in Corpus("sw", Path(config.corpus["sw"])).documents()}
    assert 1 <= len(texts) <= 5 and all(text[:6] in heads for text in texts)
    assert len(results[0].caveats) == 1 and "ru" in results[0].caveats[0] and len(results[0].samples) == 4
    again = config.model_copy(update={"corpus": {"sw": "t/sw.jsonl"}, "samples": 2, "seq_len": 8})
    assert calibration(again, context(folder), model.load_tokenizer(Path(config.model))).told[0].windows == 2
    (folder / "v").mkdir()
    text_step(JUDGE).run(asked.model_copy(update={"seed": 1}), context(folder), folder / "v")
    assert (folder / "v" / "sw.jsonl").read_bytes() != (folder / "t" / "sw.jsonl").read_bytes()


def test_too_few_documents_to_start_from_and_a_window_too_long_are_refused(made):
    config, _, folder = made
    tokenizer = model.load_tokenizer(Path(config.model))
    with pytest.raises(InputError, match="too few documents"):
        openings(Corpus("sw", Path(config.corpus["sw"])), tokenizer, 41, 4, 0)
    plan = text_step(JUDGE).plan(Text(model=config.model, corpus={"sw": "nothing.txt"}, tokens=500), context(folder))
    assert len(plan.problems) == 2 and "longer than what the model sees" in str(plan.problems[0])
