"""`vocab init` with what does not fit: refused with both values, nothing half-written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from newtokens import extended
from polygraft.errors import UserError
from polygraft.recipe import run_step
from polygraft.steps import TABLE
from polygraft.vocab.init.steps import Init

STEP = next(s for s in TABLE if s.name == "vocab.init")


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def control(i, name):
    return {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def table(base, edit):
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"] = edit(tensors["model.embed_tokens.weight"].copy())
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def no_start(base, new):
    change(base / "tokenizer.json", lambda t: t["added_tokens"].append(control(260, "<begin>")))
    change(base / "config.json", lambda c: c.update(bos_token_id=260))


def beyond(base, new):
    change(base / "tokenizer.json", lambda t: t["added_tokens"].extend(control(i, f"<far {i}>") for i in range(260, 270)))


def twice(base, new):
    change(new / "tokenizer.json", lambda t: t["model"]["vocab"].update(again=5))


def wordpiece(base, new):
    change(new / "tokenizer.json", lambda t: t["model"].update(type="WordPiece", continuing_subword_prefix="##"))


def nothing(base, new):
    (new / "tokenizer.json").unlink()


def no_old(base, new):
    (base / "tokenizer.json").unlink()


def not_numbers(base, new):
    def edit(values):
        values[100:] = np.nan
        return values

    table(base, edit)


def bytes_only(base, new):
    table(base, lambda values: values.astype(np.int8))


CASES = [(beyond, 3, ("<far 269>", "id 269", "below 264")), (no_start, 3, ("bos_token_id", "<begin>", "260")), (twice, 3, ("id 5 is",)),
         (wordpiece, 3, ("WordPiece",)), (nothing, 3, ("tokenizer.json",)), (no_old, 3, ("tokenizer.json",)),
         (not_numbers, 5, ("embed_tokens", "nan")), (bytes_only, 3, ("I8",))]  # fmt: skip


@pytest.mark.group("J")
@pytest.mark.parametrize(("edit", "code", "words"), CASES, ids=[c[0].__name__ for c in CASES])
def test_what_does_not_fit_is_refused(edit, code, words, tiny, tmp_path):
    base, new = tmp_path / "base", tmp_path / "new"
    shutil.copytree(tiny("llama"), base)
    extended(base, new)
    edit(base, new)
    with pytest.raises(UserError) as caught:
        run_step(STEP, Init(model=str(base), tokenizer=str(new)), tmp_path / "out")
    assert caught.value.exit_code == code and all(word in caught.value.render() for word in words), caught.value.render()
    assert not (tmp_path / "out").exists()


@pytest.mark.group("J")
def test_a_row_that_half_precision_cannot_hold(tiny, tmp_path):
    base, new = tmp_path / "base", tmp_path / "new"
    shutil.copytree(tiny("llama"), base)

    def edit(values):
        values = np.sign(values).astype(np.float16) * np.float16(60000)
        values[:, 0] = 65504  # the largest there is: the mean keeps it, the others cancel, and scaled to the old norm it is beyond
        return values

    table(base, edit)
    with pytest.raises(UserError, match=r"(?s)does not fit.*65504"):
        run_step(STEP, Init(model=str(base), tokenizer=str(extended(base, new))), tmp_path / "out")
    assert not (tmp_path / "out").exists()
