"""Odd numbers under the subspace analyses: each has a defined value or is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from polygraft.analysis.subspace import tables, words
from polygraft.analysis.subspace.found import as_arrays, find
from polygraft.errors import InputError
from test_subspace import planted, reading


def one_language(items):
    return items[:1]


def same_text_twice(items):
    return np.stack([items[0], items[0], items[2]])


def all_zero(items):
    return items * 0


def not_finite(items):
    items[1, 2, 1, 3] = np.inf
    return items


def a_nan(items):
    items[0, 0, 3, 0] = np.nan
    return items


def too_few_groups(items):
    return items[:, :3]


REFUSED = {one_language: "beside one another", same_text_twice: "same mean states", all_zero: "same mean states", not_finite: "not finite",
           a_nan: "not finite", too_few_groups: "too few groups"}


@pytest.mark.group("J")
@pytest.mark.parametrize("spoil", REFUSED, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refused(spoil, tmp_path):
    with pytest.raises(InputError, match=REFUSED[spoil]):
        find(reading(tmp_path, spoil(planted(count=3)[0])))


def a_depth_without_difference(items):
    items[:, :, 0] = items[0, 0, 0]
    return items


def no_content(items):
    items[:] = items.mean(1, keepdims=True)
    return items


def fewer_dimensions_than_languages(items):
    return items[..., :2]


def one_great_dimension(items):
    items[..., 5] += 1e4
    return items


def tiny_numbers(items):
    return items * 1e-12


def two_languages_alike(items):
    items[1] = items[0] + 1e-4 * items[1]
    return items


@pytest.mark.group("J")
@pytest.mark.parametrize("spoil", [a_depth_without_difference, no_content, fewer_dimensions_than_languages, one_great_dimension, tiny_numbers,
                                   two_languages_alike], ids=lambda f: f.__name__)  # fmt: skip
def test_defined(spoil, tmp_path):
    found = find(reading(tmp_path, spoil(planted(count=4)[0])))
    assert all(np.isfinite(a).all() for a in as_arrays(found).values())
    assert "nan" not in str((words.summary(found), tables.table(found), tables.curves(found), tables.maps(found)))
    for e in found.energies:
        assert 0 <= e.language <= 1 + 1e-9 and 0 <= e.content <= 1 + 1e-9 and ((e.specific >= 0) & (e.specific <= 1 + 1e-9)).all()
    if spoil is one_great_dimension:  # what all have in common is no language's
        assert tables.figures(found, 2)["probe"].value == 1 and found.energies[2].language > 0.9
    if spoil is a_depth_without_difference:
        assert found.spaces[0].rank == 0 and found.energies[0].language == 0
