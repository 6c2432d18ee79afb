"""Rows of new tokens: every method against its formula, copies bit for bit, planted signals, all families of models."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from newtokens import extended
from oracle import init_oracle as oracle
from polygraft import cli
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, RecipeError
from polygraft.files import verify_folder
from polygraft.recipe import plan_step, run_step
from polygraft.steps import TABLE
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.init import filling, focus, methods, mixture, omp, vectors, weights
from polygraft.vocab.init.methods import METHODS, Material
from polygraft.vocab.init.moments import Moments, drawn
from polygraft.vocab.init.steps import Init
from polygraft.vocab.pieces import decompose
from polygraft.vocab.scripts import script_of_token
from polygraft.vocab.tables import Table
from test_tokenfile import TEXT, byte_level, sentencepiece
from tiny import FAMILIES, TIED

STEP = next(s for s in TABLE if s.name == "vocab.init")
PLAIN = tuple(m for m in METHODS if m not in ("omp", "focus"))


class Held:
    """Weights of one table in memory, float32."""

    def __init__(self, values):
        self.values, self.path = np.asarray(values, np.float32), "held"
        self.tensors = {"t": type("T", (), {"shape": self.values.shape, "dtype": "F32", "itemsize": 4})}

    def read_range(self, key, start, stop):
        return self.values.tobytes()[start:stop]

    def f32(self, key, start, stop):
        return self.values.reshape(-1)[start:stop].copy()


def table(values) -> Table:
    return Table(Held(values), "t")


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A byte-level vocabulary and a larger SentencePiece one of other text."""
    root = tmp_path_factory.mktemp("two")
    for name, core in (("old", byte_level()), ("new", sentencepiece("bpe", 420))):
        (root / name).mkdir()
        core.save(str(root / name / "tokenizer.json"))
    return Vocabulary.open(root / "old"), Vocabulary.open(root / "new")


def material(two, **more) -> Material:
    return Material(decompose(*two), *two, **more)


def built(method, work, values, rows, side="in"):
    raw = b"".join(b.tobytes() for b in filling.initialise(method, work, table(values), side, rows)())
    return np.frombuffer(raw, np.float32).reshape(rows, -1)


# ---------------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("rule", ["uniform", "first", "last", "length", "decay"])
def test_weighted_means_are_their_formulas(two, rule):
    work, values = material(two), rng().normal(size=(two[0].size, 5))
    made = mixture.rows(work.mean_of(rule), table(values))
    for token in work.composed:
        pieces = work.pieces.of(int(token)).tolist()
        n, parts = len(pieces), [two[0].contents[p] for p in pieces]
        by = {"uniform": [1] * n, "first": [1] + [0] * (n - 1), "last": [0] * (n - 1) + [1],
              "length": oracle.characters(parts), "decay": [np.exp(-i) for i in range(n)]}[rule]
        np.testing.assert_allclose(made[token], oracle.piece_mean(values.astype(np.float32), pieces, by), rtol=1e-12)


def test_pieces_of_nothing_but_spaces_weigh_less():
    np.testing.assert_allclose(weights.of_pieces([b" ", b"ab"], "uniform", 0.1), [0.1 / 1.1, 1 / 1.1])
    np.testing.assert_allclose(weights.of_pieces([b" ", b"ab"], "first", 0.1), [1, 0])
    np.testing.assert_allclose(weights.of_pieces([b" "], "uniform", 0.0), [1])


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=5))
def test_characters_of_pieces_are_those_of_the_whole(parts):
    found = weights.characters(parts)
    assert found.shape == (len(parts),) and (found > 0).all()
    assert found.sum() == pytest.approx(len(b"".join(parts).decode("utf-8", "surrogateescape")))


def test_composed_input_rows_have_the_norm_of_their_script(two):
    work, values = material(two), rng().normal(size=(two[0].size, 8))
    values[[i for i, c in enumerate(two[0].contents) if script_of_token(c) == "LATIN"]] *= 7
    made = built("composed", work, values, two[1].size)
    uniform = mixture.rows(work.mean_of("uniform"), table(values))
    lengths = np.linalg.norm(values.astype(np.float32), axis=1)
    some = [t for t in work.composed if script_of_token(two[1].contents[t]) == "LATIN"]
    latin = np.median([lengths[i] for i, c in enumerate(two[0].contents) if script_of_token(c) == "LATIN"])
    assert len(some) > 5
    for token in some:
        np.testing.assert_allclose(made[token], uniform[token] * latin / np.linalg.norm(uniform[token]), rtol=1e-5)
    for output in (built("composed", work, values, two[1].size, "out"), built("composed", material(two, tied=True), values, two[1].size)):
        np.testing.assert_allclose(output[work.composed], mixture.rows(work.mean_of("length"), table(values))[work.composed], rtol=1e-5)


@pytest.mark.parametrize(("content", "expected"), [
    (b" the", "LATIN"), ("кот".encode(), "CYRILLIC"), ("猫".encode(), "CJK"), (b"123", "no letters"), (b" ", "no letters"),
    (b"\xd0", "no text"), (None, "no text"), ("aкот".encode(), "CYRILLIC"), ("кот".encode()[:-1], "CYRILLIC"),
])  # fmt: skip
def test_the_script_of_a_token(content, expected):
    assert script_of_token(content) == expected


def test_moments_are_those_of_numpy_without_padding(monkeypatch):
    values, used = rng().normal(size=(700, 6)) @ rng(1).normal(size=(6, 6)), np.ones(700, bool)
    used[650:] = False
    monkeypatch.setattr("polygraft.vocab.tables.BLOCK", 4 * 6 * 64)
    found, real = Moments(table(values), used), values[:650].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(found.mean, real.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.deviation, real.std(0), rtol=1e-10)
    np.testing.assert_allclose(found.factor @ found.factor.T, np.cov(real.T, bias=True), rtol=1e-6, atol=1e-6)


def test_drawn_rows_have_the_spread_that_was_asked_for_and_are_a_token_s_own(two):
    work, values = material(two, seed=3), rng().normal(size=(two[0].size, 4)) @ rng(1).normal(size=(4, 4)) + 2
    moments, many = Moments(table(values), np.ones(len(values), bool)), np.arange(4_000)
    made = moments.mean + drawn(many, 4, 3, "in") @ moments.factor.T
    np.testing.assert_allclose(np.cov(made.T), moments.covariance, atol=0.15 * np.abs(moments.covariance).max())
    assert np.array_equal(drawn(many[5:9], 4, 3, "in"), drawn(many, 4, 3, "in")[5:9])
    assert not np.array_equal(drawn(many[:2], 4, 3, "in"), drawn(many[:2], 4, 3, "out"))
    for method in ("random", "hewitt"):
        assert np.array_equal(built(method, work, values, two[1].size), built(method, work, values, two[1].size))


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(1, 30), st.integers(1, 8), st.integers(0, 10**6))
def test_matching_pursuit_is_its_formula(width, count, k, seed):
    atoms, targets = rng(seed).normal(size=(count, width)), rng(seed + 1).normal(size=(3, width))
    atoms *= rng(seed + 2).uniform(0.1, 10, (count, 1))
    ready, sizes = omp.unit(atoms)
    found = omp.pursue(targets, ready, k)
    for target, chosen, weight in zip(targets, found.anchors, found.weights):
        expected, fit = oracle.omp(target, atoms, min(k, width, count))
        assert chosen[chosen >= 0].tolist() == expected
        np.testing.assert_allclose(weight[chosen >= 0] / sizes[expected], fit, rtol=1e-6, atol=1e-9)


def test_matching_pursuit_finds_a_planted_sum_and_long_anchors_do_not_win():
    atoms = rng().normal(size=(200, 64))
    atoms[0] *= 1000  # a long row has the largest inner product with nearly everything
    ready, sizes = omp.unit(atoms)
    found = omp.pursue((2 * atoms[5] - 3 * atoms[17] + atoms[90])[None], ready, 64)
    real = found.anchors[0] >= 0
    got = dict(zip(found.anchors[0][real].tolist(), found.weights[0][real] / sizes[found.anchors[0][real]]))
    assert {i for i, w in got.items() if abs(w) > 1e-9} == {5, 17, 90} and got[17] == pytest.approx(-3)
    assert found.rest[0] < 1e-9


def test_matching_pursuit_of_nothing_and_among_equals():
    assert (omp.pursue(np.zeros((2, 4)), np.eye(4), 3).anchors == -1).all()
    twice = np.repeat(np.eye(3)[:1], 4, 0)  # the same atom four times: once is enough
    found = omp.pursue(np.array([[1.0, 1.0, 0.0]]), twice, 3)
    assert (found.anchors[0] >= 0).sum() == 1 and found.weights[0, 0] == pytest.approx(1)
    assert omp.pursue(np.ones((1, 3)), np.zeros((5, 3)), 2).anchors.tolist() == [[-1, -1]]


@settings(max_examples=60)
@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.floats(-5, 5)))
def test_sparsemax_is_its_algorithm(scores):
    found = focus.sparsemax(scores)
    for row, z in zip(found, scores):
        np.testing.assert_allclose(row, oracle.sparsemax(z), atol=1e-9)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 9))
def test_counts_of_neighbours_are_those_of_pairs_whatever_the_block(documents, window, block):
    contexts = np.array([2, 0, 5])
    ids = np.array([x for d in documents for x in [*d, -1]], np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "TOGETHER", block)
        found = vectors.together(ids, 7, contexts, window)
    assert np.array_equal(found.toarray(), oracle.together(documents, 7, contexts.tolist(), window))


def test_ppmi_and_its_largest_directions():
    from scipy.sparse import csr_matrix

    counts = rng().poisson(1.0, (40, 12)) * rng(1).poisson(0.6, (40, 12))
    made = vectors.ppmi(csr_matrix(counts.astype(np.float64)))
    np.testing.assert_allclose(made.toarray(), oracle.ppmi(counts, vectors.SMOOTH), atol=1e-12)
    left, sizes, _ = np.linalg.svd(made.toarray(), full_matrices=False)
    expected = left[:, :5] * np.sqrt(sizes[:5])
    found = vectors.reduced(made, 5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)  # directions have no sign


def test_tokens_that_are_used_alike_get_alike_vectors_and_rows():
    """Tokens 0 to 9 stand among 20 to 29, 10 to 19 among 30 to 39: token 9 is made of 0 to 8, token 19 of 10 to 18."""
    random = rng()
    ids = [int(x) for _ in range(4000) for half in [random.integers(2)]
           for x in (random.integers(10) + 10 * half, random.integers(10) + 20 + 10 * half, -1)]  # fmt: skip
    known, found = vectors.vectors(np.array(ids, np.int32), 40)
    assert known.tolist() == list(range(40))
    shared = np.array([*range(9), *range(10, 19)])
    made = focus.mixed(np.array([9, 19]), known, found, shared, shared, 40)
    for token, lowest in ((9, 0), (19, 10)):
        old, weight = made.of(token)
        assert set(old) <= set(range(lowest, lowest + 9)) and weight.sum() == pytest.approx(1) and len(old) > 3


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=6), st.data())
def test_mixtures_are_taken_and_joined_token_by_token(made_of, data):
    values, parts = rng().normal(size=(6, 3)), [(i, np.array(p, np.int32), np.arange(1.0, len(p) + 1)) for i, p in enumerate(made_of)]
    made = mixture.joined(parts[::-1], len(parts))
    expected = [sum((w * values[i] for i, w in zip(ids, some)), np.zeros(3)) for _, ids, some in parts]
    np.testing.assert_allclose(made.over(values), expected, atol=1e-12)
    tokens = np.array(data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=1, max_size=5)))
    np.testing.assert_allclose(made.take(tokens).over(values), np.array(expected)[tokens], atol=1e-12)
    other = mixture.joined([(i, np.array([i % 6], np.int32), np.ones(1)) for i in range(len(parts))], len(parts))
    filled = mixture.first_of(made, other).over(values)
    for i, p in enumerate(made_of):
        np.testing.assert_allclose(filled[i], expected[i] if p else values[i % 6], atol=1e-12)
    assert np.array_equal(np.concatenate(list(mixture.blocks(tokens, made.counts, 1 << 23))), tokens)


# ------------------------------------------------------------------------------------------------------- tables and models


@pytest.mark.parametrize("method", METHODS)
def test_a_vocabulary_on_itself_is_the_identity_bit_for_bit(tmp_path, two, method):
    old = two[0]
    donor = methods.Donor(old, {"in": table(rng().normal(size=(old.size, 4)))})
    work = material((old, old), donor=donor, vectors=(np.array([300, 301]), np.eye(2)))
    values = rng().normal(size=(old.size + 7, 4)).astype(np.float32)  # padded rows, too
    values[3, 0], values[4, 1] = -0.0, 1e-42
    rows = filling.rows_for(old, old, len(values), 64)
    assert rows == len(values)
    assert built(method, work, values, rows).tobytes() == values.tobytes()


def test_copies_first_then_methods_and_padding_is_the_mean(two):
    values = rng().normal(size=(two[0].size, 6)).astype(np.float32)
    donor = methods.Donor(two[1], {"in": table(rng(1).normal(size=(two[1].size, 9)))})
    some = np.arange(0, two[1].size, 2)
    angles = rng(2).normal(size=(len(some), 5))
    work = material(two, donor=donor, vectors=(some, angles / np.linalg.norm(angles, axis=1)[:, None]))
    rows = filling.rows_for(*two, len(values), 64)
    assert rows % 64 == 0 and 0 <= rows - two[1].size < 64
    shared = work.copied
    assert len(shared) > 256 and len(work.composed) > 20
    for method in METHODS:
        made = built(method, work, values, rows)
        assert np.array_equal(made[shared], values[work.pieces.ids[work.pieces.offsets[shared]]]), method
        assert np.isfinite(made).all()
        mean = made[: two[1].size].astype(np.float64).mean(0)
        np.testing.assert_allclose(made[two[1].size :], np.tile(mean, (rows - two[1].size, 1)), rtol=1e-5, atol=1e-7)


def test_a_table_is_the_same_in_small_blocks(two, monkeypatch):
    values, work = rng().normal(size=(two[0].size, 6)), material(two)
    whole = built("composed", work, values, 512)
    monkeypatch.setattr(filling, "BLOCK", 4 * 6 * 17)
    monkeypatch.setattr(mixture, "ROOM", 4 * 6 * 5)
    np.testing.assert_allclose(built("composed", work, values, 512), whole, rtol=1e-6)


def test_a_donor_that_is_the_model_turned_gives_the_rows_that_its_sums_have(two):
    """Where the donor's rows are the model's by a rotation, and a new token there is a sum of shared ones, so it is here."""
    old, new = two
    values = rng().normal(size=(old.size, 12))
    turn = np.linalg.qr(rng(1).normal(size=(12, 12)))[0]
    work = material(two)
    there, planted = rng(2).normal(size=(new.size, 12)), {}
    for token in work.copied:
        there[token] = values[work.pieces.of(int(token))[0]] @ turn
    shared = [int(t) for t in work.copied if new.contents[t] is not None and new.by_bytes[new.contents[t]] == t]
    for n, token in enumerate(work.composed[:10]):
        a, b = shared[30 + n], shared[90 + 2 * n]
        there[token] = 1.5 * there[a] - 0.5 * there[b]
        planted[token] = 1.5 * values[old.by_bytes[new.contents[a]]] - 0.5 * values[old.by_bytes[new.contents[b]]]
    made = built("omp", material(two, donor=methods.Donor(new, {"in": table(there)}), k=12), values, new.size)
    for token, row in planted.items():
        np.testing.assert_allclose(made[token], row, rtol=1e-3, atol=1e-4)


def test_a_token_that_is_harmless_in_the_donor_and_not_here_is_flagged(two):
    old, new = two
    work = material(two)
    there, values = rng().normal(size=(new.size, 24)), rng(1).normal(size=(old.size, 24))
    shared = [int(t) for t in work.copied if new.contents[t] is not None and new.by_bytes[new.contents[t]] == t]
    there[shared[40]] /= 10  # an anchor that is short in the donor: who is made of it takes much of it
    planted = work.composed[0]
    there[planted] = 300 * there[shared[40]]
    donor = methods.Donor(new, {"in": table(there)})
    made = methods.rule("omp", material(two, donor=donor, k=4), table(values), "in")
    here = work.pieces.of(shared[40])[0]
    assert planted in made.suspicious and all(here in made.mixture.of(int(t))[0] for t in made.suspicious)
    assert len(made.suspicious) < len(work.composed) / 5
    wary = methods.Donor(new, {"in": table(there)}, frozenset({shared[40]}))  # known as hardly trained, it is no anchor
    made = methods.rule("omp", material(two, donor=wary, k=4), table(values), "in")
    assert here not in made.mixture.take(work.composed).ids


def test_the_bias_of_a_head_is_that_of_the_pieces(two):
    work, values = material(two), rng().normal(size=two[0].size + 3).astype(np.float32)
    made = filling.bias(work, values, two[1].size + 5)
    for token in work.copied:
        assert made[token] == values[work.pieces.of(int(token))[0]]
    token = int(work.composed[0])
    parts = [two[0].contents[p] for p in work.pieces.of(token)]
    assert made[token] == pytest.approx(oracle.piece_mean(values, work.pieces.of(token), oracle.characters(parts)))
    assert np.isfinite(made).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_on_a_tokenizer(family, tiny, tmp_path):
    from polygraft.model import load
    from polygraft.sources import resolve

    base = tiny(family)
    made = tmp_path / "made"
    run_step(STEP, Init(model=str(base), tokenizer=str(extended(base, tmp_path / "t", specials=("<new>",))), multiple=8), made)
    before, after = Checkpoint.open(base), Checkpoint.open(made)
    changed = [k for k, t in after.tensors.items() if t.shape != before.tensors[k].shape]
    assert len(changed) == (1 if family in TIED else 2) and not verify_folder(made)
    for key, t in before.tensors.items():
        old = before.read(key)
        if key in changed:
            width = len(old) // t.shape[0]
            assert after.read(key)[: 260 * width] == old[: 260 * width] and after.tensors[key].shape[0] % 8 == 0
        else:
            assert after.read(key) == old
    live = load(resolve(made), dtype="float32", device="cpu")
    text = "кошка сидела на окне и смотрела"
    assert len(live.tokenizer(text).input_ids) < len(text.encode()) and live.tokenizer.decode(
        live.tokenizer(text, add_special_tokens=False).input_ids) == text
    assert live.tokenizer.convert_tokens_to_ids("<new>") == Vocabulary.open(made).control["<new>"] >= 264
    logits = live.model(live.tokenizer(text, return_tensors="pt").input_ids).logits
    assert bool(logits.isfinite().all()) and logits.shape[-1] == after.tensors[changed[0]].shape[0]
    assert live.tokenizer.chat_template == load(resolve(base), dtype="float32", device="cpu").tokenizer.chat_template


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_rows_from_a_donor_and_from_text(family, tiny, tmp_path):
    base, text = tiny(family), [t for t in TEXT if "1" not in t]
    new, donor = extended(base, tmp_path / "t", text=text), tmp_path / "donor"
    run_step(STEP, Init(model=str(tiny("llama", seed=3)), tokenizer=str(new), method=("hewitt",)), donor)
    (tmp_path / "ru.txt").write_text("\n".join(text * 12))
    run_step(STEP, Init(model=str(base), tokenizer=str(new), method=("omp",), donor=str(donor), k=8), tmp_path / "omp")
    run_step(STEP, Init(model=str(base), tokenizer=str(new), method=("focus",), corpus={"ru": str(tmp_path / "ru.txt")}), tmp_path / "focus")
    for method in ("omp", "focus"):
        said = json.loads((tmp_path / method / "init.json").read_text())
        made = Checkpoint.open(tmp_path / method)
        key = next(k for k in made.tensors if k.endswith("embed_tokens.weight"))
        assert np.isfinite(made.f32(key)).all() and said["tied"] is (family == "gemma2")
        assert list(said["sides"]) == (["in"] if said["tied"] else ["in", "out"])
    assert json.loads((tmp_path / "omp" / "init.json").read_text())["sides"]["in"]["tokens of the donor"] == said["origins"]["pieces"]
    assert said["sides"]["in"]["tokens with a vector"] + said["sides"]["in"]["mean of pieces instead"] == said["origins"]["pieces"]


def test_what_is_written_beside_the_model(tiny, tmp_path):
    base = tiny("llama")
    made = tmp_path / "made"
    result = run_step(STEP, Init(model=str(base), tokenizer=str(extended(base, tmp_path / "t", specials=("<new>",)))), made)
    said = json.loads((made / "init.json").read_text())
    lines = [json.loads(x) for x in gzip.decompress((made / "decompositions.jsonl.gz").read_bytes()).decode().splitlines()]
    assert said["origins"]["pieces"] == len(lines) - 1 and said["mean of old rows"] == 1 and said["method"] == "composed"
    assert {x["id"] for x in lines} == {i for i, c in enumerate(Vocabulary.open(made).contents) if i >= 260}
    one = next(x for x in lines if x["text"] == "ко" or len(x.get("in", ())) == 2)
    assert sum(w for _, w in one["in"]) == pytest.approx(1, abs=1e-5) and set(one) == {"id", "token", "text", "in", "out"}
    assert "bit for bit" in result.summary[0]
    planned = plan_step(STEP, Init(model=str(base), tokenizer=str(tmp_path / "t"))).plan
    size = (made / "model.safetensors").stat().st_size
    assert abs(planned.disk_bytes - size) < 0.05 * size


def test_tied_tables_that_are_stored_twice_stay_equal(tiny, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(tiny("cohere"), base)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    made = tmp_path / "made"
    run_step(STEP, Init(model=str(base), tokenizer=str(extended(base, tmp_path / "t"))), made)
    after = Checkpoint.open(made)
    assert after.read("lm_head.weight") == after.read("model.embed_tokens.weight")


@pytest.mark.parametrize(("words", "expected"), [
    ({"method": ("omp",)}, "`omp` needs `donor`"),
    ({"method": ("focus",)}, "need `corpus`"),
    ({"method": ("mean", "random")}, "several methods need `probe`"),
    ({"method": ("mean", "mean")}, "names one twice"),
    ({"k": 3}, "`k` would do nothing"),
    ({"weights": "first"}, "`weights` would do nothing"),
    ({"corpus": {"ru": "x.txt"}}, "`corpus` would do nothing"),
    ({"probe_lr": 0.1}, "`probe_lr` would do nothing"),
])  # fmt: skip
def test_what_would_do_nothing_is_refused(words, expected):
    with pytest.raises(ValueError, match=expected):
        Init(model="m", tokenizer="t", **words)


def test_omp_refuses_another_digit_scheme(tiny, tmp_path):
    base = tiny("llama")
    other = extended(base, tmp_path / "t", text=["123 456 123 456 123"] * 30)
    planned = plan_step(STEP, Init(model=str(base), tokenizer=str(other), method=("omp",), donor=str(base)))
    assert any("cuts numbers otherwise" in str(e) and "one digit a token" in str(e) for e in planned.errors)
    with pytest.raises(InputError, match="cuts numbers otherwise"):
        run_step(STEP, Init(model=str(base), tokenizer=str(other), method=("omp",), donor=str(base)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "numbers are cut otherwise" in plan_step(STEP, Init(model=str(base), tokenizer=str(other))).plan.notes[0]


# ------------------------------------------------------------------------------------------------------------------- trials


def russian(tmp_path):
    path = tmp_path / "ru.txt"
    path.write_text("\n".join(f"кошка {i} сидела на окне и смотрела на собаку" for i in range(60)))
    return path


def test_methods_are_tried_and_the_best_is_kept(tiny, tmp_path):
    base, made = tiny("llama"), tmp_path / "made"
    config = Init(model=str(base), tokenizer=str(extended(base, tmp_path / "t")), method=("composed", "random"), probe=2,
                  corpus={"ru": str(russian(tmp_path))}, probe_batch=2, probe_length=32, probe_seeds=2, device="cpu")
    result = run_step(STEP, config, made)
    found = json.loads((made / "init.json").read_text())["probe"]
    after = {name: x["after"] for name, x in found["bits per byte"].items()}
    assert found["best"] == min(after, key=after.get) == json.loads((made / "init.json").read_text())["method"]
    best = probe_table(result).rows[0]
    assert best[0] == found["best"] and best[2].value == pytest.approx(after[found["best"]]) and best[2].low < best[2].high
    alone = tmp_path / "alone"
    run_step(STEP, Init(model=str(base), tokenizer=str(tmp_path / "t"), method=(found["best"],)), alone)
    assert Checkpoint.open(alone).read("lm_head.weight") == Checkpoint.open(made).read("lm_head.weight")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "made", "ru.txt", "t"]


@pytest.mark.parametrize("more", [[], ["--plan"]])
def test_probe_is_a_number_of_steps_on_the_command_line(tiny, tmp_path, more):
    """Other verbs have a flag of that name, which measures for a plan."""
    base = tiny("llama")
    words = [str(base), "--tokenizer", str(extended(base, tmp_path / "t")), "--method", "composed,random", "--probe", "2", "--corpus",
             f"ru={russian(tmp_path)}", "--probe-batch", "2", "--probe-length", "32", "--out", str(tmp_path / "made"), *more]
    assert cli.run(["vocab", "init", *words]) == 0
    assert more or json.loads((tmp_path / "made" / "init.json").read_text())["probe"]["steps"] == 2


def test_a_trial_that_was_finished_is_not_done_again(tiny, tmp_path, monkeypatch):
    from polygraft.vocab.init import steps

    base, done = tiny("llama"), []

    def pretrain(model, train, judges, *, seed, steps, **more):
        done.append((model.name, seed))
        if len(done) == 2:
            raise KeyboardInterrupt
        nats = {0: np.array([3.0, 4.0]), steps: np.array([2.0, 1.0 + len(done)])}
        return SimpleNamespace(losses=(1.0, 0.5), nats=nats, bytes=np.array([5, 6]), tokens=9)

    config = Init(model=str(base), tokenizer=str(extended(base, tmp_path / "t")), method=("composed", "mean"), probe=2,
                  corpus={"ru": str(russian(tmp_path))}, probe_texts=2, device="cpu")
    step = steps.init_step(SimpleNamespace(pretrain=pretrain))
    with pytest.raises(KeyboardInterrupt):
        run_step(step, config, tmp_path / "made")
    result = run_step(step, config, tmp_path / "made")
    assert len(done) == 3  # composed, mean cut off, mean again
    assert json.loads((tmp_path / "made" / "init.json").read_text())["probe"]["best"] == "composed"
    found = {row[0]: row for row in probe_table(result).rows}
    assert found["composed"][2].value == pytest.approx(4 / (np.log(2) * 11))
    assert found["mean"][3].value == pytest.approx(2 / (np.log(2) * 11))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "ru.txt", "t"]


def probe_table(result):
    return next(t for t in result.tables if t.title == "Methods tried")


def test_texts_that_judge_are_never_trained_on(tmp_path):
    from polygraft.data import open_corpus
    from polygraft.vocab.init.probe import PER_TOKEN, split

    path = tmp_path / "t.txt"
    path.write_text("\n".join(f"document {i}" for i in range(95)))
    train, judges = split([open_corpus("en", path)], 10_000, 6)
    assert len(train) == 86 and judges == [f"document {i}" for i in range(9, 69, 10)] and not set(train) & set(judges)
    assert sum(map(len, split([open_corpus("en", path)], 10, 6)[0])) < PER_TOKEN * 10 + 12


def test_too_little_text_to_try_on_is_refused(tiny, tmp_path):
    base, path = tiny("llama"), tmp_path / "few.txt"
    path.write_text("раз\nдва\n")
    config = Init(model=str(base), tokenizer=str(extended(base, tmp_path / "t")), probe=2, corpus={"ru": str(path)}, device="cpu")
    with pytest.raises((InputError, RecipeError), match="too few documents"):
        run_step(STEP, config, tmp_path / "made")
    assert not (tmp_path / "made").exists()
