"""The embedded small model, where it is on this machine: its anatomy adds up, and it answers."""

from __future__ import annotations

import pytest

from polygraft.ask import ask
from polygraft.errors import UserError
from polygraft.inspection import inspect
from polygraft.sources import resolve

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def smollm():
    try:
        return resolve("demo:smollm2", offline=True)
    except UserError as error:
        pytest.skip(f"the embedded model is not on this machine: {error.what}")


def test_its_anatomy_is_the_published_one(smollm):
    result = inspect(smollm)
    facts = dict(result.tables[0].rows)
    found = [facts[k] for k in ("layers", "hidden", "heads", "key-value heads", "ffn neurons a layer", "vocabulary")]
    assert found == [30, 576, 9, 3, 1536, 49152]
    assert facts["head"] == "tied to the embedding" and "134.5 M" in result.summary[0]


def test_it_answers_through_its_chat_template(smollm):
    answer = ask([smollm], "What is the capital of France?", max_tokens=24, device="cpu")[0]
    assert answer.chat and answer.complete and "Paris" in answer.text
