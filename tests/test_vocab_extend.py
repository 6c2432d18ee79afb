"""Continued merges against counting everything again; extended tokenizers against what they were."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.merges_oracle import continued

from polygraft.vocab.tokenizer.merges import WALL, Words, learn

WORDS = st.lists(st.tuples(st.text("abc", min_size=1, max_size=12), st.integers(1, 5)), min_size=1, max_size=12)
LETTERS = {0: b"a", 1: b"b", 2: b"c"}


def ids(text: str) -> list[int]:
    return ["abc".index(c) for c in text]


@settings(max_examples=300, deadline=None)
@given(WORDS, st.integers(0, 6), st.integers(0, 12), st.integers(1, 3), st.sampled_from(["abca", "cc", "bab", ""]), st.integers(0, 9))
def test_merges_are_those_of_counting_everything_again(texts, old, size, least, unreached, wall):
    words = [(ids(t), n) for t, n in texts]
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
