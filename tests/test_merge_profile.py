"""Profiles as values: zones, policies, what is refused, how they print, and the files that tell of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from folders import config, llama, shapes
from polygraft.anatomy import Anatomy
from polygraft.errors import RecipeError
from polygraft.merge import card, configs, makers, mergekit, steps
from polygraft.merge.zones import zones
from polygraft.sources import resolve
from polygraft.step import Context

CONTEXT = Context(resolve, Path, planning=True)


def anatomy(layers: int = 12, tied: bool = False) -> Anatomy:
    return Anatomy.of(config(layers=layers, tied=tied), shapes(layers=layers, tied=tied))


@pytest.mark.parametrize(("layers", "wanted"), [(2, (0, 0, 0)), (12, (2, 1, 0)), (16, (2, 1, 0)), (22, (3, 1, 1)), (24, (4, 2, 1)), (28, (4, 2, 1)),
                                                (30, (5, 2, 1)), (32, (5, 2, 1)), (36, (6, 2, 1)), (48, (8, 3, 2)), (80, (12, 5, 2))])  # fmt: skip
def test_defaults_scale_with_depth(layers, wanted):
    z = zones(layers)
    assert (z.bottom, z.top, max(z.t_bottom, z.t_top)) == wanted
    assert z.t_bottom == (wanted[2] if z.bottom else 0)


@pytest.mark.parametrize(("typed", "place"), [
    ({"bottom": 7, "top": 6}, "overlap"), ({"bottom": 13}, "bottom"), ({"top": -1}, "top"),
    ({"bottom": 6, "top": 5, "transition": 1}, "does not fit"), ({"bottom": 12, "top": 0, "transition": 1}, "does not fit"),
    ({"bottom": 5, "top": 5, "t_bottom": 2, "t_top": 1}, "does not fit"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(typed, place):
    with pytest.raises(RecipeError, match=place):
        zones(12, **typed)


def test_a_side_without_swapped_layers_has_no_transition():
    z = zones(12, bottom=4, top=0, transition=2)
    assert (z.t_bottom, z.t_top) == (2, 0)
    z = zones(12, bottom=0, top=3, transition=2, t_top=1)
    assert (z.t_bottom, z.t_top) == (0, 1)
    assert zones(12, bottom=7, top=5).t_bottom == 0  # the default makes room for a swap of everything


@given(st.integers(1, 100), st.data())
def test_zones_partition_the_layers(layers, data):
    b = data.draw(st.integers(0, layers))
    u = data.draw(st.integers(0, layers - b))
    tb = data.draw(st.integers(0, layers - b - u))
    tu = data.draw(st.integers(0, layers - b - u - tb))
    z = zones(layers, bottom=b, top=u, t_bottom=tb, t_top=tu)
    names = [z.zone(i) for i in range(layers)]
    assert names.count("swapped") == b + u
    assert names.count("transition") == (tb if b else 0) + (tu if u else 0)
    assert names[:b] == ["swapped"] * b


def test_tied_embeddings_take_one_source():
    with pytest.raises(RecipeError, match="one tensor"):
        makers.swap(anatomy(tied=True), embed="task", head="language")
    made = makers.swap(anatomy(tied=True), head="language")
    assert made.weights["model.embed_tokens.weight"] == (0.0, 1.0)
    assert made.params["embed"] == made.params["head"] == "language"
    free = makers.swap(anatomy(), embed="task", head="language")
    assert (free.weights["model.embed_tokens.weight"], free.weights["lm_head.weight"]) == ((1.0, 0.0), (0.0, 1.0))


def test_requests_that_contradict_themselves():
    a = anatomy()
    for call, place in ((lambda: makers.swap(a, embed="base"), "base"), (lambda: makers.soup(a, ["one"]), "two"),
                        (lambda: makers.soup(a, ["a", "b"], [1, -1]), "weights"), (lambda: makers.soup(a, ["a", "b"], [1]), "1 numbers"),
                        (lambda: makers.task(a, ["b", "x"], [1, 2]), "2 numbers"), (lambda: makers.ties(a, ["b", "x"], density=2), "density"),
                        (lambda: makers.slerp(a, ["a", "b"], 1.5), "0 to 1"), (lambda: makers.swap(a, parts=("ffm",)), "ffn"),
                        (lambda: configs.Swap(task="a", language="b", weights="magnitude").request(), "base")):  # fmt: skip
        with pytest.raises(RecipeError, match=place):
            call()


def test_a_profile_prints_itself():
    told = makers.swap(anatomy(), bottom=3, top=2, transition=1, parts=("attn", "ffn"), names=("math", "swahili")).text(anatomy())
    assert told[0] == "swap (linear): math, swahili"
    assert any(
        line.startswith("  layers 0-2: ") and "attn, ffn swahili (copied)" in line and "norm math (copied)" in line for line in told
    )
    assert "  layers 4-8: math (copied)" in told
    assert "  embed: 0.5 math + 0.5 swahili" in told


def test_its_maps_hold_the_weights():
    maps = makers.swap(anatomy(), bottom=3, top=2, transition=1, weights="ramp", names=("math", "swahili")).maps(anatomy())
    swahili = next(m for m in maps if "swahili" in m.title)
    row = swahili.values[swahili.rows.index("attn.q")]
    assert row == (1, 1, 1, 0.5, 0, 0, 0, 0, 0, 0.5, 1, 1)
    assert swahili.outside["embed"] == 0.5


def test_a_source_that_is_taken_away_is_drawn_around_zero():
    maps = makers.task(anatomy(), ["base", "a", "b"], (1.0, 1.0)).maps(anatomy())
    base = next(m for m in maps if m.title == "Weight of base")
    assert (base.scale, base.low, base.high) == ("diverging", -1.0, 1.0) and base.values[0][0] == -1.0
    assert {m.scale for m in maps if m is not base} == {"sequential"}


# ------------------------------------------------------------------------------------------------------ card and mergekit

HOSTILE = [
    '"\n- evil: true',
    "a: b # c",
    "`code` <script>alert(1)</script> ![x](http://x)",
    "\x1b[31mred\u202egnp",
    "```\n---\nx: y",
    "名前 عربي",
    "!!python/x",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.group("L")
def test_names_are_data_in_the_card(name):
    made = makers.swap(anatomy(), bottom=3, top=2, transition=1, names=("math", name))
    origins = [card.Origin("math", "org/math", ("org/math",)), card.Origin(name, name, (name,))]
    text = card.card(made, anatomy(), origins, name, {"task": name}, ["Sentence."])
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    tree = yaml.safe_load(front)
    assert tree["base_model"] == ["org/math", name]
    assert set(tree) == {"library_name", "pipeline_tag", "tags", "base_model", "base_model_relation"}
    assert "<script" not in body.split("```")[0]
    assert "\x1b" not in text
    assert "\u202e" not in text
    fences = [line for line in body.splitlines() if line.startswith("```")]
    assert len(fences) % 2 == 0


def test_local_paths_are_not_published():
    made = makers.swap(anatomy(), names=("math", "swahili"))
    origins = [card.Origin("math", "/home/someone/math"), card.Origin("swahili", "org/sw@v1", ("org/sw",))]
    text = card.card(made, anatomy(), origins, "math", {"task": "/home/someone/math", "models": ["/home/someone/math"]}, [])
    assert "someone" not in text
    assert yaml.safe_load(text.split("---")[1])["base_model"] == ["org/sw"]


def as_mergekit_reads(text: str, key: str, part) -> dict[str, float]:
    """Weight of each model for a tensor, by mergekit's rules, read from the YAML alone."""
    tree = yaml.safe_load(text)
    slices = tree["slices"]
    if part.layer is None:
        chosen = slices[0] if part.kind == "embed" else slices[-1]
    else:
        chosen = next(s for s in slices if s["sources"][0]["layer_range"][0] <= part.layer < s["sources"][0]["layer_range"][1])
    found = {}
    for source in chosen["sources"]:
        weight = source["parameters"]["weight"]
        rules = weight if isinstance(weight, list) else [{"value": weight}]
        found[source["model"]] = next(r["value"] for r in rules if r.get("filter", "") in key)
    return found


@pytest.mark.parametrize("fields", [
    {}, {"bottom": 3, "top": 2, "transition": 1}, {"bottom": 3, "top": 2, "weights": "ramp", "transition": 3}, {"parts": ("attn",), "bottom": 3, "top": 2},
    {"parts": ("norm",), "bottom": 4, "top": 4}, {"embed": "task", "norm": "language", "head": "mean", "bottom": 0, "top": 4}, {"bottom": 0, "top": 0},
])  # fmt: skip
def test_the_mergekit_file_means_the_same_swap(fields):
    a = anatomy()
    made = makers.swap(a, **fields, names=("math", "swahili"))
    text = mergekit.config(made, a, ["m/math", "m/swahili"], "m/math", "BF16")
    assert text is not None
    for key, part in a.parts.items():
        assert tuple(as_mergekit_reads(text, key, part).values()) == pytest.approx(made.weights[key]), key
    tree = yaml.safe_load(text)
    assert (tree["base_model"], tree["dtype"], tree["out_dtype"]) == ("m/math", "float32", "bfloat16")


def test_what_mergekit_cannot_say_is_not_written():
    a = anatomy()
    assert mergekit.config(makers.dare_ties(a, ["base", "x"]), a, ["b", "x"], "x", "BF16") is None
    assert mergekit.config(makers.slerp(a, ["a", "b"], {"attn": 0.2}), a, ["a", "b"], "a", "BF16") is None
    assert mergekit.config(makers.soup(a, ["a", "b"]), a, ["same", "same"], "same", "BF16") is None
    ties = yaml.safe_load(mergekit.config(makers.ties(a, ["base", "x"]), a, ["b", "x"], "x", "BF16"))
    assert ties["models"] == [{"model": "x", "parameters": {"weight": 1.0, "density": 0.2}}]


# ------------------------------------------------------------------------------------------------------------------- plan


def test_a_plan_tells_the_layers_bytes_and_notes(tmp_path):
    one, two = (llama(tmp_path / n, seed=s) for n, s in (("math", 1), ("swahili", 2)))
    plan = steps.plan(configs.Swap(task=str(one), language=str(two), bottom=1, top=1, transition=1), CONTEXT)
    assert any("layer 0: swahili (copied)" in line for line in plan.lines)
    assert [m.title for m in plan.maps] == ["Weight of swahili"]  # the task expert has the rest
    assert plan.read_bytes > plan.disk_bytes > (one / "model.safetensors").stat().st_size
    assert plan.like is not None
    same = steps.plan(
        configs.Swap(task=str(one), language=str(two), bottom=0, top=0, embed="task", norm="task", head="task"), CONTEXT
    )
    assert "nothing is merged" in same.notes[0]


def test_templates_and_tokens_that_differ_are_noted(tmp_path):
    one, two = (llama(tmp_path / n, seed=s) for n, s in (("math", 1), ("swahili", 2)))
    for folder, text in ((one, "{{ a }}"), (two, "{{ b }}")):
        (folder / "chat_template.jinja").write_text(text)
    tokenizer = (
        (two / "tokenizer.json").read_text().replace('"added_tokens": [', '"added_tokens": [{"id": 4, "content": "<pad>"}, ')
    )
    (two / "tokenizer.json").write_text(tokenizer)
    notes = steps.plan(configs.Soup(models=(str(one), str(two))), CONTEXT).notes
    assert any("<pad>" in n for n in notes)
    assert any("chat templates differ" in n for n in notes)
