"""Subspaces of languages against their formulas, on planted directions, and the logit lens on every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as make
from oracle import lsar_oracle as oracle
from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis import groups
from polygraft.analysis.subspace import angles, energy, lens, lsar, separate, tables, words
from polygraft.analysis.subspace.found import as_arrays, find
from polygraft.cli import show
from polygraft.errors import InputError, RecipeError
from polygraft.result import Result

LANGUAGES = ("en", "sw", "th", "de")


def grouped(items, tokens=7.0, paired=True) -> groups.Groups:
    return groups.Groups(tuple(x * tokens for x in items), tuple(np.full(len(x), tokens) for x in items), paired)


def reading(folder: Path, items: np.ndarray, *, parallel=True, tokens=10) -> Activity:
    """A reading whose groups have the mean states `items` [K, G, depths, D]."""
    count, g, depths, width = items.shape
    facts = {n: {"tokens": g * tokens, "documents": g, "groups": g, "digest": "", "path": ""} for n in LANGUAGES[:count]}
    made = Activity(folder, facts, depths - 1, (1,) * (depths - 1), width, parallel=parallel)
    for x, name in zip(items, facts):
        sums = (x * tokens).astype(np.float32)
        arrays.write(made.path(name), {"group.tokens": np.full(g, tokens), "group.residual": sums, "residual": sums.sum(0, dtype=np.float64),
                                       "square.residual": ((x**2).sum(-1) + 1).sum(0) * tokens})
    made.save()
    return made


def planted(count=4, g=12, depths=4, width=24, noise=0.3, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Items whose languages differ along orthonormal directions at depths 2 and 3 only, over shared content: (items, directions)."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0].T
    content = rng.normal(size=(1, g, depths, 6)) @ axes[10:16]
    items = 5 * axes[20] + content + noise * rng.normal(size=(count, g, depths, width))
    for k in range(count):
        items[k, :, 2:] += 6 * axes[k]
    return items, axes[:count]


# ---------------------------------------------------------------------------------------------------------------- formulas


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(3, 30), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 30.0]))
def test_lsar_is_the_published_pinv_step_and_mu_is_orthogonal(count, width, seed, offset):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(width, count)) + offset * rng.normal(size=(width, 1))
    rank = int(rng.integers(1, min(count - 1, width - 1) + 1))
    found = lsar.lsar(means, rank)
    mu, basis = oracle.lsar(means, rank)
    np.testing.assert_allclose(found.mu, mu, atol=1e-6 * np.linalg.norm(means))
    np.testing.assert_allclose(found.basis @ found.basis.T, basis @ basis.T, atol=1e-6)
    np.testing.assert_allclose(found.mu @ found.basis, 0, atol=1e-9 * np.linalg.norm(means))
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(rank), atol=1e-9)


def test_the_mean_alone_is_not_orthogonal_so_the_step_matters():
    means = np.random.default_rng(0).normal(size=(20, 5)) + 3
    found = lsar.lsar(means)
    assert np.abs(means.mean(1) @ found.basis).max() > 0.1 > 1e-9 > np.abs(found.mu @ found.basis).max()
    rest = means - found.mu[:, None]
    np.testing.assert_allclose(found.basis @ found.basis.T @ rest, rest, atol=1e-9)  # at full rank nothing is left over


def test_fewer_dimensions_than_languages_and_a_hull_through_the_origin():
    assert lsar.lsar(np.random.default_rng(0).normal(size=(3, 7))).rank == 2
    through = np.array([[1.0, -1.0, 0.0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])[:, :2]  # the origin lies between the two
    found = lsar.lsar(through)
    assert found.rank == 1 and np.allclose(found.mu, 0) and np.allclose(np.abs(found.basis[:, 0]), [1, 0, 0, 0])


def test_equal_means_have_an_empty_subspace_and_impossible_ranks_are_refused():
    assert lsar.lsar(np.ones((6, 3))).basis.shape == (6, 0) and lsar.lsar(np.zeros((6, 3))).rank == 0
    for rank in (0, 3, -1):
        with pytest.raises(RecipeError, match="no subspace of this rank"):
            lsar.lsar(np.eye(6)[:, :3], rank)


@pytest.mark.parametrize("count, width, rank", [(3, 12, 2), (5, 20, 3), (2, 6, 1)])
def test_energies_are_those_written_out(count, width, rank):
    rng = np.random.default_rng(count)
    items = [rng.normal(size=(9, width)) + 3 * rng.normal(size=width) + 5 for _ in range(count)]
    found = energy.energy(grouped(items), rank, 30, 0)
    a = oracle.energies([x[0::2] for x in items], [x[1::2] for x in items], rank)
    b = oracle.energies([x[1::2] for x in items], [x[0::2] for x in items], rank)
    np.testing.assert_allclose(found.specific, (np.array(a[0]) + b[0]) / 2, rtol=1e-9)
    np.testing.assert_allclose([found.language, found.content], [(a[1] + b[1]) / 2, (a[2] + b[2]) / 2], rtol=1e-9)
    assert found.chance == rank / width and found.specific_draws.shape == (30, count)


def test_bootstrap_samples_are_the_statistic_of_repeated_groups():
    rng = np.random.default_rng(1)
    fit, held = (grouped([rng.normal(size=(5, 8)) + 2 * k for k in range(3)]) for _ in range(2))
    drawn, weights = fit.draws(30, 3), held.draws(30, 7)
    many = energy._resampled(fit, drawn, held, weights, 2)
    for n in (0, 13, 29):
        a, b = (grouped([np.repeat(x, w[n].astype(int), axis=0) for x, w in zip(g.items, ws)]) for g, ws in ((fit, drawn), (held, weights)))
        one = energy._measured(lsar.lsar(a.means, 2).basis.T[None], b, [np.ones((1, 5))] * 3)
        for x, y in zip(many, one):
            np.testing.assert_allclose(x[n], y[0], rtol=1e-6)
    assert all((w == weights[0]).all() for w in weights)  # parallel text is drawn together
    assert not (grouped(held.items, paired=False).draws(30, 7)[1] == weights[0]).all()


def test_intervals_hold_what_they_say():
    """Truth is the mean over many worlds; a coverage of 95 % is seen between 85 and 100 % of 60 of them."""
    rng, means, seen = np.random.default_rng(0), np.random.default_rng(5).normal(size=(3, 12)), []
    for world in range(60):
        content = 1.5 * rng.normal(size=(24, 12)) * (np.arange(12) < 4)
        e = energy.energy(grouped([m + content + 1.5 * rng.normal(size=(24, 12)) for m in means]), None, 100, world)
        pairs = ((e.specific.mean(), e.specific_draws.mean(1)), (e.language, e.language_draws), (e.content, e.content_draws))
        seen.append([(value, *groups.centred(value, draws, 12)) for value, draws in pairs])
    value, low, high = np.moveaxis(np.array(seen), -1, 0)
    held = ((low <= value.mean(0)) & (value.mean(0) <= high)).mean(0)
    assert (held > 0.85).all() and (held < 1).any(), held


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_principal_angles_are_those_of_the_projectors(p, q, seed):
    rng = np.random.default_rng(seed)
    a, b = (np.linalg.qr(rng.normal(size=(9, n)))[0] for n in (p, q))
    np.testing.assert_allclose(angles.cosines(a, b), oracle.cosines(a, b), atol=1e-6)
    assert angles.overlap(a, a) == pytest.approx(1) and 0 <= angles.overlap(a, b) <= 1
    assert angles.overlap(a, np.zeros((9, 0))) == 0


def test_overlap_of_random_subspaces_is_its_chance_level():
    rng = np.random.default_rng(0)
    drawn = [angles.overlap(*(np.linalg.qr(rng.normal(size=(40, 3)))[0] for _ in range(2))) for _ in range(300)]
    assert np.mean(drawn) == pytest.approx(3 / 40, abs=0.008)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.integers(4, 9), st.integers(2, 12), st.integers(0, 10**6))
def test_probe_is_ridge_regression_on_held_out_groups(count, g, width, seed):
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(g, width)) + rng.normal(size=width) for _ in range(count)]
    x, label = np.concatenate(items), np.repeat(np.arange(count), g)
    test = rng.normal(size=(3, width))
    np.testing.assert_allclose(separate.probe(x, label, count, test), oracle.ridge(x, label, count, test, separate.RIDGE), atol=1e-6)
    hits = separate.held_out(items)
    fold = np.arange(g) % min(5, g) == 0
    train = np.concatenate([i[~fold] for i in items])
    scores = oracle.ridge(train, np.repeat(np.arange(count), (~fold).sum()), count, items[0][fold], separate.RIDGE)
    assert (hits[0][fold] == (scores.argmax(1) == 0)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=14), st.integers(0, 10**6))
def test_silhouettes_are_those_of_the_definition(label, seed):
    label = np.array([0, 1, *label])
    distance = separate.distances(np.random.default_rng(seed).normal(size=(len(label), 5)))
    np.testing.assert_allclose(separate.silhouettes(distance, label), oracle.silhouette(distance, label), atol=1e-9)


def test_nothing_that_varies_tells_nothing():
    same = [np.ones((6, 5)), np.ones((6, 5))]
    found = separate.separation(grouped(same), 10, 0)
    assert found.accuracy == 0 and found.silhouette == 0 and found.silhouette_chance == 0
    e = energy.energy(grouped(same), None, 10, 0)
    assert (e.language, e.content, e.stability, e.chance) == (0, 0, 0, 0) and not e.specific.any()
    assert angles.between(grouped(same), 3).tolist() == [[0, 0], [0, 0]]


def test_a_probe_that_can_learn_nothing_is_at_chance():
    rng = np.random.default_rng(3)
    rates = [np.mean(separate.held_out([rng.normal(size=(20, 30)) for _ in range(4)])) for _ in range(10)]
    assert 0.15 < np.mean(rates) < 0.35


def test_unequal_groups_and_two_folds():
    rng = np.random.default_rng(0)
    hits = separate.held_out([rng.normal(size=(4, 6)) + 9, rng.normal(size=(7, 6)) - 9])
    assert [len(h) for h in hits] == [4, 7] and all(h.all() for h in hits)


# ---------------------------------------------------------------------------------------------------------- planted signal


def test_planted_directions_are_found_and_content_is_not_taken_for_language(tmp_path):
    items, axes = planted()
    found = find(reading(tmp_path, items), seed=1)
    truth = np.linalg.svd((axes - axes.mean(0)).T, full_matrices=False)[0][:, :3]
    for depth in (2, 3):
        assert angles.overlap(found.spaces[depth].basis, truth) > 0.98
        f = tables.figures(found, depth)
        assert f["language"].low > 0.95 and f["content"].high < 0.25 and f["probe"].value == 1 and f["silhouette"].low > 0.3
        assert f["language"].low <= f["language"].value <= f["language"].high
    for depth in (0, 1):
        f = tables.figures(found, depth)
        assert f["language"].value < 0.5 and f["probe"].value < 0.6 and abs(f["silhouette"].value) < 0.2
    assert found.across[2, 3] > 0.98 > 0.5 > found.across[1, 2]
    assert np.diag(found.within[2]).mean() == pytest.approx(found.within[2].mean(), abs=0.2)  # content is shared, so is its subspace


def test_results_are_finite_sentences_and_what_is_written_comes_back(tmp_path):
    items, _ = planted(count=3)
    found = find(reading(tmp_path, items), directions=2)
    result = Result("analyze.subspace", "", "t", words.summary(found), tables.maps(found), (tables.table(found), tables.overlaps(found)),
                    tables.curves(found), caveats=words.CAVEATS)
    assert Result.from_json(result.to_json()) == result
    assert "NaN" not in str(result.to_json()).replace("nan", "NaN")
    assert result.summary[0].startswith("Language weighs most after layer") and "2 of 24 directions" in result.summary[0]
    written = as_arrays(found)
    arrays.write(tmp_path / "s.safetensors", written)
    back = arrays.Arrays(tmp_path / "s.safetensors")
    assert set(back) == set(written) and back["basis.2"].shape == (24, 2) and back["mean.3.th"].shape == (24,)
    np.testing.assert_allclose(back["mu.2"] @ back["basis.2"], 0, atol=1e-5)
    assert all(np.isfinite(back[n]).all() for n in back)


def test_a_terminal_of_80_columns_breaks_no_head(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    items, _ = planted(count=3)
    made = tables.table(find(reading(tmp_path, items), directions=2))
    show.table(made)
    shown = capsys.readouterr().out.split()
    assert {w for head in made.columns for w in head.split()} <= set(shown)


def test_groups_without_tokens_are_left_out(tmp_path):
    items, _ = planted(count=2, g=8)
    read = reading(tmp_path, items)
    held = dict(arrays.Arrays(read.path("sw")))
    held["group.tokens"][3] = 0
    held["group.residual"][3] = 0
    arrays.write(read.path("sw"), held)
    assert find(read).groups == (7, 7)  # parallel: the pair is gone
    alone = Activity.open(tmp_path)
    assert find(Activity(alone.folder, alone.languages, alone.layers, alone.sizes, alone.hidden)).groups == (8, 7)


# -------------------------------------------------------------------------------------------------------------- logit lens


def test_owners_are_those_with_nearly_all_occurrences_at_equal_budgets():
    seen = np.array([[90, 0], [0, 9], [50, 5], [99, 1], [0, 0]])  # the budgets are 239 and 15: rates decide
    assert lens.owners(seen).tolist() == [0, 1, 2, 2, 3]
    assert lens.owners(np.zeros((3, 2))).tolist() == [3, 3, 3]


@pytest.fixture(scope="module")
def live(tiny):
    from polygraft.model import load

    return lambda family, **options: load(tiny(family, **options), dtype="float32")


def windows(count=2, rows=3, length=12):
    rng = np.random.default_rng(0)
    return [[np.concatenate([[1], rng.integers(4 + 100 * k, 104 + 100 * k, length)]) for _ in range(rows)] for k in range(count)]


@pytest.mark.parametrize("family", make.FAMILIES)
def test_the_lens_of_the_last_depth_is_the_model_itself(family, live):
    """Head and norm of every family: `look` refuses by itself where its own logits are not the model's."""
    import torch

    model, text = live(family), windows()
    seen = np.stack([np.bincount(np.concatenate(w), minlength=make.VOCAB) for w in text], axis=1)
    seen[1] = 0
    found = lens.look(model, text, seen, positions=6)
    assert found.share.shape == (2, 3, 4) and np.allclose(found.share.sum(-1), 1, atol=1e-5) and found.positions == 6
    owner, own = lens.owners(seen), []
    rng = np.random.default_rng(0)
    for ids in text[0]:
        at = np.sort(rng.choice(np.arange(1, len(ids) - 1), 2, replace=False))
        with torch.inference_mode():
            p = model.model(torch.as_tensor(ids[None])).logits[0, at].softmax(-1).double().numpy()
        own.append([p[:, owner == o].sum(1).mean() for o in range(4)])
    np.testing.assert_allclose(found.share[0, -1], np.mean(own, axis=0), atol=1e-5)


def test_every_depth_is_read_through_norm_and_head(live):
    import torch

    model, text = live("llama", layers=3), windows(1, 1)
    found = lens.look(model, text, np.bincount(text[0][0], minlength=make.VOCAB)[:, None], positions=99)
    with torch.inference_mode():
        states = model.model(torch.as_tensor(text[0][0][None]), output_hidden_states=True).hidden_states
        owner = lens.owners(np.bincount(text[0][0], minlength=make.VOCAB)[:, None])
        for depth in range(3):  # the last of transformers' states stands behind the norm already
            p = model.model.lm_head(model.model.model.norm(states[depth][0, 1:-1])).softmax(-1).double().numpy()
            np.testing.assert_allclose(found.share[0, depth], [p[:, owner == o].sum(1).mean() for o in range(3)], atol=1e-5)


def test_a_head_that_does_more_is_refused(live, monkeypatch):
    model = live("gemma2")
    monkeypatch.setattr(lens.Head, "__call__", lambda self, state: self.head(state).float())
    with pytest.raises(InputError, match="not the model's own prediction"):
        lens.look(model, windows(), np.ones((make.VOCAB, 2)), positions=4)


@pytest.mark.parametrize("rows", [150, make.VOCAB + 8])
def test_a_head_may_have_fewer_or_more_rows_than_the_embedding(live, rows):
    import torch

    model = live("llama")
    old = model.model.lm_head
    model.model.lm_head = torch.nn.Linear(old.in_features, rows, bias=False)
    text = windows()  # tokens of the second language stand beyond a head of 150 rows
    seen = np.stack([np.bincount(np.concatenate(w), minlength=make.VOCAB) for w in text], axis=1)
    try:
        found = lens.look(model, text, seen, positions=6)
    finally:
        model.model.lm_head = old
    known = np.bincount(lens.owners(seen)[:rows], minlength=4) + np.array([0, 0, 0, max(0, rows - make.VOCAB)])
    assert found.vocabulary == pytest.approx(known / rows) and found.text[1, 1] > 0.9
    assert np.allclose(found.share.sum(-1), 1, atol=1e-5) and (rows > 150 or found.vocabulary[0] > found.vocabulary[1])


def test_a_planted_latent_language_is_named(tmp_path):
    share = np.zeros((2, 3, 4))
    share[:, :2, 0], share[0, 2, 0], share[1, 2, 1] = 0.8, 0.8, 0.8  # both are English within; Swahili leaves at the end
    rows = [s + np.random.default_rng(0).normal(0, 0.01, (5, 3, 4)) for s in share]
    seen = lens.Lens(share, rows, np.full((2, 4), 0.25), np.full(4, 0.25), 10)
    from dataclasses import replace

    found = replace(find(reading(tmp_path, planted(count=2, depths=3)[0])), lens=seen)
    assert tables.latent(found).tolist() == [[0, 0, 0], [0, 0, 1]]
    said = words.summary(found)
    assert said[-2] == "Logit lens on text in en: its own tokens lead from layer 0 to the end."
    assert said[-1] == "Logit lens on text in sw: its own tokens lead from layer 1 to the end; those of en lead after 1 of 2 layers."
    open_ = replace(seen, windows=[r - r + np.random.default_rng(1).normal(0, 1, r.shape) for r in rows], share=share * 0)
    assert (tables.latent(replace(found, lens=open_)) == -1).any()
    assert set(as_arrays(found)) >= {"lens.share", "lens.text", "lens.vocabulary"}
    assert tables.maps(found)[1].labels["-1"] == "not distinguishable" and len(tables.curves(found)) == 6


# ---------------------------------------------------------------------------------------------------------------- the step


def corpora(folder: Path, count=40) -> dict[str, str]:
    """Two languages of one alphabet each, line by line the same numbers."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 10, (count, 30))
    alphabets = {"en": "abcdefghij", "sw": "klmnopqrst", "de": "uvwxyz1234"}
    for tag, letters in alphabets.items():
        (folder / f"{tag}.txt").write_text("\n".join("".join(letters[i] for i in row) for row in numbers) + "\n")
    return {tag: str(folder / f"{tag}.txt") for tag in alphabets}


def step(tmp_path, model, **options):
    from polygraft.analysis.subspace import steps
    from polygraft.sources import resolve
    from polygraft.step import Context

    out = tmp_path / "out"
    out.mkdir()
    context = Context(lambda name: resolve(name, offline=True), Path, offline=True)
    config = steps.Subspace(model=str(model), **({"groups": 8, "draws": 40, "lens": 32, "window": 16} | options))
    assert not steps.plan(config, context).problems
    return steps.run(config, context, out), out


def test_the_step_reads_text_and_finds_its_alphabets(tiny, tmp_path):
    result, out = step(tmp_path, tiny("llama"), corpus=corpora(tmp_path), parallel=True, dtype="float32")
    back = arrays.Arrays(out / "subspace.safetensors")
    assert [back[f"basis.{d}"].shape for d in range(3)] == [(make.HIDDEN, 2)] * 3
    assert back.metadata["languages"] == "en,sw,de" and result.data["lens_positions"] == 32 and result.data["parallel"]
    np.testing.assert_allclose(back["lens.text"][:, :3], np.eye(3))  # every token that follows is its language's own
    assert result.data["tokens"] == {"en": 1200, "sw": 1200, "de": 1200}
    probe = result.tables[0].rows[0][4]
    assert probe.value == 1 and probe.low > 0.6  # the letters alone tell the language
    assert len(result.summary) == 6 and Result.from_json(result.to_json()) == result
    assert not any("not parallel" in c for c in result.caveats)


def test_a_reading_made_before_gives_the_same_without_the_lens(tiny, tmp_path):
    from polygraft.analysis.subspace import steps
    from polygraft.sources import resolve
    from polygraft.step import Context

    model, texts = tiny("llama"), corpora(tmp_path)
    first, out = step(tmp_path, model, corpus=texts, lens=0)
    assert any("left out, as asked" in c for c in first.caveats) and any("not parallel" in c for c in first.caveats)
    again = tmp_path / "again"
    again.mkdir()
    context = Context(lambda name: resolve(name, offline=True), Path, offline=True, folder=Path)
    config = steps.Subspace(model=str(model), activity=str(out), groups=8, draws=40)
    (problem,) = steps.plan(config.model_copy(update={"rank": 9}), context).problems
    assert "no subspace of this rank" in str(problem) and not steps.plan(config, context).problems
    second = steps.run(config, context, again)
    assert second.tables == first.tables and any("corpora themselves" in c for c in second.caveats)


def test_a_plan_tells_what_cannot_be_found(tiny, tmp_path):
    from polygraft.analysis.subspace import steps
    from polygraft.sources import resolve
    from polygraft.step import Context

    context, texts = Context(lambda name: resolve(name, offline=True), Path, offline=True), corpora(tmp_path)

    def problems(**options):
        return [str(p) for p in steps.plan(steps.Subspace(model=str(tiny("llama")), **options), context).problems]

    assert "beside one another" in problems(corpus={"en": texts["en"]})[0]
    assert "no subspace of this rank" in problems(corpus=texts, rank=3)[0]
    assert "no such corpus" in problems(corpus=texts | {"fr": str(tmp_path / "none.txt")})[0]
    assert problems(corpus=texts, rank=2) == []
