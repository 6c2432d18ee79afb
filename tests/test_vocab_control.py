"""Ids in a config: moved by what they mean, refused where they mean nothing, and numbers that are no ids left alone."""

from __future__ import annotations

import pytest

from polygraft.errors import InputError
from polygraft.tokenfile import Vocabulary
from polygraft.vocab import control
from test_tokenfile import TEXT, byte_level


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A vocabulary, and one of more tokens in which the control tokens have other ids."""
    found = []
    for name, size, specials in (("old", 300, ("<s>", "</s>")), ("new", 330, ("<pad>", "</s>", "<s>"))):
        folder = tmp_path_factory.mktemp(name)
        byte_level(size, TEXT, specials).save(str(folder / "tokenizer.json"))
        found.append(Vocabulary.open(folder))
    return found


def test_ids_move_by_meaning_and_what_they_weigh_does_not(two):
    old, new = two
    start, end = old.by_name["<s>"], old.by_name["</s>"]
    config = {"eos_token_id": [end, start], "hidden_size": end, "bad_words_ids": [[start, end], [end]], "pad_token_id": -1,
              "sequence_bias": [[[start], end], [[end, start], -2.5]], "vocab_size": 300}  # fmt: skip
    made = control.remap(config, old, new, "config.json", 384)
    a, b = new.by_name["<s>"], new.by_name["</s>"]
    assert a != start
    assert made == {"eos_token_id": [b, a], "hidden_size": end, "bad_words_ids": [[a, b], [b]], "pad_token_id": -1,
                    "sequence_bias": [[[a], end], [[b, a], -2.5]], "vocab_size": 384}  # fmt: skip
    assert control.named({"sequence_bias": [[[start], 77]], "eos_token_id": end}) == {start, end}


def test_a_row_without_a_token_stays_where_it_is_and_never_becomes_a_token(two):
    old, new = two
    assert control.remap({"pad_token_id": 350}, old, new, "config.json", 384)["pad_token_id"] == 350
    taken = old.size + 3  # padding before, a token of the new vocabulary
    for config, said in (({"pad_token_id": taken}, f"{taken}, which would become {new.names[taken]!r}"), ({"pad_token_id": 999}, "999")):
        with pytest.raises(InputError) as e:
            control.remap(config, old, new, "config.json", 384)
        assert e.value.found == said and "pad_token_id" in str(e.value.where)
