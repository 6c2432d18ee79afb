"""The small model's tokenizer on real parallel text: the figures that the documentation tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from polygraft.errors import UserError
from polygraft.languages import name
from polygraft.recipe import run_step
from polygraft.sources import resolve
from polygraft.steps import TABLE
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics.steps import Tokenizers

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "flores200_devtest"
FILES = {"en": "eng_Latn", "ru": "rus_Cyrl", "sw": "swh_Latn", "ja": "jpn_Jpan"}
needed = pytest.mark.skipif(not DATA.is_dir(), reason="flores200_devtest is not in ../shared/data")


def documented() -> dict[str, list[float | None]]:
    """Language -> the numbers of its row."""
    text = (ROOT / "docs" / "methods" / "tokenizers.md").read_text()
    rows = re.findall(r"^\| (\w+) \| ([\d.]+ \|.*) \|$", text, re.MULTILINE)
    return {language: [None if c.strip() == "–" else float(c.split("/")[0]) for c in cells.split("|")] for language, cells in rows}


@needed
def test_the_documented_table_is_what_is_measured(tmp_path):
    try:
        source = resolve("demo:smollm2", offline=True)
    except UserError as error:
        pytest.skip(f"the embedded model is not on this machine: {error.what}")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "tokenizer.json").write_bytes(source.weights.extras["tokenizer.json"].read_bytes())
    files = {language: str(DATA / f"{file}.txt.xz") for language, file in FILES.items()}
    step = next(s for s in TABLE if s.name == "analyze.tokenizer")
    made = run_step(step, Tokenizers(tokenizers=("demo",), parallel=files), tmp_path / "out", folder=tmp_path)
    found, told = made.data["tokenizers"]["demo"], documented()
    assert found["size"] == Vocabulary.open(tmp_path / "demo").size and not found["unreachable"] and not found["control_parted"]
    for language, of in found["languages"].items():
        f, row = of["figures"], told[name(language)]
        measured = [f["characters per token"], f["bytes per token"], made.data["parallel"]["demo"]["premium"][language],
                    f.get("fertility"), f.get("continued words"), f.get("STRR of running words")]  # fmt: skip
        assert [None if m is None else pytest.approx(m, abs=0.051 if i > 3 else 0.0051) for i, m in enumerate(measured)] == row[:6]
        assert f["documents unchanged by a round trip"] == 100 and f["unknown"] == 0
