"""Candidates as values: windows are swaps, controls have the same width elsewhere, several experts find their places."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import config, shapes
from polygraft.anatomy import Anatomy
from polygraft.choose import candidates
from polygraft.errors import RecipeError
from polygraft.merge import makers

NAMES = ("math", "read")


def anatomy(layers: int = 12, tied: bool = False) -> Anatomy:
    return Anatomy.of(config(layers=layers, tied=tied), shapes(layers=layers, tied=tied))


def shares(made: candidates.Candidate, layers: int, kind: str = "attn", source: int = 1) -> list[float]:
    """The language expert's share of each layer."""
    here = anatomy(layers)
    return [made.profile.weights[here.keys(layer=i, kind=kind)[0]][source] for i in range(layers)]


def test_a_window_is_the_swap_of_these_numbers():
    here = anatomy()
    made = candidates.window(here, NAMES, bottom=3, top=2, transition=1, weights="ramp", embed="language", head="task")
    swap = makers.swap(here, bottom=3, top=2, transition=1, weights="ramp", embed="language", head="task", names=NAMES)
    assert made.profile.weights == swap.weights
    assert made.name == "b3 u2 t1 ramp embed=language head=task"
    assert {made.params[k] for k in ("bottom", "top", "transition")} == {3, 2, 1}


def test_a_custom_mixture_takes_each_kind_by_its_own_list():
    made = candidates.custom(anatomy(4), NAMES, {"attn": [1, 0, 0, 0.25], "ffn": [0, 0, 0, 1]})
    assert shares(made, 4) == [1, 0, 0, 0.25]
    assert shares(made, 4, "ffn") == [0, 0, 0, 1]
    assert shares(made, 4, "norm") == [0, 0, 0, 0]
    assert made.profile.weights["model.embed_tokens.weight"] == (0.5, 0.5)


@pytest.mark.parametrize("layers", [[1.0] * 3, [1.5, 0, 0, 0], {"embed": [0.0] * 4}])
def test_what_is_no_share_for_every_layer_is_refused(layers):
    with pytest.raises(RecipeError):
        candidates.custom(anatomy(4), NAMES, layers)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 16), st.data())
def test_a_random_window_is_as_wide_as_what_it_controls_and_somewhere_else(layers, data):
    bottom = data.draw(st.integers(0, layers))
    top = data.draw(st.integers(0, layers - bottom))
    made = candidates.window(anatomy(layers), NAMES, bottom=bottom, top=top)
    drawn = candidates.windows(anatomy(layers), made, range(4))
    assert len({tuple(shares(w, layers)) for w in drawn} | {tuple(shares(made, layers))}) == len(drawn) + 1
    for w in drawn:
        assert sorted(shares(w, layers)) == sorted(shares(made, layers))
    if 0 < bottom + top < layers and len(set(shares(made, layers))) > 1 and layers > bottom + top + 2:
        assert drawn, "there is room for another window"


def test_what_a_choice_is_compared_with():
    here = anatomy()
    default, mean, experts = candidates.default(here, NAMES), candidates.mean(here, NAMES), candidates.experts(here, NAMES)
    assert [c.name for c in (default, mean, *experts)] == ["paper's default", "soup", "math", "read"]
    assert shares(default, 12) == [1, 1] + [0] * 9 + [1]
    assert set(shares(mean, 12)) == {0.5} and set(shares(experts[1], 12)) == {1.0}
    drawn = candidates.windows(here, candidates.window(here, NAMES, bottom=4, top=1), (0, 1))
    assert [c.name for c in drawn] == ["random window 0", "random window 1"]


def test_a_pair_of_many_sources_takes_nothing_of_the_others():
    here, sources = anatomy(6), ("m1", "m2", "r1", "r2")
    made = candidates.window(here, ("m2", "r1"), bottom=2, top=1)
    wide = candidates.placed(made, sources)
    assert wide.profile.sources == sources
    assert shares(wide, 6, source=2) == shares(made, 6) and shares(wide, 6, source=3) == [0] * 6
    profile, places = candidates.needed(wide.profile)
    assert places == [1, 2] and profile.weights == made.profile.weights
    moved = candidates.windows(here, wide, (1,))[0]
    assert sorted(shares(moved, 6, source=2)) == sorted(shares(made, 6))
