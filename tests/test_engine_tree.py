"""The trie: every sequence is a path, every node is computed once, and what a node sees are its ancestors."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polygraft.evals.engines import tree
from polygraft.evals.engines.columns import Columns
from polygraft.evals.engines.decode import groups

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=9), min_size=1, max_size=12)


def naive_visible(trie, i):
    """The ancestors of a node and itself, by following its parents."""
    out = set()
    while i >= 0:
        out.add(int(i))
        i = trie.parent[i]
    return out


@given(ROWS)
def test_nodes_are_the_distinct_beginnings(rows):
    trie = tree.build(rows, [1] * len(rows))
    beginnings = {tuple(r[:k]) for r in rows for k in range(1, len(r))}
    assert {tuple(int(trie.tokens[j]) for j in sorted(naive_visible(trie, i))) for i in range(len(trie))} == beginnings
    assert len(trie) == len(beginnings)
    assert all(trie.depth[i] == len(naive_visible(trie, i)) - 1 for i in range(len(trie)))


@given(ROWS, st.data())
def test_paths_ask_for_the_scored_tokens_of_each_sequence(rows, data):
    scored = [data.draw(st.integers(1, len(r) - 1)) for r in rows]
    trie = tree.build(rows, scored)
    for row, n, path in zip(rows, scored, trie.paths):
        nodes, tokens = trie.asked[path].T
        assert tokens.tolist() == row[len(row) - n:]
        for k, node in enumerate(nodes):
            assert [int(trie.tokens[j]) for j in sorted(naive_visible(trie, node))] == row[:len(row) - n + k]
    assert (np.diff(trie.asked[:, 0]) >= 0).all() and len({tuple(x) for x in trie.asked.tolist()}) == len(trie.asked)


@given(ROWS, st.integers(1, 8))
def test_stretches_cover_all_nodes_and_see_their_ancestors(rows, nodes):
    trie, at = tree.build(rows, [1] * len(rows)), 0
    while at < len(trie):
        stop = tree.stretch(trie, at, nodes)
        assert at < stop <= at + nodes
        path = trie.path(at)
        ids = [*path, *range(at, stop)]
        for i, sees in zip(range(at, stop), trie.visible(path, at, stop), strict=True):
            assert {ids[c] for c in np.flatnonzero(sees)} == naive_visible(trie, i)
        at = stop


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=20))
def test_groups_hold_every_prompt_once(prompts):
    assert sorted(i for g in groups(prompts) for i in g) == list(range(len(prompts)))


def test_prompts_with_other_examples_are_another_group():
    english, german = list(range(600)), list(range(1000, 1600))
    prompts = [[1, *block, 5000 + i, 6000] for i in range(4) for block in (english, german)]
    assert sorted(map(sorted, groups(prompts))) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert len(groups([[1, 2, 3, i, i + 1] for i in range(10, 40)])) == 1


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5), st.randoms()), min_size=1, max_size=6))
def test_columns_are_what_was_written_and_kept(steps):
    import torch

    cache, want, n = Columns(), [], 0
    for new, dropped, random in steps:
        values = torch.arange(n, n + new).float().reshape(1, 1, new, 1)
        keys, found = cache.update(values, -values, 0)
        cache.advance(np.arange(n, n + new))
        want, n = [*want, *range(n, n + new)], n + new
        assert keys.flatten().tolist() == want and found.flatten().tolist() == [-x for x in want]
        kept = sorted(random.sample(range(len(want)), max(0, len(want) - dropped)))
        first = next((k for k, c in enumerate(kept) if c != k), len(kept))
        cache.keep(first, kept[first:])
        want = [want[k] for k in kept]
        assert cache.get_seq_length() == len(want) and cache.positions.tolist() == want
