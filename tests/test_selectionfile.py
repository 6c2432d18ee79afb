"""Selection files: what is written is read, what is not a selection is refused with its place, masks are sets of neurons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import selectionfile
from polygraft.errors import InputError, RecipeError
from polygraft.selectionfile import Entry, from_mask, layers, neurons, pick, read, split, write

GOOD = {"layer": 3, "kind": "ffn", "role": "neuron", "rows": [4, 9]}
ENTRIES = st.builds(
    Entry, layer=st.integers(0, 9), kind=st.just("ffn"), role=st.sampled_from(["neuron", "gate", "experts.up"]),
    rows=st.none() | st.lists(st.integers(0, 99), max_size=6), expert=st.none() | st.integers(0, 3))  # fmt: skip
NAMES = st.text(st.characters(blacklist_categories=("Cs", "Z", "C"), blacklist_characters=":+/\\"), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.lists(ENTRIES, max_size=4).map(tuple), max_size=4))
def test_what_is_written_is_read(tmp_path_factory, named):
    path = tmp_path_factory.mktemp("s") / "selection.json"
    write(path, named, {"method": "lape"})
    assert read(path) == named and list(read(path)) == list(named)
    first = path.read_bytes()
    write(path, read(path), {"method": "lape"})
    assert path.read_bytes() == first


def test_the_file_is_the_form_that_others_read(tmp_path):
    write(tmp_path / "s.json", {"sw": (Entry(3, "ffn", "neuron", [9, 4]), Entry(0, "ffn", "up"))}, {"method": "lape"})
    value = json.loads((tmp_path / "s.json").read_text())
    assert value["selections"] == {"sw": [GOOD, {"layer": 0, "kind": "ffn", "role": "up", "rows": None}]}
    assert value["about"] == {"method": "lape"} and set(value) == {"polygraft", "about", "selections"}


def test_a_file_by_hand_needs_no_wrapper(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"mine": [GOOD]}))
    assert read(tmp_path / "s.json") == {"mine": (Entry(3, "ffn", "neuron", [4, 9]),)}


@pytest.mark.parametrize("change, what", [
    ({"layer": -1}, "layer"), ({"layer": 1.5}, "layer"), ({"layer": True}, "layer"), ({"layer": None}, "layer is missing"),
    ({"layer": 10**12}, "layer"), ({"kind": "mlp"}, "unknown kind"), ({"kind": None}, "unknown kind"), ({"kind": ["ffn"]}, "unknown kind"),
    ({"kind": "outside"}, "unknown kind"), ({"kind": "attn"}, "only the kind ffn"), ({"role": 3}, "not a role"), ({"role": ""}, "not a role"),
    ({"role": None}, "rows of which matrix"), ({"rows": [1, 1]}, "twice"), ({"rows": [-1]}, "not the number of a row"),
    ({"rows": [1.0]}, "not the number of a row"), ({"rows": [True]}, "not the number of a row"), ({"rows": "all"}, "not a list"),
    ({"rows": 3}, "not a list"), ({"expert": -2}, "expert"), ({"expert": "a"}, "expert"), ({"row": [1]}, "unknown field"),
])  # fmt: skip
def test_an_entry_that_is_none_is_refused_with_its_place(tmp_path, change, what):
    (tmp_path / "s.json").write_text(json.dumps({"selections": {"sw": [GOOD, GOOD | change]}}))
    with pytest.raises(InputError, match=what) as error:
        read(tmp_path / "s.json")
    assert "s.json: sw[1]" in str(error.value)


@pytest.mark.parametrize("text", ["[]", "3", '{"a": 1}', '{"selections": []}', '{"selections": {"a": {}}}', '{"a b": []}', '{"a:b": []}',
                                  '{"": []}', '{"a": [3]}', '{"a": [], "a": []}', "{", '{"a": [{"kind": "head", "layer": null}]}'])  # fmt: skip
def test_a_file_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError) as error:
        read(tmp_path / "s.json")
    assert "s.json" in str(error.value)


@pytest.mark.parametrize("word, file, names", [
    ("a.json", "a.json", ()), ("a.json:sw", "a.json", ("sw",)), ("found:sw+en", "found", ("sw", "en")), ("/x:y/a.json", "/x:y/a.json", ()),
    ("/x:y/a.json:sw", "/x:y/a.json", ("sw",)), ("found", "found", ()),
])  # fmt: skip
def test_a_word_is_split_at_the_last_colon_that_is_not_of_a_path(word, file, names):
    assert split(word) == (file, names)


def test_pick(tmp_path):
    a, b = Entry(0, "ffn", "up"), Entry(1, "ffn", "up")
    write(tmp_path / selectionfile.FILE, {"a": (a,), "b": (b,)})
    for file in (str(tmp_path), str(tmp_path / selectionfile.FILE)):
        assert pick(f"{file}:a", Path) == (a,) and pick(f"{file}:b+a", Path) == (b, a)
    with pytest.raises(RecipeError, match="several") as error:
        pick(str(tmp_path), Path)
    assert f"name one: {tmp_path}:a" in str(error.value)
    with pytest.raises(RecipeError, match="no selection of this name"):
        pick(f"{tmp_path}:c", Path)
    write(tmp_path / "one.json", {"a": (a,)})
    assert pick(str(tmp_path / "one.json"), Path) == (a,)
    write(tmp_path / "none.json", {})
    with pytest.raises(RecipeError, match="holds no selection"):
        pick(str(tmp_path / "none.json"), Path)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_a_mask_is_its_entries(data, depth, experts, each):
    cells = depth * experts * each
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells)), bool).reshape(depth, experts * each)
    sizes = [experts * each] * depth
    for n in (0, experts):
        entries = from_mask(mask, n)
        assert (neurons(entries, depth, sizes, n) == mask).all() and neurons(entries, depth, sizes, n).shape == mask.shape
        assert layers(entries) == np.flatnonzero(mask.any(1)).tolist()
        assert sum(len(e.rows) for e in entries) == mask.sum()


def test_experts_of_unequal_size_are_refused():
    with pytest.raises(InputError, match="unequal"):
        from_mask(np.ones((1, 5), bool), 2)


def test_layers_of_different_widths_have_no_neurons_beyond_their_own():
    mask = neurons([Entry(0, "ffn", "neuron"), Entry(1, "ffn", "up")], 2, (3, 5))
    assert mask.tolist() == [[True, True, True, False, False], [True] * 5]


@pytest.mark.parametrize("entry, what", [
    (Entry(0, "attn", "q"), "not FFN neurons"), (Entry(0, "ffn", "down", [1]), "not FFN neurons"), (Entry(2, "ffn", "neuron"), "no such layer"),
    (Entry(0, "ffn", "neuron", [3]), "beyond"), (Entry(0, "ffn", "neuron", [0], 1), "no such expert"), (Entry(None, "embed"), "not FFN neurons"),
])  # fmt: skip
def test_what_is_no_neuron_is_refused(entry, what):
    with pytest.raises(InputError, match=what):
        neurons([entry], 2, (3, 5))


def test_rows_are_sorted_and_distinct():
    entry = Entry(0, "ffn", "neuron", [9, 4, 9])
    assert entry.rows.tolist() == [4, 9] and entry.rows.dtype == np.int64 and entry == Entry(0, "ffn", "neuron", [4, 9])
    assert len({entry, Entry(0, "ffn", "neuron", [4, 9])}) == 1 and entry != Entry(0, "ffn", "neuron") and entry != 3
