"""Reading text once: windows and budgets, bins, every sum against its definition, cut readings, blocks, the step."""

from __future__ import annotations

import dataclasses
import gzip
import re
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import profile

from oracle import activity_oracle as oracle
from polygraft import arrays
from polygraft import model as live_models
from polygraft.activity import Activity
from polygraft.analysis.reading import bins, passing, shapes
from polygraft.analysis.reading.bins import percentile
from polygraft.analysis.reading.collect import Collector
from polygraft.analysis.reading.config import Texts, Wanted, open_activity
from polygraft.analysis.reading.passing import How, gather
from polygraft.analysis.reading.planned import planned as plan_of
from polygraft.analysis.reading.planned import said
from polygraft.analysis.reading.steps import STEPS
from polygraft.anatomy import Anatomy
from polygraft.arrays import Arrays
from polygraft.blocks import Blocks
from polygraft.data import Corpus
from polygraft.errors import InputError, RecipeError, StepFailed
from polygraft.recipe import run_step
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.taps import Passing, Taps
from polygraft.windows import Batch, Stream, batches, budgeted, tokenized

ALL = Wanted(histogram=True, groups=4, residual=True, attention=True, norms=("qkv", "o", "ffn", "down"), grams=("o",))


def stream(documents: list[list[int]], language: str = "en", bos: int | None = 1) -> Stream:
    sizes = [len(d) for d in documents]
    ids = np.array([t for d in documents for t in d], np.int32)
    return Stream(language, ids, np.cumsum([0, *sizes]), np.array(sizes) * 2, bos)


def drawn(documents: int, seed: int = 0, low: int = 4, high: int = 260) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, rng.integers(1, 30)).tolist() for _ in range(documents)]


def context(tmp_path: Path) -> Context:
    return Context(lambda ref: resolve(ref), lambda ref: Path(ref), folder=lambda ref: Path(ref))


# ------------------------------------------------------------------------------------------------------------ windows, budgets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(2, 7), st.integers(1, 4), st.booleans())
def test_every_token_is_in_one_window_with_its_document(sizes, window, rows, has_bos):
    documents = [[10 * d + i for i in range(n)] for d, n in enumerate(sizes)]
    s = stream(documents, bos=1 if has_bos else None)
    expected = oracle.windows(documents, window, s.bos, s.tokens)
    found = list(batches(s, window, rows))
    read = [(list(ids), list(docs)) for b in found for ids, docs in zip(b.ids.tolist(), b.documents.tolist())]
    assert read == expected
    assert [b.index for b in found] == list(range(len(found))) and sum(b.tokens for b in found) == s.tokens
    assert all(len(b.ids) <= rows for b in found)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9).filter(any), st.integers(1, 60))
def test_the_first_tokens_are_those_and_keep_their_documents(sizes, tokens):
    s = stream([[d] * n for d, n in enumerate(sizes)])
    cut = s.first(min(tokens, s.tokens))
    assert cut.tokens == min(tokens, s.tokens) == cut.starts[-1] and cut.documents == len(cut.characters)
    assert cut.ids.tolist() == s.ids[: cut.tokens].tolist()
    assert all(set(cut.ids[a:b]) <= {d} for d, (a, b) in enumerate(zip(cut.starts[:-1], cut.starts[1:], strict=True)))


def test_budgets_are_equal_and_told_where_a_language_has_fewer():
    streams = {"en": stream(drawn(9)), "sw": stream(drawn(4, 1), "sw")}
    least = streams["sw"].tokens
    both, notes = budgeted(streams, tokens=None, parallel=False)
    assert {s.tokens for s in both.values()} == {least} and not notes
    both, notes = budgeted(streams, tokens=10, parallel=False)
    assert {s.tokens for s in both.values()} == {10} and not notes
    both, notes = budgeted(streams, tokens=least + 1, parallel=False)
    assert {s.tokens for s in both.values()} == {least} and f"sw {least:,}" in notes[0]


def test_parallel_texts_keep_the_same_documents():
    streams = {"en": stream([[5] * 4, [6] * 4, [7] * 4]), "sw": stream([[5] * 2, [6] * 9, [7]], "sw")}
    both, _ = budgeted(streams, tokens=None, parallel=True)
    assert [s.tokens for s in both.values()] == [12, 12]
    both, _ = budgeted(streams, tokens=11, parallel=True)
    assert [(s.documents, s.tokens) for s in both.values()] == [(2, 8), (2, 11)]
    with pytest.raises(InputError, match="no document"):
        budgeted(streams, tokens=3, parallel=True)
    for tokens in (None, 11):  # also where the first documents would have been enough
        with pytest.raises(InputError, match="unequal numbers"):
            budgeted(streams | {"de": stream([[5], [6]], "de")}, tokens=tokens, parallel=True)


SHIFTED: dict[str, tuple[str, bytes]] = {
    "a blank line": ("a.txt", b"one\n\nthree\nfour\n"), "a line of spaces": ("a.txt", b"one\n \t\r\nthree\n"),
    "an empty text": ("a.jsonl", b'{"text": "one"}\n{"text": ""}\n{"text": "three"}\n'),
    "a blank line between objects": ("a.jsonl", b'{"text": "one"}\n\n{"text": "two"}\n'), "compressed": ("a.txt.gz", gzip.compress(b"one\n\nthree\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", SHIFTED)
def test_empty_documents_do_not_shift_parallel_ones(name, tiny, tmp_path):
    """The second document of a file is empty, and every later one would stand beside another's translation."""
    file, data = SHIFTED[name]
    (tmp_path / file).write_bytes(data)
    (tmp_path / "b.txt").write_text("moja\nmbili\ntatu\n")
    corpora, tokenizer = [Corpus("en", tmp_path / file), Corpus("sw", tmp_path / "b.txt")], live_models.load_tokenizer(tiny())
    config = Texts(model="m", corpus={"en": "a", "sw": "b"}, parallel=True, tokens=12)
    with pytest.raises(InputError, match="would shift") as e:
        passing.streams_of(corpora, tokenizer, config)
    assert e.value.where == f"{tmp_path / file}:2"
    streams, _ = passing.streams_of(corpora, tokenizer, config.model_copy(update={"parallel": False}))
    assert streams["en"].tokens == streams["sw"].tokens > 0


def test_rows_without_text_do_not_shift_parallel_ones(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"text": ["one", "two", None, "four"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError) as e:
        list(Corpus("en", tmp_path / "a.parquet").documents(aligned=True))
    assert e.value.where == f"{tmp_path / 'a.parquet'}:3"


def test_blank_lines_at_the_end_of_parallel_text_are_none(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n \n")
    assert list(Corpus("en", tmp_path / "a.txt").documents(aligned=True)) == ["one", "two"]


def test_documents_of_tokens_are_found_batch_by_batch():
    """A document's number is not kept for every token of a language."""
    n = 1 << 20
    s = Stream("en", np.zeros(n, np.int32), np.arange(0, n + 1, 1 << 10), np.ones(1 << 10, np.int64), 1)
    tracemalloc.start()
    assert sum(int(b.documents.sum()) for b in batches(s, 513, 4)) == (1 << 10) * sum(range(1 << 10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n  # a byte a token


def test_groups_are_runs_of_documents_the_same_deal_for_parallel_texts():
    a, b = stream(drawn(10)), stream(drawn(10, 3))
    assert a.groups(4).tolist() == b.groups(4).tolist() == sorted(a.groups(4).tolist())
    assert set(a.groups(4)) == {0, 1, 2, 3} and set(stream(drawn(2)).groups(4)) == {0, 1}


def test_text_becomes_tokens_without_specials(tiny, tmp_path):
    tokenizer = live_models.load_tokenizer(tiny())
    (tmp_path / "a.txt").write_text("ab\nçd\n")
    s = tokenized(Corpus("fr", tmp_path / "a.txt"), tokenizer)
    assert tokenizer.decode(s.ids) == "abçd" and s.starts.tolist() == [0, 2, 5] and s.characters.tolist() == [2, 2] and s.bos == 1
    assert tokenized(Corpus("fr", tmp_path / "a.txt"), tokenizer, most=1).tokens == 5


# ---------------------------------------------------------------------------------------------------------------------- bins


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False))
def test_the_bits_of_a_value_give_its_bin(value):
    code = int(np.float32(value).view(np.uint32)) >> bins.SHIFT
    tiny_value = abs(value) < float(np.finfo(np.float32).tiny)
    assert bins.table()[code] == oracle.bin_of(0.0 if tiny_value else value, bins.edges())


@pytest.mark.parametrize("edge", bins.edges()[1:-1])
def test_edges_belong_to_the_bin_nearer_infinity(edge):
    code = int(np.float32(edge).view(np.uint32)) >> bins.SHIFT
    assert bins.table()[code] == oracle.bin_of(edge, bins.edges())


def test_the_edges_rise_and_are_finite():
    edges = bins.edges()
    assert len(edges) == bins.BINS + 1 == 65 and (np.diff(edges) > 0).all() and np.isfinite(edges).all()
    assert edges[bins.zero()] == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-4, 200, width=32), min_size=1, max_size=50), st.sampled_from([0, 5, 50, 90, 99.5, 100]))
def test_percentiles_lie_in_the_bin_of_the_sorted_value(values, q):
    edges = bins.edges()
    histogram = np.bincount([oracle.bin_of(v, edges) for v in values], minlength=bins.BINS)
    low, high = oracle.percentile_bin(np.array(values), q, edges)
    found = float(percentile(histogram[None], edges, q)[0])
    assert (low if low > -bins.ENDS else high) <= found <= (high if high < bins.ENDS else low)


def test_nothing_counted_is_zero():
    assert percentile(np.zeros((2, bins.BINS), int), bins.edges(), 90).tolist() == [0, 0]


# ------------------------------------------------------------------------------------------------------ every sum, by definition


def seen(net: live_models.Live, documents: list[list[int]], window: int, tokens: int, points: tuple[str, ...]) -> tuple[dict, np.ndarray]:
    """(point, layer) -> float64 [tokens, width], one window at a time, and each token's document."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    docs: list[int] = []

    def keep(p: Passing) -> None:
        found.setdefault((p.point, p.layer), []).append(p.value.reshape(-1, p.value.shape[-1])[1:].double().numpy())

    for ids, of in oracle.windows(documents, window, 1, tokens):
        with torch.no_grad(), Taps(net.model, net.anatomy, keep, points=points):
            net.model(input_ids=torch.tensor([ids]))
        docs += of
    return {k: np.concatenate(v) for k, v in found.items()}, np.array(docs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_arrays_are_what_their_definitions_say(tiny, tmp_path, dtype):
    net, documents = live_models.load_folder(tiny("llama", dtype=dtype)), drawn(12)
    s = stream(documents)
    found = gather(net, {"en": s}, ALL, tmp_path / "r", how=How(window=24, rows=1))
    values, docs = seen(net, documents, 24, s.tokens, shapes.points(ALL))
    groups = s.groups(4)[docs]
    assert found.array("en", "group.tokens").tolist() == np.bincount(groups, minlength=4).tolist()
    for layer in range(2):
        a = values["act", layer]
        scale = np.abs(a).sum(0)
        for name, expected in oracle.sums(a, groups, 4).items():
            got = found.array("en", name)
            got = got[:, layer] if name.startswith("group") else got[layer]
            exact = "positive" in name
            np.testing.assert_allclose(got, expected, rtol=0, atol=0 if exact else 1e-6 * max(scale.max(), (a * a).sum(0).max()))
        edges = np.array(found.edges)
        counted = [np.bincount([oracle.bin_of(v, edges) for v in a[:, n]], minlength=64) for n in range(3)]
        assert found.array("en", "histogram")[layer, :3].tolist() == np.array(counted).tolist()
        streams = {"residual": values["residual", layer], "attention": values["attention", layer]}
        for name, x in streams.items():
            row = layer + (name == "residual")
            near = {"rtol": 0, "atol": 1e-5 * np.abs(x).sum(0).max()}
            np.testing.assert_allclose(found.array("en", name)[row], x.sum(0), **near)
            by_group = np.stack([x[groups == g].sum(0) for g in range(4)])
            np.testing.assert_allclose(found.array("en", f"group.{name}")[:, row], by_group, **near)
        np.testing.assert_allclose(found.array("en", "square.residual")[layer + 1], (values["residual", layer] ** 2).sum(), rtol=1e-6)
        assert found.array("en", "attention.positive")[layer].tolist() == (values["attention", layer] > 0).sum(0).tolist()
        for role, point in shapes.ROLES.items():
            x = values[point, layer]
            np.testing.assert_allclose(found.array("en", f"input.{role}.{layer}"), (x * x).sum(0), rtol=1e-5)
        x = values["input.o", layer]
        np.testing.assert_allclose(found.array("en", f"gram.o.{layer}"), x.T @ x, rtol=1e-4, atol=1e-5 * (x * x).sum(0).max())
    np.testing.assert_allclose(found.array("en", "residual")[0], values["input.layer", 0].sum(0), rtol=1e-4, atol=1e-4)


def test_percentiles_of_windows_are_weighed_by_their_tokens(tiny, tmp_path):
    net, documents = live_models.load_folder(tiny("llama")), drawn(6)
    s = stream(documents)
    found = gather(net, {"en": s}, Wanted(percentile=True), tmp_path / "r", how=How(window=16, rows=3))
    values, _ = seen(net, documents, 16, s.tokens, ("act",))
    edges = np.array(found.edges)
    for neuron in range(4):
        parts = [values["act", 1][i : i + 15, neuron] for i in range(0, s.tokens, 15)]
        borders = [oracle.percentile_bin(v, 90, edges) for v in parts]
        low, high = (sum(len(v) * b[side] for v, b in zip(parts, borders, strict=True)) for side in (0, 1))
        assert low - 1e-9 <= found.array("en", "window.percentile")[1, neuron] <= high + 1e-9


def test_batches_and_their_rows_change_no_count(tiny, tmp_path):
    net, s = live_models.load_folder(tiny("llama")), stream(drawn(30))
    one = gather(net, {"en": s}, ALL, tmp_path / "one", how=How(window=20, rows=1))
    many = gather(net, {"en": s}, ALL, tmp_path / "many", how=How(window=20, rows=7))
    for name in ("positive", "group.positive", "group.tokens", "histogram", "attention.positive"):
        same = one.array("en", name) == many.array("en", name)
        assert same.mean() > 0.999, name  # a value next to 0 may change its side when the shape of a product changes
    np.testing.assert_allclose(one.array("en", "sum"), many.array("en", "sum"), rtol=1e-5, atol=1e-4)


# ------------------------------------------------------------------------------------------------------- cut, blocks, ranks, memory


class Cut(Exception):
    """The machine went away."""


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_cut_reading_goes_on_and_ends_in_the_same_bytes(tiny, tmp_path, after):
    net, streams = live_models.load_folder(tiny("llama")), {"en": stream(drawn(20)), "sw": stream(drawn(20, 1), "sw")}
    streams, _ = budgeted(streams, tokens=None, parallel=False)
    how = How(window=20, rows=3, every=0.0)
    gather(net, streams, ALL, tmp_path / "whole", how=how)
    calls: list[float] = []

    def dies(done: float, total: float, text: str = "") -> None:
        calls.append(done)
        if len(calls) == after:
            raise Cut

    with pytest.raises(Cut):
        gather(net, streams, ALL, tmp_path / "cut", dies, how)
    first = calls[-1]
    calls = [-1e9] * after
    gather(net, streams, ALL, tmp_path / "cut", dies, how)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
    assert min(c for c in calls if c >= 0) >= first  # what was read is not read again
    again: list[float] = []
    gather(net, streams, ALL, tmp_path / "cut", lambda *a: again.append(a[0]), how)
    assert not again


def test_what_another_text_left_is_not_gone_on_with(tiny, tmp_path):
    net, how = live_models.load_folder(tiny("llama")), How(window=20, rows=1, every=0.0)

    def dies(*_: Any) -> None:
        if (tmp_path / "r" / ".reading.en.safetensors").exists():
            raise Cut

    with pytest.raises(Cut):
        gather(net, {"en": stream(drawn(20))}, ALL, tmp_path / "r", dies, how)
    found = gather(net, {"en": stream(drawn(20, 9))}, ALL, tmp_path / "r", how=how)
    fresh = gather(net, {"en": stream(drawn(20, 9))}, ALL, tmp_path / "fresh", how=how)
    assert bytes_of(found.folder) == bytes_of(fresh.folder)


def test_block_by_block_gives_the_same_bytes(tiny, tmp_path):
    folder, s = tiny("llama", layers=3), {"en": stream(drawn(20))}
    gather(live_models.load_folder(folder), s, ALL, tmp_path / "whole", how=How(window=20, rows=3))
    with Blocks.open(folder) as blocks:
        gather(blocks, s, ALL, tmp_path / "blocks", how=How(window=20, rows=3))
    assert bytes_of(tmp_path / "blocks") == bytes_of(tmp_path / "whole")


def llama_8b() -> Anatomy:
    """Llama 3.1 8B by its published shapes."""
    config = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256,
              "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}  # fmt: skip
    roles = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
             "mlp.down_proj")  # fmt: skip
    keys = [f"model.layers.{i}.{r}.weight" for i in range(32) for r in roles]
    return Anatomy.of(config, [*keys, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])


def test_memory_of_one_language_at_8b_dimensions():
    anatomy = llama_8b()
    assert shapes.nbytes(shapes.shapes(anatomy, Wanted())) <= 20e6
    assert shapes.nbytes(shapes.shapes(anatomy, Wanted(histogram=True))) <= 150e6
    kept = STEPS[0].config(model="m", corpus={"en": "a.txt"}).wanted()  # by default: what the page of this verb says
    assert shapes.nbytes(shapes.shapes(anatomy, kept)) == pytest.approx(227e6, abs=1e6)
    for role, size in {"qkv": 67e6, "o": 67e6, "ffn": 67e6, "down": 822e6}.items():
        grams = Wanted(grams=(role,))
        more = shapes.nbytes(shapes.shapes(anatomy, grams)) - shapes.nbytes(shapes.shapes(anatomy, Wanted()))
        assert more / 32 == pytest.approx(size, rel=0.01)


def test_a_collector_holds_what_its_shapes_say_and_one_window(tiny, tmp_path):
    net, kept = live_models.load_folder(tiny("llama")), []

    def collectors(*_: Any) -> None:
        import gc

        kept.extend(o for o in gc.get_objects() if isinstance(o, Collector) and o not in kept)

    gather(net, {"en": stream(drawn(30))}, Wanted(histogram=True), tmp_path / "r", collectors, How(window=20, rows=3))
    (one,) = kept
    assert sum(t.nbytes for t in one.totals.values()) == shapes.nbytes(shapes.shapes(net.anatomy, Wanted(histogram=True)))
    assert sum(t.nbytes for t in one._kept.values()) <= 2 * 20 * 48 * 4


def held(run: Callable[[], None]) -> int:
    """The most bytes that torch held beyond those held before, every allocation counted."""
    with profile(profile_memory=True) as prof:
        run()
    assert prof.profiler is not None
    events = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(prof.profiler.kineto_results.events()) if e.name() == "[memory]")
    return int(np.cumsum([n for _, _, n in events]).max(initial=0))


@pytest.mark.parametrize(("dtype", "groups", "most"), [(torch.float32, 1, 17e6), (torch.float32, 8, 40e6), (torch.bfloat16, 1, 47e6)])
def test_a_window_of_14336_neurons_adds_little_to_the_totals(dtype, groups, most):
    """One window of 512 tokens at the width of an 8B model, with all that `analyze activity` keeps by default."""
    one = Collector(dataclasses.replace(llama_8b(), layers=1), Wanted(histogram=True, groups=20))
    one.begin(Batch(0, np.zeros((1, 512), np.int64), np.arange(511)[None] * groups // 511, 1), np.arange(groups))
    value = torch.randn(1, 512, 14336, generator=torch.Generator().manual_seed(0)).to(dtype)
    peak = held(lambda: one(Passing("act", 0, value)))
    assert 0 < peak <= most
    counted = one.totals["histogram"][0].numpy()
    assert (counted.sum(-1) == 511).all()
    wide = value[0, 1:].float().numpy()
    for n in (0, 2047, 2048, 14335):  # on both sides of where the neurons are cut
        assert counted[n].tolist() == np.bincount([oracle.bin_of(v, bins.edges()) for v in wide[:, n]], minlength=64).tolist()


# ---------------------------------------------------------------------------------------------------------------------- refusals


def shard(tmp_path: Path, net: Any, change: Callable[[dict[str, np.ndarray], dict[str, str]], None]) -> Path:
    """What a reading cut after a few batches left, changed."""
    def dies(*_: Any) -> None:
        if left.exists():
            raise Cut

    left = tmp_path / "r" / ".reading.en.safetensors"
    with pytest.raises(Cut):
        gather(net, {"en": stream(drawn(20))}, ALL, tmp_path / "r", dies, How(window=20, rows=1, every=0.0))
    found = Arrays(left)
    values, about = dict(found), dict(found.metadata)
    change(values, about)
    arrays.write(left, values, about)
    return left


HARMED: dict[str, Callable[[dict[str, np.ndarray], dict[str, str]], Any]] = {
    "an array is missing": lambda a, _: a.pop("sum"),
    "the last has another shape": lambda a, _: a.update({"group.attention": a["group.attention"][1:]}),
    "one has another dtype": lambda a, _: a.update({"square": a["square"].astype(np.float32)}),
    "where it stopped is not said": lambda _, m: m.pop("next"), "tokens that are no number": lambda _, m: m.update(tokens="many"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMED)
def test_a_shard_that_is_not_whole_leaves_nothing_behind(harm, tiny, tmp_path):
    """The totals of a shard that fails halfway are not counted besides those of the reading that begins again."""
    net, s = live_models.load_folder(tiny("llama")), {"en": stream(drawn(20))}
    shard(tmp_path, net, HARMED[harm])
    again = gather(net, s, ALL, tmp_path / "r", how=How(window=20, rows=1))
    fresh = gather(net, s, ALL, tmp_path / "fresh", how=How(window=20, rows=1))
    assert bytes_of(again.folder) == bytes_of(fresh.folder)


@pytest.mark.parametrize(("wanted", "place"), [(Wanted(norms=("ffn",)), "input.ffn, layer 1"), (Wanted(grams=("ffn",)), "gram.ffn, layer 1")],
                         ids=["norms", "grams"])  # fmt: skip
def test_sums_over_float32_are_refused_with_layer_and_language(wanted, place, tiny):
    """Every value is finite; its square is not."""
    net = live_models.load_folder(tiny("llama"))
    one = Collector(net.anatomy, wanted, language="sw")
    one.begin(Batch(0, np.zeros((1, 4), np.int64), np.zeros((1, 3), np.int64), 1), np.zeros(1, np.int64))
    width = net.anatomy.sizes.hidden
    for layer, size in enumerate((1e18, 1e20)):
        one(Passing("input.ffn", layer, torch.full((1, 4, width), size)))
    one.count()
    with pytest.raises(InputError, match="larger than float32") as e:
        one.check()
    assert e.value.where == f"sw, {place}"


def test_sums_of_a_group_over_float32_are_refused(tiny):
    net = live_models.load_folder(tiny("llama"))
    one = Collector(net.anatomy, Wanted(groups=2), language="sw")
    one.totals["group.sum"][1, 1, 0] = float("inf")
    with pytest.raises(InputError) as e:
        one.check()
    assert e.value.where == "sw, group.sum, layer 1"


def test_values_that_are_not_finite_stop_the_reading(tiny, tmp_path):
    net = live_models.load_folder(tiny("llama"))
    with torch.no_grad():
        net.model.model.layers[1].mlp.gate_proj.weight[3, 0] = float("inf")
    with pytest.raises(StepFailed, match="not finite"):
        gather(net, {"en": stream(drawn(5))}, Wanted(), tmp_path / "r", how=How(window=20))
    assert not (tmp_path / "r" / "activity.en.safetensors").exists()


def test_a_count_that_does_not_agree_is_an_error(tiny, tmp_path, monkeypatch):
    net = live_models.load_folder(tiny("llama"))
    monkeypatch.setattr(Collector, "count", lambda self: None)
    with pytest.raises(StepFailed, match="another number of tokens"):
        gather(net, {"en": stream(drawn(5))}, Wanted(), tmp_path / "r", how=How(window=20))


def test_a_window_longer_than_the_model_sees_is_refused(tiny, tmp_path):
    net = live_models.load_folder(tiny("llama"))
    with pytest.raises(InputError, match="longer than what the model sees"):
        gather(net, {"en": stream(drawn(5))}, Wanted(), tmp_path / "r", how=How(window=512))


def test_an_unknown_role_is_named():
    with pytest.raises(RecipeError, match="unknown input"):
        shapes.points(Wanted(norms=("qvk",)))


def test_either_corpora_or_a_reading(tmp_path):
    with pytest.raises(ValueError, match="either corpora"):
        Texts(model="m")
    with pytest.raises(ValueError, match="either corpora"):
        Texts(model="m", corpus={"en": "a.txt"}, activity="b")


# ---------------------------------------------------------------------------------------------------------------------- the step


@pytest.fixture()
def corpora(tmp_path) -> dict[str, str]:
    lines = {"en": "one line of text number {}", "sw": "mstari wa maandishi {}"}
    for language, line in lines.items():
        (tmp_path / f"{language}.txt").write_text("".join(line.format(i) + "\n" for i in range(12)))
    return {g: str(tmp_path / f"{g}.txt") for g in lines}


def test_the_step_writes_a_reading_that_others_open(tiny, tmp_path, corpora):
    model = str(tiny("llama"))
    result = run_step(STEPS[0], STEPS[0].config(model=model, corpus=corpora, window=32, batch=2, groups=3, device="cpu"), tmp_path / "out")
    tokens = result.data["tokens"]
    assert tokens["en"] == tokens["sw"] == sum(len(line) for line in Path(corpora["sw"]).read_text().splitlines())
    assert result.tables[0].rows[1][3] == tokens["sw"] and result.tables[0].rows[0][4] == pytest.approx(1.0)
    assert result.maps[0].rows == ("en", "sw") and all(0 < v < 1 for row in result.maps[0].values for v in row)
    assert len(result.curves) == 3
    config = Texts(model=model, activity=str(tmp_path / "out"))
    found = open_activity(config, Wanted(histogram=True, groups=3, residual=True), context(tmp_path), tmp_path / "x")
    assert found.tokens("en") == tokens["en"] and found.window == 32
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="lacks") as e:
        open_activity(config, Wanted(norms=("qkv",)), context(tmp_path), tmp_path / "x")
    assert "input.qkv" in str(e.value.found)
    other = Texts(model=str(tiny("gpt2")), activity=str(tmp_path / "out"))
    with pytest.raises(InputError, match="another model") as e:
        open_activity(other, Wanted(), context(tmp_path), tmp_path / "x")
    assert model in e.value.found and other.model in e.value.expected and max(map(len, re.findall("[0-9a-f]+", e.value.found))) == 12
    assert [str(p) for p in plan_of(other, Wanted(), context(tmp_path), "").problems] == [str(e.value)]


def test_a_damaged_reading_is_refused_when_it_is_opened(tiny, tmp_path):
    net = live_models.load_folder(tiny("llama"))
    made = gather(net, {"en": stream(drawn(5))}, Wanted(), tmp_path / "r", how=How(window=20))
    assert made.array("en", "positive").any()
    data = bytearray(made.path("en").read_bytes())
    data[-20:] = b"x" * 20
    made.path("en").write_bytes(data)
    with pytest.raises(InputError, match="damaged or changed") as e:
        Activity.open(tmp_path / "r").array("en", "positive")
    assert e.value.where == made.path("en") and "again" in str(e.value.fix)


def test_what_must_be_said_of_the_text(tiny, tmp_path, corpora):
    config = Texts(model=str(tiny("llama")), corpus=corpora, tokens=10_000, window=32, device="cpu")
    found = open_activity(config, Wanted(), context(tmp_path), tmp_path / "a")
    few, fewer, apart = said(config, found)
    assert isinstance(found, Activity) and "10,000 tokens" in fewer and "not parallel" in apart
    assert few.startswith(f"Only {found.tokens('en')} tokens")
    plenty = {g: about | {"tokens": 500} for g, about in found.languages.items()}
    assert not any("Only" in note for note in said(config, dataclasses.replace(found, languages=plenty)))
    config = Texts(model=str(tiny("llama")), corpus=corpora, parallel=True, window=32, device="cpu")
    found = open_activity(config, Wanted(), context(tmp_path), tmp_path / "b")
    assert found.parallel and found.tokens("en") > found.tokens("sw")
    assert said(config, found)[1:] == ("The texts are parallel: the same documents in every language, in as many tokens as each takes.",)


def test_a_plan_reads_headers_and_tells_what_is_wrong(tiny, tmp_path, corpora):
    config = STEPS[0].config(model=str(tiny("llama")), corpus=corpora | {"de": str(tmp_path / "absent.txt")}, groups=3)
    planned = STEPS[0].plan(config, context(tmp_path))
    assert len(planned.problems) == 1 and planned.disk_bytes > 0 and planned.seconds > 0
    (tmp_path / "fr.txt").write_text("\n \n")
    (tmp_path / "de.txt").write_text("eine Zeile\n")

    def problems(**options):
        told = STEPS[0].plan(STEPS[0].config(**{"model": str(tiny("llama")), "corpus": corpora} | options), context(tmp_path)).problems
        return [str(p).splitlines()[0] for p in told]

    assert problems() == problems(parallel=True) == []
    assert [p.endswith("the corpus holds no text") for p in problems(corpus=corpora | {"fr": str(tmp_path / "fr.txt")})] == [True]
    uneven = problems(corpus=corpora | {"de": str(tmp_path / "de.txt")}, parallel=True)
    assert [p.endswith("unequal numbers of documents") for p in uneven] == [True]
    assert problems(window=10_000) == ["window: the window is longer than what the model sees"]
    with pytest.raises(RecipeError, match="made from corpora"):
        STEPS[0].plan(STEPS[0].config(model=str(tiny("llama")), activity="x"), context(tmp_path))


def test_a_model_without_a_tokenizer_is_refused(tiny, tmp_path, corpora):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny("llama"), bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match="no tokenizer"):
        passing.read(Texts(model=str(bare), corpus=corpora, device="cpu"), Wanted(), context(tmp_path), tmp_path / "r")


def test_planning_imports_no_torch():
    import subprocess

    code = "import sys; import polygraft.analysis.reading.steps; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
