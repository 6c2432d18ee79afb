"""Every merge against a naive float64 oracle, and the laws that hold exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import llama, raw, read, rounded, shapes, values, write
from oracle import merge_oracle as oracle
from polygraft import files, merge
from polygraft.errors import InputError, RecipeError
from polygraft.merge import blend
from polygraft.topk import TopK, magnitude_bits

DTYPES = ("BF16", "F16", "F32")
STEP = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-22}  # half a unit in the last place; float32 sums may be a few units off


@pytest.fixture
def pair(tmp_path):
    def make(dtype="BF16", layers=12, **more):
        at = tmp_path / f"{dtype}-{layers}-{len(list(tmp_path.iterdir()))}"
        return tuple(
            llama(at / n, layers=layers, seed=s, noise=x, dtype=dtype, **more)
            for n, s, x in (("task", 1, 0.05), ("lang", 2, 0.05), ("base", 0, 0.0))
        )

    return make


def assert_rounded_once(got: dict, wanted: dict, dtype: str, noise: float = 1e-6):
    """Equal to the exact result rounded once; entries within float32 error of a rounding boundary may fall to either side."""
    assert got.keys() == wanted.keys()
    for key in wanted:
        exact, rough = wanted[key], rounded(wanted[key], dtype)
        off = got[key] != rough
        assert np.all(np.abs(got[key] - exact) <= STEP[dtype] * np.abs(exact) + noise), key
        if dtype != "F32":
            assert off.mean() < 0.01 + 1 / off.size, f"{key}: {off.mean():.2%} of the entries are not the rounded exact value"


@pytest.mark.parametrize("dtype", DTYPES)
def test_swap_is_the_published_algorithm(pair, tmp_path, dtype):
    task, language, _ = pair(dtype)
    merge.swap(task=task, language=language, bottom=3, top=2, transition=1, out=tmp_path / "out")
    assert_rounded_once(read(tmp_path / "out"), oracle.swap(read(task), read(language), 3, 2, 1, 1), dtype)


def test_swap_with_magnitude_weights(pair, tmp_path):
    task, language, base = pair("F32")
    zero = read(base)
    tripled = {k: zero[k] + 3 * (v - zero[k]) for k, v in read(language).items()}
    loud = write(
        tmp_path / "loud",
        {k: v.astype(np.float32) for k, v in tripled.items()},
        json.loads((language / "config.json").read_text()),
        dtype="F32",
    )
    result = merge.swap(
        task=task, language=loud, base=base, bottom=3, top=2, transition=2, weights="magnitude", out=tmp_path / "out"
    )
    change = [np.mean(np.abs(np.concatenate([(v - zero[k]).ravel() for k, v in read(e).items()]))) for e in (task, loud)]
    wanted = oracle.swap(read(task), read(loud), 3, 2, 2, 2, 1 / change[0], 1 / change[1])
    assert_rounded_once(read(tmp_path / "out"), wanted, "F32")
    assert result.data["profile"]["params"]["shares"][1] == pytest.approx(change[0] / (change[0] + change[1]), rel=1e-6)


def test_ramp_goes_linearly_from_language_to_task(pair, tmp_path):
    task, language, _ = pair("F32")
    merge.swap(task=task, language=language, bottom=3, top=2, t_bottom=3, t_top=1, weights="ramp", out=tmp_path / "out")
    got, t, la = read(tmp_path / "out"), read(task), read(language)
    for layer, share in {2: 0, 3: 0.25, 4: 0.5, 5: 0.75, 6: 1, 8: 1, 9: 0.5, 10: 0}.items():
        key = f"model.layers.{layer}.mlp.up_proj.weight"
        assert np.allclose(got[key], share * t[key] + (1 - share) * la[key], atol=1e-7), layer


@pytest.mark.parametrize("dtype", DTYPES)
def test_soup_and_task_arithmetic(pair, tmp_path, dtype):
    models = pair(dtype, layers=3)
    merge.soup(models=models, weights=(1, 2, 5), out=tmp_path / "soup")
    assert_rounded_once(read(tmp_path / "soup"), oracle.soup([read(m) for m in models], [1, 2, 5]), dtype)
    merge.task(models=models[:2], base=models[2], scales=(0.7137, -0.4219), out=tmp_path / "task")
    assert_rounded_once(
        read(tmp_path / "task"), oracle.task_arithmetic(read(models[2]), [read(m) for m in models[:2]], [0.7137, -0.4219]), dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (0.0, 1.0), (1.0, 0.5), (0.5, 2.0)])
def test_ties(pair, tmp_path, dtype, density, scale):
    one, two, base = pair(dtype, layers=2)
    merge.ties(models=[one, two], base=base, weights=(1.0, 0.5), density=density, scale=scale, out=tmp_path / "out")
    got, wanted = read(tmp_path / "out"), oracle.ties(read(base), [read(one), read(two)], [1.0, 0.5], density, scale)
    assert_rounded_once(got, wanted, dtype)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_on_strangers_and_siblings(pair, tmp_path, t):
    one, two, _ = pair("F32", layers=2)
    strange = llama(tmp_path / "strange", seed=9, dtype="F32", layers=2)
    for name, other in (("siblings", two), ("strangers", strange)):
        merge.slerp(models=[one, other], t=t, out=tmp_path / name)
        assert_rounded_once(read(tmp_path / name), oracle.slerp(read(one), read(other), t), "F32")


def test_slerp_of_a_zero_tensor_is_linear():
    assert blend.slerp_weights(0.0, 0.0, 4.0, 0.25) == (0.75, 0.25)
    assert blend.slerp_weights(-4.0, 4.0, 4.0, 0.25) == (0.75, 0.25)  # opposite: no unique arc
    a, b = blend.slerp_weights(0.0, 1.0, 1.0, 0.5)
    assert a == pytest.approx(2**-0.5) == b


def test_slerp_takes_a_t_per_part(pair, tmp_path):
    one, two, _ = pair("F32", layers=2)
    merge.slerp(models=[one, two], t={"attn": 0.0, "ffn.up": 1.0, "other": 0.5}, out=tmp_path / "out")
    got, a, b = raw(tmp_path / "out"), raw(one), raw(two)
    assert got["model.layers.1.self_attn.q_proj.weight"] == a["model.layers.1.self_attn.q_proj.weight"]
    assert got["model.layers.1.mlp.up_proj.weight"] == b["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(RecipeError, match="atn"):
        merge.slerp(models=[one, two], t={"atn": 0.5}, out=tmp_path / "no")


# ------------------------------------------------------------------------------------------------------------ exact laws


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", ["plain", "ramp"])
def test_a_swap_of_equal_models_changes_no_bit(pair, tmp_path, dtype, weights):
    task, *_ = pair(dtype)
    merge.swap(task=task, language=task, bottom=3, top=2, transition=3, weights=weights, out=tmp_path / "out")
    assert raw(tmp_path / "out") == raw(task)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_sources_agree_the_result_is_that_number_exactly(tmp_path, dtype):
    ours = values(shapes(layers=2), 1)
    theirs = {k: np.where(np.arange(v.size).reshape(v.shape) % 3 == 0, v, v + 1) for k, v in ours.items()}
    folders = [write(tmp_path / n, v, json.loads((llama(tmp_path / f"c{n}", layers=2) / "config.json").read_text()), dtype=dtype)
               for n, v in (("a", ours), ("b", theirs))]  # fmt: skip
    merge.soup(models=folders, weights=(0.3, 0.7), out=tmp_path / "out")
    got, wanted = read(tmp_path / "out"), read(folders[0])
    for key, v in wanted.items():
        same = (np.arange(v.size) % 3 == 0).reshape(v.shape)
        assert np.array_equal(got[key][same], v[same]), key


def test_nothing_swapped_is_the_task_expert_and_everything_swapped_the_language_expert(pair, tmp_path):
    task, language, _ = pair()
    outer = {"embed": "task", "norm": "task", "head": "task"}
    merge.swap(task=task, language=language, bottom=0, top=0, **outer, out=tmp_path / "none")
    assert raw(tmp_path / "none") == raw(task)
    outer = dict.fromkeys(outer, "language")
    merge.swap(task=task, language=language, bottom=7, top=5, **outer, out=tmp_path / "all")
    assert raw(tmp_path / "all") == raw(language)


def test_untouched_tensors_are_byte_copies_and_parts_restrict_the_swap(pair, tmp_path):
    task, language, _ = pair()
    merge.swap(task=task, language=language, bottom=3, top=2, transition=0, parts=("attn",), out=tmp_path / "out")
    got, t, la = raw(tmp_path / "out"), raw(task), raw(language)
    for key, value in got.items():
        if (layer := oracle.layer_of(key)) is not None:
            assert value == (la if (layer < 3 or layer >= 10) and ".self_attn." in key else t)[key], key


def test_a_third_source_for_the_embedding(pair, tmp_path):
    task, language, base = pair()
    merge.swap(task=task, language=language, base=base, embed="base", norm="language", head="task", out=tmp_path / "out")
    got = raw(tmp_path / "out")
    assert got["model.embed_tokens.weight"] == raw(base)["model.embed_tokens.weight"]
    assert got["model.norm.weight"] == raw(language)["model.norm.weight"]
    assert got["lm_head.weight"] == raw(task)["lm_head.weight"]


@pytest.mark.parametrize("zone", ["outer", "middle"])
def test_revert(pair, tmp_path, zone):
    expert, _, base = pair()
    merge.revert(expert=expert, base=base, zone=zone, bottom=3, top=2, transition=0, out=tmp_path / "out")
    got, e, b = raw(tmp_path / "out"), raw(expert), raw(base)
    for key, value in got.items():
        layer = oracle.layer_of(key)
        reverted = layer is not None and ((layer < 3 or layer >= 10) == (zone == "outer"))
        assert value == (b if reverted else e)[key], key


@pytest.mark.parametrize("layers", [28, 32, 36])
def test_depths_of_real_models(tmp_path, layers):
    one, two = (llama(tmp_path / n, layers=layers, seed=s, hidden=8, ffn=8, vocab=8, heads=2) for n, s in (("a", 1), ("b", 2)))
    result = merge.swap(task=one, language=two, out=tmp_path / "out")
    p = result.data["profile"]["params"]
    assert (p["bottom"], p["top"], p["t_bottom"]) == {28: (4, 2, 1), 32: (5, 2, 1), 36: (6, 2, 1)}[layers]
    assert_rounded_once(read(tmp_path / "out"), oracle.swap(read(one), read(two), p["bottom"], p["top"], 1, 1), "BF16")


def test_dare_drops_at_random_rescales_and_repeats(pair, tmp_path):
    one, _, base = pair("F32", layers=3)
    for n, seed in (("a", 1), ("b", 1), ("c", 2)):
        merge.dare_ties(models=[one], base=base, density=0.25, seed=seed, out=tmp_path / n)
    a, c, e, b = (read(tmp_path / n) for n in "ac") and (read(tmp_path / "a"), read(tmp_path / "c"), read(one), read(base))
    assert raw(tmp_path / "a") == raw(tmp_path / "b") != raw(tmp_path / "c")
    big = "model.embed_tokens.weight"
    kept = a[big] != b[big]
    assert abs(kept.mean() - 0.25) < 0.06
    assert np.allclose((a[big] - b[big])[kept], 4 * (e[big] - b[big])[kept], rtol=1e-4, atol=1e-6)
    assert not np.array_equal(kept, c[big] != b[big])


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_dare_at_its_ends(pair, tmp_path, density):
    one, _, base = pair("F32", layers=2)
    merge.dare_ties(models=[one], base=base, density=density, out=tmp_path / "out")
    assert_rounded_once(read(tmp_path / "out"), read(one if density else base), "F32")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_k_largest_are_exact_with_ties_to_the_lowest_index(data):
    n = data.draw(st.integers(1, 200))
    pool = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0000001, 3e38, -1e-40, 2.0, 0.5])
    delta = np.array(data.draw(st.lists(pool, min_size=n, max_size=n)), np.float32)
    k, cut = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    chunks = [delta[i : i + cut] for i in range(0, n, cut)]
    top = TopK(k)
    if k:
        for c in chunks:
            top.upper(magnitude_bits(c))
        top.turn()
        for c in chunks:
            top.lower(magnitude_bits(c))
        top.finish()
    kept = np.concatenate([top.keep(magnitude_bits(c)) for c in chunks])
    order = sorted(range(n), key=lambda i: (-abs(float(delta[i])), i))[:k]
    assert np.flatnonzero(kept).tolist() == sorted(order)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3), st.permutations([0, 1, 2]))
@settings(max_examples=200, deadline=None)
def test_the_order_of_sources_changes_no_bit(numbers, permuted):
    arrays = [np.array([x], np.float32) for x in numbers]

    def total(order):
        chosen = [arrays[i] for i in order]
        by = blend.order([a.tobytes() for a in chosen], [1 / 3] * 3)
        return blend.affine([chosen[i] for i in by], [1 / 3] * 3).tobytes()

    assert total(permuted) == total([0, 1, 2])


# ------------------------------------------------------------------------------------------------------------- bad numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["soup", "ties", "slerp", "magnitude"])
@pytest.mark.group("J")
def test_a_number_that_is_not_finite_is_named(tmp_path, bad, how):
    sick = values(shapes(layers=2), 1)
    key = "model.layers.1.mlp.up_proj.weight"
    sick[key][3, 5] = bad
    settings_ = json.loads((llama(tmp_path / "ok", layers=2) / "config.json").read_text())
    folder = write(tmp_path / "sick", sick, settings_)
    calls = {"soup": lambda: merge.soup(models=[folder, tmp_path / "ok"], out=tmp_path / "out"),
             "ties": lambda: merge.ties(models=[folder], base=tmp_path / "ok", density=1, out=tmp_path / "out"),
             "slerp": lambda: merge.slerp(models=[folder, tmp_path / "ok"], out=tmp_path / "out"),
             "magnitude": lambda: merge.swap(task=folder, language=tmp_path / "ok", base=llama(tmp_path / "b", layers=2, seed=3),
                                             weights="magnitude", out=tmp_path / "out")}  # fmt: skip
    with pytest.raises(InputError, match="up_proj"), np.errstate(invalid="ignore"):
        calls[how]()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.group("J")
def test_float16_overflow_is_refused(tmp_path):
    big = {k: np.full(s, 60000.0, np.float32) for k, s in shapes(layers=2).items()}
    base = {k: np.zeros(s, np.float32) for k, s in shapes(layers=2).items()}
    c = json.loads((llama(tmp_path / "c", layers=2) / "config.json").read_text())
    folders = [write(tmp_path / n, v, c, dtype="F16") for n, v in (("a", big), ("b", base))]
    with pytest.raises(InputError, match="the blend"):
        merge.task(models=[folders[0]], base=folders[1], scales=(2.0,), out=tmp_path / "out")


# ---------------------------------------------------------------------------------------------------------------- folders


def test_the_output_is_a_complete_described_folder(pair, tmp_path):
    task, language, _ = pair()
    out = tmp_path / "out"
    result = merge.swap(task=task, language=language, bottom=3, top=2, shard_bytes=20_000, out=out)
    assert files.verify_folder(out) == []
    manifest = files.read_json(out / "manifest.json")
    assert manifest["kind"] == "model"
    assert {i["name"] for i in manifest["inputs"]} == {"task", "lang"}
    assert all(len(i["tensors_sha256"]) == 64 and i["identity"] for i in manifest["inputs"])
    assert set(manifest["tensors"]) == set(raw(out))
    assert manifest["recipe"]["use"] == "merge.swap@1"
    assert manifest["recipe"]["bottom"] == 3
    assert (out / "tokenizer.json").read_bytes() == (task / "tokenizer.json").read_bytes()
    assert (out / "model.safetensors.index.json").exists()
    assert result.maps
    assert result.inputs[0].digest == manifest["inputs"][0]["tensors_sha256"]


def test_input_digests_are_of_what_was_read(pair, tmp_path):
    import hashlib

    task, language, _ = pair(layers=4)
    merge.swap(
        task=task, language=language, bottom=1, top=0, transition=1, embed="task", norm="task", head="task", out=tmp_path / "out"
    )
    used = {k: hashlib.sha256(v).hexdigest() for k, v in raw(language).items() if oracle.layer_of(k) in (0, 1)}
    manifest = files.read_json(tmp_path / "out" / "manifest.json")
    assert next(i for i in manifest["inputs"] if i["name"] == "lang")["tensors_sha256"] == files.digest(used)


def test_an_output_that_holds_something_is_refused(pair, tmp_path):
    task, language, _ = pair(layers=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(RecipeError, match="not empty"):
        merge.swap(task=task, language=language, out=tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("donor", ["language", "lang"])
def test_the_donor_gives_config_and_tokenizer(pair, tmp_path, donor):
    task, language, _ = pair(layers=2)
    (language / "chat_template.jinja").write_text("{{ messages }}")
    (language / "generation_config.json").write_text("{}")
    result = merge.swap(task=task, language=language, donor=donor, out=tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "out" / "generation_config.json").exists()
    assert result.data["donor"] == "lang"
    with pytest.raises(RecipeError, match="donor"):
        merge.swap(task=task, language=language, donor="nobody", out=tmp_path / "no")


def test_a_misspelt_argument_says_what_was_meant(pair, tmp_path):
    task, language, _ = pair(layers=2)
    with pytest.raises(RecipeError, match="did you mean `bottom`"):
        merge.swap(task=task, language=language, botom=2, out=tmp_path / "out")


@pytest.mark.group("G")
def test_a_disk_that_gives_back_other_bytes_is_found_out(pair, tmp_path, monkeypatch):
    import os

    from polygraft import writer
    from polygraft.errors import ResourceError

    task, language, _ = pair(layers=2)
    honest = os.pread

    class Liar:
        def __getattr__(self, name):
            return getattr(os, name)

        @staticmethod
        def pread(fd, n, at):
            data = bytearray(honest(fd, n, at))
            if data and at > 3000:
                data[len(data) // 2] ^= 1
            return bytes(data)

    monkeypatch.setattr(writer, "os", Liar())
    with pytest.raises(ResourceError, match="other bytes than were written"):
        merge.swap(task=task, language=language, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
