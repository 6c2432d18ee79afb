"""Candidates computed together are the merges written, loaded and scored one by one: every family, policy and method, and every way."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import tiny as make
from oracle import graft_oracle as oracle
from polygraft import merge
from polygraft import model as live_models
from polygraft.choose.graft import Grafter
from polygraft.errors import InputError
from polygraft.evals.engines.hf import Scorer
from polygraft.merge import live, makers
from polygraft.merge.profile import Profile
from polygraft.sources import resolve

NAMES = ("task", "language")
GRID = [(b, u, t) for b in (0, 1) for u in (0, 1) for t in (0, 1) if t == 0 or b + u]  # of 4 layers
STEM = [7, 60, 61, 62, 63, 99, 17, 80]
ROWS = [[*STEM, 70, 71], [*STEM, 70, 72, 73, 74], [*STEM[:5], 90, 91, 92], [*STEM, 100], [200, 201, 202, 203, 204, 205], [5, 6]]
SCORED = [2, 3, 4, 1, 5, 1]


@pytest.fixture
def pair(tiny):
    return lambda family="llama", layers=4, **more: [resolve(tiny(family, layers=layers, seed=s, noise=0.05, **more)) for s in (1, 2)]


def swaps(anatomy, grid=GRID, **more):
    return [makers.swap(anatomy, bottom=b, top=u, transition=t, names=NAMES, **more) for b, u, t in grid]


def scored(model, rows=ROWS, counts=SCORED):
    """(nats, greedy) of each row under one live model, by the evaluation's engine."""
    found = {}
    Scorer(model, make.tokenizer(), batch_tokens=64).likelihoods(rows, counts, found.update)
    return [found[i][0] for i in range(len(rows))], [found[i][1] for i in range(len(rows))]


def followed(profile, sources, dtype="float32"):
    made = live_models.load(sources[0], dtype=dtype)
    live.apply(profile, made, [s.weights for s in sources])
    return made.model


def agrees(grafter, profiles, sources):
    """Scores of candidates together are those of each profile followed into a model of its own; gives them."""
    got = grafter.likelihoods(profiles, ROWS, SCORED)
    for i, profile in enumerate(profiles):
        nats, greedy = scored(followed(profile, sources))
        assert got.nats[i] == pytest.approx(nats, abs=2e-4), (i, profile.params)
        assert got.greedy[i].tolist() == greedy
    assert len(np.unique(got.nats.round(6), axis=0)) > 1, "candidates that are all the same show nothing"
    return got


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_candidate_of_a_grid_is_the_written_merge(pair, tmp_path, family):
    task, language = pair(family)
    grafter = Grafter.open([task, language], dtype="float32")
    got = grafter.likelihoods(swaps(grafter.anatomy), ROWS, SCORED)
    for i, (b, u, t) in enumerate(GRID):
        out = tmp_path / f"{b}{u}{t}"
        merge.swap(task=task.spec, language=language.spec, bottom=b, top=u, transition=t, out=out)
        nats, greedy = scored(live_models.load(out, dtype="float32").model)
        assert got.nats[i] == pytest.approx(nats, abs=2e-4), (b, u, t)
        assert got.greedy[i].tolist() == greedy
    assert len(np.unique(got.nats.round(5), axis=0)) == len(GRID)
    # from the grid alone: where each of the 4 layers of each window comes from
    sources = [tuple("l" if i < b or i >= 4 - u else "b" if t and (i == b > 0 or i == 3 - u < 3) else "t" for i in range(4)) for b, u, t in GRID]
    assert grafter.work.layers == len({s[:n] for s in sources for n in range(1, 5)}) and grafter.work.naive == 4 * len(GRID)
    assert any("share" in n for n in grafter.notes) == (family == "bloom")


@pytest.mark.parametrize("more", [{"weights": "ramp"}, {"parts": ("attn",)}, {"parts": ("ffn",)}, {"embed": "language"}, {"head": "language"},
                                  {"embed": "task", "norm": "language", "head": "mean"}], ids=lambda m: ",".join(f"{k}={v}" for k, v in m.items()))
@pytest.mark.parametrize("tied", [False, True])
def test_policies_and_parts(pair, more, tied):
    if tied and more.get("embed") and more.get("head"):
        more = {k: v for k, v in more.items() if k != "head"}
    sources = pair(tie_word_embeddings=tied)
    grafter = Grafter.open(sources, dtype="float32")
    agrees(grafter, swaps(grafter.anatomy, [(1, 1, 1), (2, 1, 0), (0, 0, 0)], **more), sources)


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt2"])
def test_methods_of_merging_beside_one_another(tiny, family):
    """Mean, task arithmetic, TIES, DARE and slerp in one trie, of three sources whose weights are bfloat16."""
    sources = [resolve(tiny(family, seed=s, noise=0.02 * bool(s), dtype="bfloat16")) for s in (0, 1, 2)]
    grafter = Grafter.open(sources, dtype="float32")
    names, of = ("base", "one", "two"), grafter.anatomy
    slerp = makers.slerp(of, names[:2], {"attn": 0.2, "other": 0.6})
    profiles = [makers.soup(of, names), makers.task(of, names, (0.5, 0.7)), makers.ties(of, names, density=0.4), makers.dare_ties(of, names, seed=3),
                Profile("slerp", "slerp", names, {k: (*w, 0.0) for k, w in slerp.weights.items()}),
                makers.soup(of, names, (0, 0, 1)), makers.soup(of, names)]
    got = agrees(grafter, profiles, sources)
    assert (got.nats[0] == got.nats[-1]).all() and len(np.unique(got.nats, axis=0)) == len(profiles) - 1


def test_adapters_as_sources(tiny, tmp_path):
    """Two adapters on one base, blended: the values that a written merge has. What both leave alone is in memory once."""
    from test_merge_adapters import lora

    base = resolve(tiny("llama", layers=6, hidden_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2))
    sources = [resolve(lora(tmp_path / n, seed), base=base) for n, seed in (("math", 1), ("spanish", 2))]
    grafter = Grafter.open(sources, dtype="float32")
    profiles = [makers.swap(grafter.anatomy, bottom=b, top=1, transition=1, names=NAMES) for b in (0, 2, 3)]
    agrees(grafter, profiles, sources)
    whole = sum(t.numel * 4 for t in base.weights.tensors.values())
    both = sum(base.weights.info(k).numel * 4 for k in sources[0].weights.changed())
    assert grafter.parameters.held <= whole + both + whole


def test_checkpoints_out_of_one_archive_are_not_taken_for_one_another(tiny, tmp_path):
    """Equal shapes and equal times give equal identities; their bytes are still each one's own."""
    import os

    folders = [tiny("llama", layers=4, seed=s, noise=0.05) for s in (1, 2)]
    copies = [shutil.copytree(f, tmp_path / str(i)) for i, f in enumerate(folders)]
    for path in (p for c in copies for p in c.iterdir()):
        os.utime(path, (1e9, 1e9))
    alike, sources = ([resolve(f) for f in some] for some in (copies, folders))
    assert alike[0].identity == alike[1].identity
    grafter, other = (Grafter.open(s, dtype="float32") for s in (alike, sources))
    one, two = (g.likelihoods(swaps(g.anatomy), ROWS, SCORED).nats for g in (grafter, other))
    assert (one == two).all() and len(np.unique(one, axis=0)) == len(GRID)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "gemma2"])
def test_layers_from_files_and_states_on_disk_change_nothing(pair, tmp_path, family):
    sources = pair(family)
    whole, streamed = (Grafter.open(sources, dtype="float32", whole=w, spill=tmp_path / "states", limit=4096) for w in (True, False))
    profiles = swaps(whole.anatomy)
    held = []
    wear = streamed.parameters.wear
    streamed.parameters.wear = lambda variant: (wear(variant), held.append(streamed.parameters.held))[0]
    one, two = (g.likelihoods(profiles, ROWS, SCORED) for g in (whole, streamed))
    assert one.nats == pytest.approx(two.nats, abs=1e-5) and (one.greedy == two.greedy).all()
    assert not any((tmp_path / "states").iterdir()), "states are scratch"
    layer = sum(sources[0].weights.info(k).numel * 4 for k in whole.places.layers[0])
    outside = sum(sources[0].weights.info(k).numel * 4 for k in {*whole.places.before, *whole.places.behind})
    assert max(held) <= 3 * (layer + outside) < whole.parameters.held + layer, "one layer of each source and a blend, and what lies outside"


@pytest.mark.parametrize(("limit", "batch"), [(1, 64), (2500, 16), (1 << 20, 8), (1 << 20, 4096)])
def test_room_and_batches_change_nothing_but_memory(pair, limit, batch):
    sources = pair()
    plenty, little = Grafter.open(sources, dtype="float32"), Grafter.open(sources, dtype="float32", limit=limit, batch_tokens=batch)
    profiles = swaps(plenty.anatomy)
    assert little.likelihoods(profiles, ROWS, SCORED).nats == pytest.approx(plenty.likelihoods(profiles, ROWS, SCORED).nats, abs=1e-4)
    if limit == 1:
        assert little.work.states <= 1 + 4 + 4 * 4 and little.work.states <= plenty.work.states


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_rows_beyond_an_attention_window(pair, family):
    sources = pair(family, sliding_window=4, **({"layer_types": ["sliding_attention", "full_attention"] * 2} if family == "gemma3" else {}))
    grafter = Grafter.open(sources, dtype="float32", batch_tokens=24)
    agrees(grafter, swaps(grafter.anatomy, [(0, 0, 0), (1, 1, 1)]), sources)


def test_divergence_needs_no_answer(pair):
    sources = pair()
    grafter, small = (Grafter.open(sources, dtype="float32", limit=limit) for limit in (1 << 28, 1 << 12))
    profiles = swaps(grafter.anatomy, [(1, 1, 1), (2, 0, 0), (0, 0, 0)])
    models = [followed(p, sources) for p in profiles]
    found = grafter.divergence(profiles, ROWS, SCORED, profiles[2])
    want = [[oracle.divergence(models[2], m, row, n) for row, n in zip(ROWS, SCORED)] for m in models]
    assert found == pytest.approx(np.array(want), abs=1e-4)
    assert (found[2] == 0).all() and (found[:2] > 0).all()
    assert small.divergence(profiles, ROWS, SCORED, profiles[2]) == pytest.approx(found, abs=1e-5), "computed again instead of kept"


def test_what_is_not_scored_costs_nothing_and_progress_is_told(pair):
    grafter, told = Grafter.open(pair(), dtype="float32"), []
    got = grafter.likelihoods(swaps(grafter.anatomy), [*ROWS, [9]], [*SCORED[:-1], 0, 0], lambda done, total: told.append((done, total)))
    assert (got.nats[:, -2:] == 0).all() and got.greedy[:, -2:].all() and (got.nats[:, :-2] < 0).all()
    assert told[-1][0] == told[-1][1] == len(told)
    empty = grafter.likelihoods(swaps(grafter.anatomy), [[9]], [0])
    assert empty.nats.shape == (len(GRID), 1)


def test_memory_that_runs_out_halves_what_goes_side_by_side(pair, monkeypatch):
    import torch

    sources = pair()
    grafter, little = Grafter.open(sources, dtype="float32"), Grafter.open(sources, dtype="float32")
    real = little.frame.layer

    def layer(number, pieces, states, *more):
        if len(states) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(number, pieces, states, *more)

    monkeypatch.setattr(little.frame, "layer", layer)
    profiles = swaps(grafter.anatomy)
    assert little.likelihoods(profiles, ROWS, SCORED).nats == pytest.approx(grafter.likelihoods(profiles, ROWS, SCORED).nats, abs=1e-5)


def test_the_last_ffn_computes_the_tokens_that_are_looked_at_alone(pair):
    grafter = Grafter.open(pair(), dtype="float32")
    computed = dict.fromkeys(range(grafter.anatomy.layers), 0)
    for number, layer in enumerate(grafter.frame.modules):
        layer.mlp.up_proj.register_forward_pre_hook(
            lambda _m, args, number=number: computed.__setitem__(number, computed[number] + args[0].shape[:-1].numel()))
    profile = swaps(grafter.anatomy)[:1]
    grafter.likelihoods(profile, ROWS, SCORED)  # tries whether rows may stand in a tree
    computed.update(dict.fromkeys(computed, 0))
    grafter.likelihoods(profile, ROWS, SCORED)
    assert 0 < computed[grafter.anatomy.layers - 1] <= sum(SCORED) < computed[0]


def test_another_number_of_sources_is_refused(pair):
    grafter = Grafter.open(pair(), dtype="float32")
    with pytest.raises(InputError, match="not a profile of these sources"):
        grafter.likelihoods([makers.soup(grafter.anatomy, ("one", "two", "three"))], ROWS, SCORED)
