"""Group J: what makes models smaller, at the edge: words that cannot be meant, text that is not there."""

from __future__ import annotations

import pytest

from polygraft.config import Document, parse
from polygraft.errors import InputError, RecipeError
from polygraft.recipe import run_step
from polygraft.steps import TABLE

pytestmark = pytest.mark.group("J")
STEPS = {s.name.removeprefix("prune."): s for s in TABLE if s.name.startswith("prune.")}
ASKED = {"depth": {"layers": 1}, "experts": {"experts": 1}, "imatrix": {}, "lowbit": {}}


def config(name, model, corpus, **more):
    step, held = STEPS[name], {} if name == "imatrix" else {"evaluate": {"sw": corpus}, "documents": 3}
    fields = {"model": str(model), "corpus": {"sw": corpus}, "samples": 2, "seq_len": 16, "dtype": "float32", **ASKED[name], **held}
    return step.config(**(fields | more))


BAD = [("depth", {"layers": 0}), ("depth", {"how": "random"}), ("depth", {"objective": "best"}), ("experts", {"experts": 0}),
       ("imatrix", {"format": "csv"}), ("lowbit", {"bits": 1}), ("lowbit", {"bits": 9}), ("lowbit", {"group": 1}),
       ("lowbit", {"documents": 1}), ("lowbit", {"evaluate": {}}), *((name, {"corpus": {}}) for name in ASKED)]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), BAD)
def test_words_that_cannot_be_meant_are_refused_by_name(name, more):
    held = {} if name == "imatrix" else {"evaluate": {"sw": "b.txt"}}
    fields = {"model": "m", "corpus": {"sw": "a.txt"}, **ASKED[name], **held} | more
    with pytest.raises(RecipeError):
        parse(STEPS[name].config, Document(fields, "recipe", {(): "recipe"}))


@pytest.mark.parametrize("name", sorted(ASKED))
@pytest.mark.parametrize("text", ["", "x\n"])
def test_text_that_is_not_there_leaves_nothing_behind(tiny, tmp_path, name, text):
    corpus = tmp_path / "sw.txt"
    corpus.write_text(text)
    with pytest.raises(InputError):
        run_step(STEPS[name], config(name, tiny("mixtral"), str(corpus)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
