"""Odd tokenizers, tables and texts under `analyze tokenizer` and `vocab assess`: a defined value, or refused in a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polygraft.errors import InputError, UserError
from polygraft.recipe import run_step
from polygraft.steps import TABLE
from polygraft.vocab.metrics import rows
from polygraft.vocab.metrics.steps import Tokenizers
from test_tokenfile import TEXT, byte_level
from test_vocab_metrics import Rows, vocabulary
from tiny import folder

pytestmark = pytest.mark.group("J")
STEP = next(s for s in TABLE if s.name == "analyze.tokenizer")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("odd")
    (path / "plain").mkdir()
    byte_level().save(str(path / "plain" / "tokenizer.json"))
    (path / "text.txt").write_text("\n".join(TEXT))
    (path / "empty.txt").write_text("\n \n")
    (path / "latin.txt").write_bytes("déjà".encode("latin-1"))
    (path / "nul.txt").write_bytes(b"a\0b")
    tree = json.loads((path / "plain" / "tokenizer.json").read_text())
    for name, change in {"twice": lambda t: t["model"]["vocab"].update(again=5), "lacking": lambda t: t.pop("model")}.items():
        made = json.loads(json.dumps(tree))
        change(made)
        (path / name).mkdir()
        (path / name / "tokenizer.json").write_text(json.dumps(made))
    return path


REFUSED = {
    "two tokens of one id": ({"tokenizers": ("twice",), "corpus": {"en": "text.txt"}}, "id 5 is"),
    "no model section": ({"tokenizers": ("lacking",), "corpus": {"en": "text.txt"}}, "not a tokenizer"),
    "no text": ({"tokenizers": ("plain",), "corpus": {"en": "empty.txt"}}, "holds no text"),
    "not UTF-8": ({"tokenizers": ("plain",), "corpus": {"fr": "latin.txt"}}, "not UTF-8"),
    "a NUL": ({"tokenizers": ("plain",), "corpus": {"en": "nul.txt"}}, "NUL"),
    "not parallel": ({"tokenizers": ("plain",), "parallel": {"en": "text.txt", "fr": "plain/tokenizer.json"}}, "not read as a corpus"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_place(place, tmp_path, case):
    config, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        run_step(STEP, Tokenizers(**config), tmp_path / "out", folder=place)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_ids_beyond_the_embedding_is_refused_with_both_numbers(place, tmp_path):
    model = folder(tmp_path, "llama")
    byte_level(size=340).save(str(model / "tokenizer.json"))
    with pytest.raises(InputError, match=r"(?s)ids beyond the embedding.*found: id 339.*expected: below 264"):
        run_step(STEP, Tokenizers(models=(str(model),), corpus={"en": "text.txt"}), tmp_path / "out", folder=place)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(tmp_path, tied, bad):
    v = vocabulary(tmp_path, byte_level())
    values = np.ones((v.size + 4, 8))
    values[7, 3] = bad
    table = Rows(values)
    with pytest.raises(InputError, match=r"(?s)not finite.*row 7, of 1"):
        rows.undertrained(v, {"in": table} if tied else {"in": table, "out": table})


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_of_zeros_has_numbers_and_no_nan(tmp_path, tied):
    v = vocabulary(tmp_path, byte_level())
    table = Rows(np.zeros((v.size + 4, 8)))
    made = rows.undertrained(v, {"in": table} if tied else {"in": table, "out": table})
    assert np.isfinite(made.indicator).all() and made.threshold == 0


def test_one_short_document_in_a_language_without_words_gives_a_result_without_nan(place, tmp_path):
    (place / "zh.txt").write_text("日")
    made = run_step(STEP, Tokenizers(tokenizers=("plain",), corpus={"zh": "zh.txt"}), tmp_path / "out", folder=place)
    json.dumps(made.to_json(), allow_nan=False)
    (place / "dots.txt").write_text("...\n!!!")
    made = run_step(STEP, Tokenizers(tokenizers=("plain",), corpus={"en": "dots.txt"}), tmp_path / "out2", folder=place)
    json.dumps(made.to_json(), allow_nan=False)
