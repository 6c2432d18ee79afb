"""Strict YAML, overrides, and what the errors of pydantic become."""

from __future__ import annotations

import json
import math
import time
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from polygraft.config import Strict, describe, override, parse
from polygraft.errors import RecipeError
from polygraft.recipetext import dump
from polygraft.yamltext import LIMIT, parse_document, scalar


class Part(Strict):
    kind: Literal["attn", "ffn"]
    size: float = 1.0


class Config(Strict):
    name: str = "x"
    count: int | Literal["auto"] = "auto"
    ratio: float = Field(0.5, gt=0, lt=1)
    parts: list[Part] = Field(default_factory=list)
    shape: tuple[int, ...] = ()
    maps: dict[str, Part | str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError("names are written in small letters")
        return value


def read(text: str) -> Config:
    return parse(Config, parse_document(text, "r.yaml"))


def told(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(("text", "value"), [
    ("", None), ("null", None), ("~", None), ("Null", "Null"), ("true", True), ("FALSE", False), ("yes", "yes"), ("off", "off"), ("0", 0),
    ("-7", -7), ("+7", 7), ("007", "007"), ("1_0", "1_0"), ("0x1F", "0x1F"), ("1e-5", 1e-5), ("1.", 1.0), (".5", 0.5), ("-.5e3", -500.0),
    ("1e5", 1e5), (".", "."), ("e5", "e5"), ("1e", "1e"), (".inf", ".inf"), (".nan", ".nan"), ("1:30", "1:30"), ("2026-01-02", "2026-01-02"),
    ("1.2.3", "1.2.3"), ("１２", "１２"), ("3\n", "3\n"),
])
def test_scalars_follow_yaml_1_2(text, value):  # fmt: skip
    found = scalar(text)
    assert found == value and type(found) is type(value)


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.text(max_size=20),
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@example({"\x85": "a\x85b"})
@given(trees)
def test_what_we_write_reads_back_as_the_same_values(tree):
    document = parse_document(dump({"tree": tree}), "r.yaml")
    assert json.dumps(document.tree, sort_keys=True) == json.dumps({"tree": tree}, sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text("ab:-[]{}&*!|>'\"%@`#?,\n\t 1.~<", max_size=30))
def test_any_text_is_read_or_refused_in_words(text):
    try:
        document = parse_document(text, "r.yaml")
        parse(Config, document)
    except RecipeError as e:
        assert e.exit_code == 2 and str(e).strip()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_in_words(data):
    try:
        parse_document(data, "r.yaml")
    except RecipeError as e:
        assert str(e)


def test_lines_know_every_place():
    document = parse_document("name: a\nparts:\n  - kind: attn\n  -\n    kind: ffn\nmaps: {x: a,\n  y: b}\n", "r.yaml")
    places = {("name",): 1, ("parts",): 2, ("parts", 0): 3, ("parts", 1, "kind"): 5, ("maps", "x"): 6, ("maps", "y"): 7}
    assert {p: document.lines[p] for p in places} == places
    assert document.where(("parts", 1, "nowhere", 3)) == "r.yaml:5"


def test_block_and_quoted_text_is_text():
    document = parse_document("a: '1'\nb: \"true\"\nc: |\n  12\nd: >-\n  null\n", "r.yaml")
    assert document.tree == {"a": "1", "b": "true", "c": "12\n", "d": "null"}


def test_values_get_their_types():
    config = read("count: 3\nratio: 1e-5\nparts: [{kind: ffn, size: 2}]\nshape: [1, 2]\nmaps: {no: {kind: attn}, yes: on}")
    assert config == Config(count=3, ratio=1e-5, parts=[Part(kind="ffn", size=2)], shape=(1, 2), maps={"no": Part(kind="attn"), "yes": "on"})
    assert isinstance(config.parts[0].size, float)


@pytest.mark.parametrize(("text", "words"), [
    ("count: x", ["r.yaml:1: count:", 'text "x"', "a whole number or one of auto"]),
    ("name: A", ["name: names are written in small letters", 'text "A"']),
    ("ratio: 1", ["less than 1", "the number 1"]),
    ("parts:\n  - {kind: atn}", ["r.yaml:2: parts[0].kind", "one of attn, ffn", "did you mean `attn`?"]),
    ("parts:\n  - {size: 3}", ["r.yaml:2: parts[0]: `kind` is missing", "one of attn, ffn"]),
    ("shape: [1, 2.5]", ["shape[1]", "2.5", "a whole number"]),
    ("shape: 3", ["expected: a list"]),
    ("maps: {a: {kind: attn, sise: 3}}", ["maps.a: unknown key `sise`", "did you mean `size`?"]),
    ("maps: {a: 3}", ["maps.a", "a mapping (`key: value`) or text"]),
    ("name:", ["found: nothing", "expected: text"]),
    ("- a", ["not a mapping", "a list of 1"]),
    ("3", ["not a mapping", "the number 3"]),
])
def test_faults_say_where_what_and_how(text, words):  # fmt: skip
    message = told(text)
    assert all(w in message for w in words), message


def test_faults_come_in_the_order_of_the_text():
    message = told("shape: 1\nzzz: 2\nratio: 7\n")
    assert message.startswith("3 problems\n") and message.index(":1:") < message.index(":2:") < message.index(":3:")


def test_configs_are_frozen_and_their_defaults_are_checked():
    with pytest.raises(ValueError, match="frozen"):
        Config().name = "y"  # type: ignore[misc]
    with pytest.raises(ValueError, match="finite"):
        Config(ratio=math.nan)


def test_a_file_at_the_limit_is_read_within_seconds():
    text = "a:\n" + "  - 1234567\n" * ((LIMIT - 10) // 12)
    start = time.monotonic()
    assert len(parse_document(text, "r.yaml").tree["a"]) > 20_000
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(("setting", "place", "value"), [
    ("name=b", ("name",), "b"),
    ("count=7", ("count",), 7),
    ("name='7'", ("name",), "7"),
    ("ratio=1e-3", ("ratio",), 1e-3),
    ("parts.0.kind=ffn", ("parts", 0, "kind"), "ffn"),
    ("parts.first.kind=ffn", ("parts", 0, "kind"), "ffn"),
    ("maps.sw=no", ("maps", "sw"), "no"),
    ("shape=[3, 4]", ("shape",), [3, 4]),
    ("name=a=b", ("name",), "a=b"),
    ("name=", ("name",), None),
    ("maps={a: b}", ("maps",), {"a": "b"}),
])
def test_settings_are_read_by_the_rules_of_the_file(setting, place, value):  # fmt: skip
    document = parse_document("name: a\nparts:\n  - id: first\n    kind: attn\nmaps: {}\n", "r.yaml")
    changed = override(document, [setting])
    tree = changed.tree
    for name in place:
        tree = tree[name]
    assert tree == value and changed.where(place) == f"--set {setting}"
    assert document.tree["name"] == "a", "the document itself is left alone"


def test_later_settings_win():
    assert override(parse_document("name: a", "r.yaml"), ["name=b", "name=c"]).tree == {"name": "c"}


@pytest.mark.parametrize(("value", "words"), [
    (None, "nothing"), (True, "true"), (3, "the number 3"), ("", "empty text"), ("x" * 100, f'text "{"x" * 60}"...'), ("a\nb\x1b", 'text "a\\nb\\u001b"'),
    ([1], "a list of 1"), ({"a": 1}, "a mapping with `a`"), ({}, "a mapping with no keys"),
])
def test_values_in_words_stay_on_one_line(value, words):  # fmt: skip
    assert describe(value) == words
