"""Group J: what a study cannot be made of is refused with its reason, before anything is pruned."""

from __future__ import annotations

import pytest

from polygraft.errors import InputError, RecipeError
from polygraft.recipe import plan_step
from studied import STEP, configured, studied, texts


@pytest.mark.group("J")
@pytest.mark.parametrize(("fields", "words"), [
    ({"langs": ("en", "de")}, "no corpus"),
    ({"evaluate": {}}, "--evaluate en=PATH"),
    ({"reference": "de"}, "none of the languages"),
    ({"noise": (0.0,)}, "share of tokens"),
    ({"noise": (1.5,)}, "share of tokens"),
    ({"methods": ()}, "nothing to compare"),
    ({"settings": ()}, "nothing to compare"),
    ({"sparsity": (1.5,)}, "less than or equal to 1"),
    ({"sparsity": (), "patterns": ("5:4",)}, "not a pattern"),
    ({"settings": ("protected",), "sparsity": (), "patterns": ("1:4",)}, "nothing to protect"),
    ({"calibrate": {"fr": 1.0}}, "no corpus"),
])  # fmt: skip
def test_settings_that_are_no_study(tmp_path, fields, words):
    with pytest.raises(RecipeError) as e:
        configured("m", tmp_path, **fields)
    assert words in str(e.value)


@pytest.mark.group("J")
@pytest.mark.parametrize(("fields", "words"), [
    ({"seq_len": 4096}, "longer than what the model sees"),
    ({"samples": 1}, "fewer windows than languages"),
    ({"samples": 9000}, "too short"),
    ({"sparsity": (), "patterns": ("3:5",)}, "do not divide"),
])  # fmt: skip
def test_what_a_plan_finds(tiny, tmp_path, fields, words):
    found = plan_step(STEP, configured(tiny("llama"), tmp_path, **fields)).plan
    assert any(words in str(p) for p in found.problems)


@pytest.mark.group("J")
def test_the_calibration_text_itself_is_not_read(tiny, tmp_path):
    same = texts(tmp_path, "calibrate")
    with pytest.raises(InputError, match="calibration text itself"):
        studied(tiny("llama"), tmp_path, evaluate=same)


@pytest.mark.group("J")
@pytest.mark.parametrize(("lines", "words"), [(1, "too few documents"), (0, "holds no text")])
def test_texts_without_two_documents(tiny, tmp_path, lines, words):
    read = texts(tmp_path, "few", documents=lines)
    with pytest.raises(InputError, match=words):
        studied(tiny("llama"), tmp_path, evaluate=read, diagnose=0)
