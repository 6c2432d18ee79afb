"""activity.json of a reading: what is not one is refused with the file and the field, when it is opened."""

from __future__ import annotations

import json

import pytest

from polygraft.activity import FIELDS, FILE, Activity
from polygraft.errors import InputError

ABOUT = {"tokens": 3, "documents": 1, "groups": 0, "digest": "d", "path": "a.txt", "characters": 9}
GOOD = {"languages": {"en": ABOUT}, "layers": 2, "sizes": [4, 4], "hidden": 8, "experts": 0, "edges": [-1.0, 0.0, 1.0],
        "identity": "x", "parallel": False, "window": 16, "model": "m"}  # fmt: skip
BAD = [
    ("layers", "x"), ("layers", True), ("layers", -1), ("layers", 2.0), ("sizes", 4), ("sizes", ["4", 4]), ("sizes", [4]), ("hidden", None), ("experts", "0"),
    ("edges", "0 1"), ("edges", ["a", "b"]), ("edges", [0.0]), ("edges", [1.0, 0.0]), ("edges", [0.0, 10**400]), ("identity", 3), ("parallel", "no"), ("window", []),
    ("languages", ["en"]), ("languages", {}), ("languages", {"en": 3}), ("languages", {"en": {"tokens": 3}}), ("languages", {"en": ABOUT | {"tokens": "3"}}),
    ("languages", {"en": ABOUT | {"path": None}}), ("languages", {"en": ABOUT | {"characters": "many"}}), ("languages", {"en": ABOUT | {"sha256": 3}}), ("model", 3),
]  # fmt: skip


def test_a_reading_opens_as_it_was_saved(tmp_path):
    assert set(GOOD) == set(FIELDS)
    (tmp_path / FILE).write_text(json.dumps(GOOD))
    found = Activity.open(tmp_path)
    assert found.sizes == (4, 4) and found.edges == (-1, 0, 1) and found.languages == GOOD["languages"] and found.real.all()
    found.save()
    assert json.loads((tmp_path / FILE).read_text()) == GOOD and Activity.open(tmp_path) == found


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda v: str(v)[:30])
def test_a_field_of_another_kind_is_named(tmp_path, field, value):
    (tmp_path / FILE).write_text(json.dumps(GOOD | {field: value}))
    with pytest.raises(InputError, match="not a reading of activity") as e:
        Activity.open(tmp_path)
    assert e.value.where == f"{tmp_path / FILE}: {field}" and e.value.found and e.value.expected


@pytest.mark.parametrize("value", [[1], "x", 3, None, {}, {"layers": 2}, GOOD | {"more": 1}], ids=str)
def test_what_is_no_reading_is_refused(tmp_path, value):
    (tmp_path / FILE).write_text(json.dumps(value))
    with pytest.raises(InputError, match="not a reading of activity") as e:
        Activity.open(tmp_path)
    assert str(tmp_path / FILE) in str(e.value.where)


def test_a_language_leads_to_no_other_folder(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(GOOD | {"languages": {"../../en": ABOUT}}))
    with pytest.raises(InputError, match="leaves its folder"):
        Activity.open(tmp_path)
