"""Group J: partitions and configs of `tune partition` that cannot be meant are refused, before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

import tiny as make
from polygraft import selectionfile
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, RecipeError
from polygraft.evals.callback import WATCHERS
from polygraft.selectionfile import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import owners
from polygraft.tune.config import Around
from polygraft.tune.partition import Partition, partition_step

ROWS = [{"prompt": f"{a}+1=", "completion": str(a + 1)} for a in range(4)]
STEP = partition_step(Around({"rows": lambda spec: ROWS[: int(spec or 4)]}, WATCHERS))
FAST = {"model": "m", "task_data": ["rows:"], "language_data": ["rows:"], "steps": 2, "batch": 1, "length": 16, "device": "cpu"}
J = pytest.mark.group("J")


@pytest.fixture
def context(tiny, tmp_path):
    file, some = tmp_path / "found.json", np.zeros((4, make.FFN), bool)
    some[1, :5] = True
    selectionfile.write(file, {"sw": selectionfile.from_mask(some), "all": selectionfile.from_mask(np.ones((4, make.FFN), bool)),
                            "head": [Entry(None, "head")], "both": [Entry(None, "head"), Entry(None, "embed")]})  # fmt: skip
    return Context(model=lambda ref: resolve(tiny("llama", layers=4)), data=lambda ref: ref, folder=lambda ref: file)


@J
@pytest.mark.parametrize(("more", "error", "said"), [
    ({"language_layers": ["0-3"], "outside": "language"}, RecipeError, "the task's part is empty"),
    ({"language_layers": ["0-3"], "outside": "none"}, RecipeError, "the task's part is empty"),
    ({"language_layers": ["4"]}, RecipeError, "no such layer"),
    ({"language_layers": ["2-1"]}, RecipeError, "no such layer"),
    ({"language_parts": ["nothing"]}, RecipeError, "no such part"),
    ({"language_select": "found:sw", "task_select": "found:sw"}, RecipeError, "overlap"),
    ({"language_select": "found:sw", "task_select": "found:all"}, RecipeError, "overlap"),
    ({"language_select": "found:none"}, RecipeError, "no selection of this name"),
    ({"language_data": ["rows:0"]}, InputError, "no example"),
    ({"task_data": ["a=rows:", "b=rows:2"], "mix": {"weights": {"nothing": 1}}}, RecipeError, "weight"),
])
def test_what_cannot_be_parted_is_refused(context, tmp_path, more, error, said):
    config = Partition(**(FAST | more))
    for call in (lambda: STEP.plan(config, context), lambda: STEP.run(config, context, tmp_path / "out")):
        with pytest.raises(error, match=said):
            call()
    assert not (tmp_path / "out").exists()


@J
@pytest.mark.parametrize(("more", "said"), [
    ({"language_data": []}, "language_data"), ({"task_data": []}, "task_data"), ({"steps": 1}, "two steps"),
    ({"steps": None, "packing": True}, "say `steps`"), ({"language_select": "a", "language_layers": ["0"]}, "once"),
    ({"method": "freez"}, "method"), ({"outside": "both"}, "outside"),
    *(({"method": m, "retain": {"replay": ["rows:"]}}, "replay belongs to one side") for m in ("simultaneous", "freeze")),
    ({"method": "joint", "language_layers": ["0"]}, "joint` moves what either side owns, so `language_layers` would do nothing"),
])
def test_configs_that_cannot_be_meant_are_refused(more, said):
    with pytest.raises(ValueError, match=said):
        Partition(**(FAST | more))


@J
def test_tied_embeddings_have_one_owner(tiny, context):
    checkpoint = Checkpoint.open(tiny("llama", layers=4))  # head and embedding are two tensors of its file
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    tied = Anatomy.of(checkpoint.config | {"tie_word_embeddings": True}, checkpoint.tensors)

    def parts(name):
        language = selectionfile.on(selectionfile.pick(f"found:{name}", context.folder), tied, shapes)
        return owners.partition(language, None, "task", tied, shapes)

    with pytest.raises(RecipeError, match="one tensor"):
        parts("head")
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= parts("both").language.rows.keys()
