"""Masks: equal to the published algorithms given the same statistics, exact counts, ties, protection, and what has to survive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as tinymodels
from oracle import pruning_oracle as oracle
from polygraft.errors import InputError, RecipeError
from polygraft.prune.engine import Overlay, Work, prune
from polygraft.prune.masks import METHODS, Options
from polygraft.prune.masks.allocation import across, outliers, owl, spared
from polygraft.prune.masks.pattern import Pattern, chosen
from polygraft.prune.masks.scores import magnitude, ria, wanda, wanda_variant
from polygraft.prune.masks.sparsegpt import inverse_factor, sparsegpt
from polygraft.prune.masks.swaps import refined, swapped
from polygraft.prune.statistics import Moments
from polygraft.sources import resolve

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 40))
SPARSITIES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]))
quick = settings(deadline=None, max_examples=40)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def read(width, tokens=300, seed=0, mixed=True):
    """Moments of correlated inputs, with products as float64 so that the oracle sees the same numbers."""
    x = normal(tokens, width, seed=seed, dtype=torch.float64)
    x = x @ normal(width, width, seed=seed + 1, dtype=torch.float64) if mixed else x
    gram = (x.T @ x).numpy()
    return Moments(float(tokens), np.diag(gram).copy(), gram)


def make(name, pattern, swaps=0, **options):
    """The method of that name, refined where swaps are asked for."""
    method = METHODS[name][0](pattern, Options(**options))
    return refined(method, pattern, swaps, Options(**options).protected) if swaps else method


def gone(pruned):
    return ~pruned.keep.numpy()


# ------------------------------------------------------------------------------------------------------------------ selection


@quick
@given(SHAPES, SPARSITIES, st.integers(0, 9))
def test_rows_lose_as_many_as_published_and_ties_go_by_the_lowest_index(shape, sparsity, seed):
    score = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, shape).astype(np.float32))  # mass ties
    np.testing.assert_array_equal(~chosen(score, Pattern.of(sparsity)).numpy(), oracle.rows(score.numpy(), sparsity))
    np.testing.assert_array_equal(~chosen(score, Pattern.of(sparsity), group="matrix").numpy(), oracle.whole(score.numpy(), sparsity))


@quick
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.data())
def test_n_of_m_are_kept(rows, groups, m, data):
    n = data.draw(st.integers(1, m))
    score = torch.from_numpy(np.random.default_rng(n).integers(0, 4, (rows, groups * m)).astype(np.float32))
    keep = chosen(score, Pattern.of(text=f"{n}:{m}"))
    assert (keep.reshape(-1, m).sum(1) == n).all()
    np.testing.assert_array_equal(~keep.numpy(), oracle.groups(score.numpy(), n, m))


@quick
@given(SHAPES, st.floats(0, 1), st.floats(0, 1), st.integers(0, 9), st.sampled_from(["row", "matrix"]))
def test_protected_weights_stay_and_the_others_make_up_for_them(shape, sparsity, share, seed, group):
    score, protected = normal(*shape, seed=seed), torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    plain, kept = chosen(score, Pattern.of(sparsity), None, group), chosen(score, Pattern.of(sparsity), protected, group)
    assert kept[protected].all()
    assert (~kept).sum() == min(int((~plain).sum()), int((~protected).sum()))
    exact = chosen(score, Pattern.of(sparsity).at(sparsity, exact=True), protected, group)
    assert exact[protected].all() and (~exact).sum() == min(round(score.numel() * sparsity), int((~protected).sum()))


def test_rows_give_up_in_proportion_to_what_is_free_in_them():
    protected = torch.zeros(3, 8, dtype=torch.bool)
    protected[0], protected[1, :4] = True, True
    keep = chosen(normal(3, 8), Pattern.of(0.25), protected)
    assert (~keep).sum(1).tolist() == [0, 2, 4]


def test_a_group_with_more_protected_than_kept_keeps_them():
    keep = chosen(torch.arange(8.0)[None], Pattern.of(text="2:4"), torch.tensor([[True, True, True, False] + [False] * 4]))
    assert keep.tolist() == [[True, True, True, False, False, False, True, True]]


@pytest.mark.parametrize(("sparsity", "text"), [(None, None), (1.1, None), (-0.1, None), (float("nan"), None), (0.5, "1:4"), (None, "5:4"),
                                               (None, "0:4"), (None, "2/4"), (None, "-2:4")])  # fmt: skip
def test_what_is_no_pattern_is_refused(sparsity, text):
    with pytest.raises(RecipeError, match="expected"):
        Pattern.of(sparsity, text)


def test_widths_that_do_not_divide_and_sparsities_that_n_m_fixes_are_refused():
    with pytest.raises(InputError, match="a multiple of 4"):
        make("wanda", Pattern.of(text="2:4"))({"w": normal(3, 6)}, read(6))
    with pytest.raises(RecipeError, match="N:M fixes"):
        make("wanda", Pattern.of(text="2:4"), by_key={"w": 0.3})({"w": normal(3, 8)}, read(8))


# --------------------------------------------------------------------------------------------------------------------- scores


@quick
@given(SHAPES, st.floats(0, 1), st.integers(0, 50))
def test_magnitude_wanda_and_ria_are_the_published_masks(shape, sparsity, seed):
    w, stats = normal(*shape, seed=seed), read(shape[1], seed=seed)
    a, p = w.double().numpy(), Pattern.of(sparsity)
    np.testing.assert_array_equal(gone(magnitude(w, stats, p)), oracle.whole(np.abs(a), sparsity))
    np.testing.assert_array_equal(gone(wanda(w, stats, p)), oracle.rows(oracle.wanda(a, stats.squares, stats.tokens), sparsity))
    np.testing.assert_array_equal(gone(ria(w, stats, p)), oracle.whole(oracle.ria(a, stats.squares, stats.tokens), sparsity))


def test_the_threshold_weight_that_published_magnitude_takes_too_is_the_only_difference():
    w, score = normal(7, 11), np.abs(normal(7, 11).numpy())
    published = score <= np.sort(score.flatten())[int(score.size * 0.5)]
    ours = gone(magnitude(w, None, Pattern.of(0.5)))
    assert (ours <= published).all() and published.sum() == ours.sum() + 1 == 39


@quick
@given(SHAPES, st.floats(0.01, 0.8), st.integers(0, 20))
def test_the_variant_is_the_one_of_the_alpha_that_gives_the_count(shape, alpha, seed):
    w, stats = normal(*shape, seed=seed), read(shape[1], seed=seed)
    expected = oracle.variant(oracle.wanda(w.double().numpy(), stats.squares, stats.tokens), alpha)
    pattern = Pattern.of(expected.sum() / expected.size).at(expected.sum() / expected.size, exact=True)
    np.testing.assert_array_equal(gone(wanda_variant(w, stats, pattern)), expected)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_nobody_reads_goes_first_and_an_input_that_is_loud_stays(name):
    x = normal(200, 16, seed=3)
    x[:, 4:8] = 0
    x[:, 12] *= 1000
    stats = Moments.empty(16, True)
    stats.add(x)
    w = 1 + 0.1 * normal(6, 16, seed=4)
    keep = make(name, Pattern.of(0.5))({"w": w}, stats)["w"].keep
    if name != "magnitude":
        assert keep[:, 12].all() and not keep[:, 4:8].any()
    assert (~keep).sum() == 48


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_without_a_token_magnitude_decides_and_a_note_says_so(name, sparsity):
    w, stats = normal(4, 8), Moments.empty(8, True)
    found = make(name, Pattern.of(sparsity), 0 if name == "sparsegpt" else 5)({"w": w}, stats)["w"]
    assert (~found.keep).sum() == 32 * sparsity
    assert found.values is None and ("no token reached it" in found.note) == (name != "magnitude")
    if sparsity == 0.5:
        assert w.abs()[~found.keep].mean() < w.abs()[found.keep].mean()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_columns_and_rows_of_zeros_and_one_sized_matrices(name):
    w = normal(5, 12)
    w[2], w[:, 3] = 0, 0
    stats = read(12)
    for p, count in ((Pattern.of(0.5), 30), (Pattern.of(0.0), 0), (Pattern.of(1.0), 60), (Pattern.of(text="1:4"), 45)):
        found = make(name, p)({"w": w}, stats)["w"]
        assert (~found.keep).sum() == count
        assert found.values is None or (torch.isfinite(found.values).all() and (found.values[~found.keep] == 0).all())
    for p in (Pattern.of(0.5), Pattern.of(1.0)):
        assert int((~make(name, p)({"w": normal(1, 1)}, read(1))["w"].keep).sum()) == int(p.sparsity)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_more_of_the_same_text_changes_nothing_and_so_does_the_loudness_of_all(name):
    w, stats = normal(9, 24), read(24)
    method = make(name, Pattern.of(0.5))
    loud = Moments(stats.tokens, stats.squares * 16, stats.gram * 16)
    plain = method({"w": w}, stats)["w"].keep
    assert torch.equal(plain, method({"w": w}, stats.scaled(8))["w"].keep)
    assert torch.equal(plain, method({"w": w}, loud)["w"].keep)


@pytest.mark.parametrize("name", ["magnitude", "wanda", "ria"])
def test_what_goes_at_a_lower_sparsity_goes_at_a_higher_one(name):
    w, stats = normal(9, 24), read(24)
    masks = [make(name, Pattern.of(s))({"w": w}, stats)["w"].keep for s in (0.2, 0.5, 0.8)]
    assert (masks[2] <= masks[1]).all() and (masks[1] <= masks[0]).all()


# ------------------------------------------------------------------------------------------------------------------ sparsegpt


def unstructured(sparsity):
    return lambda score, i, start: oracle.whole(score, sparsity) if i == start else None


def neighbours(n, m):
    return lambda score, i, _start: oracle.groups(score[:, :m], n, m) if i % m == 0 else None


@pytest.mark.parametrize("block", [128, 7, 16])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_sparsegpt_is_the_published_algorithm(block, sparsity):
    w, stats = normal(11, 40, dtype=torch.float64), read(40)
    found = sparsegpt({"w": w}, stats, {"w": Pattern.of(sparsity)}, {"w": None}, block=block)["w"]
    mask, values = oracle.sparsegpt(w.numpy(), stats.gram / 300, unstructured(sparsity), block=block)
    np.testing.assert_array_equal(gone(found), mask)
    np.testing.assert_allclose(found.values.numpy(), values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 3), (2, 20), (4, 4)])
@pytest.mark.parametrize("block", [128, 10])
def test_sparsegpt_n_m_is_the_published_algorithm_whatever_the_block(n, m, block):
    width = 60 if m in (3, 4, 20) else 64
    w, stats = normal(6, width, dtype=torch.float64), read(width)
    found = sparsegpt({"w": w}, stats, {"w": Pattern.of(text=f"{n}:{m}")}, {"w": None}, block=block)["w"]
    mask, values = oracle.sparsegpt(w.numpy(), stats.gram / 300, neighbours(n, m), block=width)
    np.testing.assert_array_equal(gone(found), mask)
    np.testing.assert_allclose(found.values.numpy(), values, rtol=1e-9, atol=1e-9)


def test_the_squared_diagonal_is_that_of_the_inverse_of_what_is_left():
    stats = read(24)
    u = inverse_factor(torch.from_numpy(stats.gram), 0.01).numpy()
    h = stats.gram + 0.01 * np.diag(stats.gram).mean() * np.eye(24)
    np.testing.assert_allclose(u.T @ u, np.linalg.inv(h), rtol=1e-8, atol=1e-12)
    for i in range(24):
        assert u[i, i] ** 2 == pytest.approx(np.linalg.inv(h[i:, i:])[0, 0], rel=1e-9)
    wrong = np.diag(np.linalg.inv(h))  # what the issue asked for
    assert (np.diag(u) ** 2 <= wrong * (1 + 1e-9)).all() and (wrong / np.diag(u) ** 2).max() > 1.1


def test_a_site_solved_together_is_each_matrix_alone():
    ws = {k: normal(n, 40, seed=n, dtype=torch.float64) for k, n in (("q", 12), ("k", 4), ("v", 5))}
    stats, patterns = read(40), {"q": Pattern.of(0.5), "k": Pattern.of(0.2), "v": Pattern.of(0.8)}
    both = sparsegpt(ws, stats, patterns, dict.fromkeys(ws), block=16)
    for key, w in ws.items():
        alone = sparsegpt({key: w}, stats, patterns, {key: None}, block=16)[key]
        assert torch.equal(alone.keep, both[key].keep)
        np.testing.assert_allclose(alone.values, both[key].values, atol=1e-12)


def test_what_another_input_says_as_well_costs_nothing():
    """Inputs come in equal pairs: half of the weights can go without any loss, and SparseGPT finds it, Wanda does not."""
    x = normal(400, 16).repeat_interleave(2, 1)
    stats = Moments.empty(32, True)
    stats.add(x)
    w, gram = normal(8, 32, seed=5), (x.T @ x).double()
    lost = {}
    for name in ("sparsegpt", "wanda"):
        found = make(name, Pattern.of(text="1:2"), damping=1e-4)({"w": w}, stats)["w"]
        d = (w - (w if found.values is None else found.values) * found.keep).double()
        lost[name] = float(((d @ gram) * d).sum() / ((w.double() @ gram) * w.double()).sum())
    assert lost["sparsegpt"] < 1e-4 and lost["wanda"] > 0.05


def test_protected_weights_keep_their_value_and_others_make_up_for_it():
    w, stats = normal(10, 48), read(48)
    protected = torch.rand(10, 48, generator=torch.Generator().manual_seed(1)) < 0.3
    protected[3] = True
    for text in (None, "2:4"):
        pattern = Pattern.of(None if text else 0.5, text)
        found = sparsegpt({"w": w}, stats, {"w": pattern}, {"w": protected}, block=16)["w"]
        assert found.keep[protected].all() and torch.equal(found.values[protected], w[protected])
        assert text or (~found.keep).sum() == 240
        d, g = (w - found.values).double(), torch.from_numpy(stats.gram)
        frozen = torch.where(protected, w, w * found.keep)
        f = (w - frozen).double()
        assert ((d @ g) * d).sum() < ((f @ g) * f).sum()


@pytest.mark.parametrize(("low", "note"), [(0.0, ""), (-0.05, "needed 0.1 damping"), (-0.5, "needed 1 damping"), (-3.0, "by wanda")])
def test_the_damping_ladder_and_then_wanda_never_the_identity(low, note):
    stats = read(12, mixed=False)
    values, vectors = np.linalg.eigh(stats.gram)
    values[0] = low * values.mean()
    gram = (vectors * values) @ vectors.T
    bad, w = Moments(stats.tokens, np.abs(np.diag(gram)), gram.astype(np.float32)), normal(6, 12)
    found = sparsegpt({"w": w}, bad, {"w": Pattern.of(0.5)}, {"w": None})["w"]
    assert note in found.note and bool(found.note) == bool(note)
    assert (~found.keep).sum() == 36
    if note == "by wanda":
        np.testing.assert_array_equal(gone(found), gone(wanda(w, bad, Pattern.of(0.5))))


def test_more_unread_inputs_than_may_go_keep_their_weights():
    x = normal(100, 16)
    x[:, :12] = 0
    stats = Moments.empty(16, True)
    stats.add(x)
    w = normal(4, 16)
    found = make("sparsegpt", Pattern.of(0.5))({"w": w}, stats)["w"]
    assert (~found.keep).sum() == 32 and found.keep[:, 12:].all()
    unread = found.keep[:, :12]
    assert torch.equal(found.values[:, :12][unread], w[:, :12][unread])


# ---------------------------------------------------------------------------------------------------------------------- swaps


@pytest.mark.parametrize("m", [0, 4])
@pytest.mark.parametrize("swaps", [1, 3, 50])
def test_swaps_are_the_best_ones_one_after_another(m, swaps):
    w, stats = normal(5, 16, dtype=torch.float64), read(16)
    start = wanda(w.float(), stats, Pattern.of(text="2:4") if m else Pattern.of(0.5)).keep
    found = ~swapped(w, start, torch.from_numpy(stats.gram), swaps, m).numpy()
    for i in range(5):
        expected = ~start.numpy()[i]
        for _ in range(swaps):
            new, gain = oracle.one_swap(w.numpy()[i], expected, stats.gram, m)
            if gain <= 1e-6 * oracle.error(w.numpy()[i][None], expected[None], stats.gram)[0]:
                break
            expected = new
        np.testing.assert_array_equal(found[i], expected)


@quick
@given(st.integers(1, 8), st.integers(1, 6), st.floats(0, 1), st.integers(0, 20), st.booleans())
def test_swaps_never_raise_the_error_and_keep_counts_groups_and_what_is_protected(rows, groups, sparsity, seed, grouped):
    w, stats = normal(rows, 4 * groups, seed=seed), read(4 * groups, seed=seed)
    protected = torch.rand(w.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    pattern = Pattern.of(text="2:4") if grouped else Pattern.of(sparsity)
    before = chosen(w.abs(), pattern, protected)
    gram = torch.from_numpy(stats.gram.astype(np.float32))
    after = swapped(w, before, gram, 20, pattern.m, protected)
    assert after[protected].all() and torch.equal(before.sum(1), after.sum(1))
    if grouped:
        assert torch.equal(before.reshape(-1, 4).sum(1), after.reshape(-1, 4).sum(1))
    a, b = (oracle.error(w.double().numpy(), ~k.numpy(), stats.gram) for k in (before, after))
    assert (b <= a * (1 + 1e-4) + 1e-6).all()


def test_of_two_inputs_that_say_the_same_swaps_keep_one():
    """Weights 1 and -1 on equal inputs cancel: taking both is free, and Wanda takes the two small ones in their place."""
    x = normal(300, 4)
    x[:, 1] = x[:, 0]
    gram, w = x.T @ x, torch.tensor([[1.0, -1.0, 0.5, 0.5]])
    start = torch.tensor([[True, True, False, False]])
    assert swapped(w, start, gram, 10).tolist() == [[True, True, False, False]]  # no single swap helps: a local optimum, as published
    w = torch.tensor([[1.0, 1.0, 0.9, 0.9]])
    start = torch.tensor([[False, False, True, True]])  # both of the pair gone: their errors add up to four times one's
    assert int(swapped(w, start, gram, 10)[0, :2].sum()) == 1


def test_a_short_list_finds_nearly_what_all_pairs_do():
    w, stats = normal(16, 160), read(160, tokens=400)
    start, gram = wanda(w, stats, Pattern.of(0.5)).keep, torch.from_numpy(stats.gram.astype(np.float32))
    lost = [oracle.error(w.double().numpy(), ~swapped(w, start, gram, 40, short=n).numpy(), stats.gram).sum() for n in (32, 160)]
    before = oracle.error(w.double().numpy(), gone(wanda(w, stats, Pattern.of(0.5))), stats.gram).sum()
    assert lost[1] < 0.7 * before and lost[0] < 1.1 * lost[1]


# ----------------------------------------------------------------------------------------------------------------- allocation


@quick
@given(st.lists(st.floats(0, 20), min_size=2, max_size=12).filter(lambda r: max(r) - min(r) > 1e-6), st.floats(0.2, 0.8))
def test_owl_is_the_authors_where_layers_are_equal(ratios, sparsity):
    found = owl(np.array(ratios), np.ones(len(ratios)), sparsity)
    np.testing.assert_allclose(found, oracle.owl(np.array(ratios), sparsity, 0.08), atol=1e-12)
    assert np.ptp(found) == pytest.approx(0.16)


@quick
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 1000)), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 0.5))
def test_layers_together_are_as_sparse_as_asked_and_none_is_beyond_all_or_nothing(layers, sparsity, spread):
    ratios, sizes = np.array([r for r, _ in layers]), np.array([n for _, n in layers])
    found = owl(ratios, sizes, sparsity, spread)
    assert found @ sizes / sizes.sum() == pytest.approx(sparsity, abs=1e-9)
    assert found.min() >= 0 and found.max() <= 1
    order = np.argsort(ratios)
    assert (np.diff(found[order]) <= 1e-12).all()  # more outliers, not sparser


def test_outliers_are_counted_over_a_layer_s_matrices_together():
    stats = {"a": Moments(1.0, np.ones(4)), "b": Moments(1.0, np.array([1.0, 1, 1, 400])), "c": Moments.empty(4, False)}
    ws = {"a": torch.ones(2, 4), "b": torch.ones(2, 4), "c": torch.full((9, 4), 1e9)}
    assert outliers(ws, stats) == pytest.approx(100 * 2 / 16)  # 20 against a mean of 54 / 16; c is read by nobody
    assert outliers({"a": ws["a"]}, stats) == 0 and outliers({"c": ws["c"]}, stats) == 0


def test_a_layer_that_one_language_needs_is_kept_for_it_when_the_worst_counts():
    sizes = np.ones(4)
    ratios = {"en": np.array([9.0, 1, 1, 1]), "de": np.array([9.0, 1, 1, 1]), "sw": np.array([0.1, 0.1, 0.1, 0.3])}
    mean, worst = across(ratios, sizes, 0.5), across(ratios, sizes, 0.5, worst=True)
    assert mean[0] < mean[3] < mean[1] == mean[2]
    assert worst[0] == pytest.approx(worst[3]) and worst[3] < worst[1] and worst[3] < mean[3]
    np.testing.assert_allclose(across({"en": ratios["en"]}, sizes, 0.5), owl(ratios["en"], sizes, 0.5))
    np.testing.assert_allclose(across({"en": np.ones(4)}, sizes, 0.3), 0.3)


@quick
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30), st.floats(0, 1)), min_size=1, max_size=5), st.floats(0, 1))
def test_with_protected_weights_as_many_go_in_all(matrices, sparsity):
    g = torch.Generator().manual_seed(1)
    protected = {str(i): torch.rand(rows, width, generator=g) < share for i, (rows, width, share) in enumerate(matrices)}
    sizes, counts = {k: p.numel() for k, p in protected.items()}, {k: int(p.sum()) for k, p in protected.items()}
    if sparsity * sum(sizes.values()) > sum(sizes.values()) - sum(counts.values()):
        with pytest.raises(RecipeError, match="too much is protected"):
            spared(sizes, counts, sparsity)
        return
    by_key = spared(sizes, counts, sparsity)
    method = make("wanda", Pattern.of(sparsity), by_key=by_key, protected=protected.get)
    found = {k: method({k: normal(*p.shape)}, read(p.shape[1]))[k].keep for k, p in protected.items()}
    assert all(found[k][p].all() for k, p in protected.items())
    assert abs(sum(int((~k).sum()) for k in found.values()) - sparsity * sum(sizes.values())) <= len(sizes) / 2 + 1e-6


def test_a_spread_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="spread of sparsities"):
        owl(np.ones(3), np.ones(3), 0.5, 0.6)


# ------------------------------------------------------------------------------------------------------------ in every family


KINDS = [(f, "sparsegpt", 0, "2:4") for f in tinymodels.FAMILIES]
KINDS += [(f, *kind) for f in ("llama", "gpt2", "mixtral")
          for kind in (("sparsegpt", 0, None), ("ria", 3, None), ("wanda-variant", 0, None))]  # fmt: skip


@pytest.mark.parametrize(("family", "name", "swaps", "pattern"), KINDS)
def test_every_family_is_pruned_by_every_kind_of_method(tiny, tmp_path, family, name, swaps, pattern):
    method = make(name, Pattern.of(None if pattern else 0.5, pattern), swaps)
    g = torch.Generator().manual_seed(0)
    batches = [{"input_ids": torch.randint(4, 260, (2, 16), generator=g)} for _ in range(2)]
    work = Work(resolve(str(tiny(family))), batches, [torch.ones(2, 16)] * 2, method, bool(swaps) or METHODS[name][1], "float32")
    done = prune(work, tmp_path)
    after = Overlay(work.source.weights, tmp_path, 2)
    for key, module in done.items():
        values = np.frombuffer(after.read(key), np.float32)
        assert np.isfinite(values).all() and not module.note
        assert (values == 0).sum() == module.zeros == module.size // 2
