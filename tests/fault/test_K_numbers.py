"""Answers of the world: whatever a model writes, in 22 languages, every metric of quality gives defined numbers."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.quality import METRICS
from polygraft.evals.quality import identify
from test_quality import SAID

FORMS = {
    "as it is": lambda t: t,
    "decomposed": lambda t: unicodedata.normalize("NFD", t),
    "joiners and marks": lambda t: "\u200d".join(t.split(" ")) + "\u0301\u200c",
    "both directions": lambda t: f"\u202b{t}\u202c abc \u2067{t}\u2069",
    "lone surrogate": lambda t: t[:3] + "\ud800" + t[3:],
    "NUL": lambda t: t[:3] + "\x00" + t[3:],
    "byte-order mark and CRLF": lambda t: "\ufeff" + t + "\r\n" + t,
    "digits": lambda t: "١٢٣ १२३ ๑๒๓ 十二 1,00,000 3,5 −4",
    "empty": lambda t: "",
    "long line": lambda t: t * (20_000 // len(t)),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("language", SAID)
def test_every_form_of_an_answer_is_scored(language, record_property):
    record_property("cases", len(FORMS))
    for form, make in FORMS.items():
        text = make(SAID[language])
        item = Item("1", language, SAID["en"], golds=(SAID[language],))
        for m in (*METRICS, metrics.get("chrF"), metrics.get("BLEU")):
            columns = np.array(m.score(item, Response(text=text, finished=False)), float)
            value = float(m.value(columns))
            assert np.isfinite(columns).all() and np.isfinite(value) and (columns >= 0).all(), (form, m.name)
            assert 0 <= value <= (100 + 1e-9 if m.unit == "points" else 1), (form, m.name)
        if form in ("as it is", "decomposed", "NUL", "byte-order mark and CRLF", "long line"):
            assert identify.spoken(text, language) is True, form
        if form in ("digits", "empty"):
            assert identify.spoken(text, language) is None, form
