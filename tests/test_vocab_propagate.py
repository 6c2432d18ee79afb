"""Propagation: rows against a naive oracle, planted changes recovered, rows kept and copied bit for bit, in every family."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tiny as families
import trios
from oracle import propagate_oracle as oracle
from polygraft import vocab
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, RecipeError
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.pieces import COPIED, decompose
from polygraft.vocab.propagation import steps
from polygraft.vocab.propagation.modes import MODES
from reload import assert_reloads
from test_sources import lora, oracle_merge
from test_tokenfile import sentencepiece

CONTEXT = Context(resolve, Path)
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LEARNED = ("overlap", "conversion", "bypass", "procrustes")


def run(three, out: Path, **fields):
    """The Result and the new tensors; without the checks of the made tokenizer, which other tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "checked", lambda job, model: [])
        result = steps.run(config(three, **fields), CONTEXT, out)
    return result, trios.read(out / "model")[0]


def config(three, **fields):
    names = dict(zip(("base", "instruct", "donor"), map(str, three)))
    return steps.Propagate(**(names | fields))


@pytest.fixture
def three(tiny, tmp_path):
    base = tiny("llama")
    return base, trios.instruct(base, tmp_path / "i", trios.noisy(0.05)), trios.donor(base, tmp_path / "d", noise=0.1)


# ---------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(("mode", "ridge"), [*((m, 0.0) for m in MODES), ("overlap", 0.3), ("conversion", 0.01), ("bypass", 1e-4)])
def test_rows_are_those_of_the_naive_oracle(three, tmp_path, mode, ridge):
    _, made = run(three, tmp_path / "out", mode=mode, **({"ridge": ridge} if ridge else {}))
    base, instruct, donor = (trios.read(p)[0] for p in three)
    old, new = Vocabulary.open(three[0]), Vocabulary.open(three[2])
    pieces = decompose(old, new)
    t = oracle.transformation({i: pieces.of(i) for i in range(len(pieces))}, new.size, len(base[EMBED]))
    overlap, plain = np.unique(pieces.ids[pieces.offsets[:-1]][pieces.how == COPIED]), np.arange(4, new.size)
    for key in (EMBED, HEAD):
        tables = [x[key].astype(np.float64) for x in (base, instruct)]
        expected = oracle.carried(mode, donor[key].astype(np.float64)[: new.size], t, *tables, overlap, np.arange(old.size), ridge)
        np.testing.assert_allclose(made[key][plain], expected[plain], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_an_instruct_model_that_is_the_base_gives_the_donor_s_rows_back(tiny, tmp_path, mode):
    base = tiny("llama")
    three = base, trios.instruct(base, tmp_path / "i", lambda key, value: value), trios.donor(base, tmp_path / "d", noise=0.1)
    result, made = run(three, tmp_path / "out", mode=mode)
    donor, size = trios.read(three[2])[0], Vocabulary.open(three[2]).size
    for key in (EMBED, HEAD):
        if mode == "procrustes":
            np.testing.assert_allclose(made[key][4:size], donor[key][4:size], atol=1e-6)
        else:
            assert made[key][4:size].tobytes() == donor[key][4:size].tobytes()
    errors = [side["held_out_error"] for side in result.data["sides"].values()]
    assert all(e is None or (e["doing_nothing"] == 0 and e["ratio"] is None and e["relative"] < 1e-9) for e in errors)


@pytest.mark.parametrize("mode", ["overlap", "conversion", "bypass", "procrustes", "delta"])
def test_a_planted_change_of_all_rows_is_recovered_where_training_changed_nothing(tiny, tmp_path, mode):
    """E_instruct = E_base Q and donor = T E_base: the result is T E_instruct (methods, A.9)."""
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))[0]
    q = q if mode == "procrustes" else q + 0.3 * np.random.default_rng(2).normal(size=(32, 32))

    def change(key, value):
        return (value.astype(np.float64) @ q).astype(np.float32) if key in (EMBED, HEAD) else value

    base = tiny("llama")
    three = base, trios.instruct(base, tmp_path / "i", change), trios.donor(base, tmp_path / "d")
    result, made = run(three, tmp_path / "out", mode=mode)
    old, new = Vocabulary.open(base), Vocabulary.open(three[2])
    pieces, instruct = decompose(old, new), trios.read(three[1])[0]
    t = oracle.transformation({i: pieces.of(i) for i in range(len(pieces))}, new.size, old.size)
    for key in (EMBED, HEAD):
        np.testing.assert_allclose(made[key][: new.size], t @ instruct[key][: old.size], atol=2e-5)
    for side in result.data["sides"].values():
        assert mode == "delta" or side["held_out_error"]["ratio"]["high"] < 1e-4
        assert mode == "delta" or side["held_out_error"]["ratio"]["verdict"] == "better"


def test_kept_rows_are_the_instruct_model_s_bytes_and_padding_is_the_mean(three, tmp_path):
    result, made = run(three, tmp_path / "out")
    instruct, new = trios.read(three[1])[0], Vocabulary.open(tmp_path / "out/model")
    assert list(result.data["kept"]) == ["<pad>", "<s>", "</s>", "<unk>", *trios.CONTROL]
    for name, (row, old) in result.data["kept"].items():
        assert new.id_of(name) == row
        for key in (EMBED, HEAD):
            assert made[key][row].tobytes() == instruct[key][old].tobytes()
    donor = len(trios.read(three[2])[0][EMBED])
    assert result.data["rows"] == len(made[EMBED]) > new.size > donor
    side = result.data["sides"]["embedding"]
    assert side["rows_carried"] + side["rows_kept"] + side["rows_filled"] == len(made[EMBED]) and side["rows_copied"] == 0
    assert (made[EMBED][new.size :] == made[EMBED][-1]).all() and np.isfinite(made[EMBED]).all()


def test_the_body_is_the_instruct_model_s_bytes(three, tmp_path):
    _, made = run(three, tmp_path / "out")
    instruct = trios.read(three[1])[0]
    assert made.keys() == instruct.keys()
    assert all(made[k].tobytes() == instruct[k].tobytes() for k in made if k not in (EMBED, HEAD))


def test_ids_follow_their_tokens_into_both_configs(three, tmp_path):
    run(three, tmp_path / "out")
    new = Vocabulary.open(tmp_path / "out/model")
    said, generation = (json.loads((tmp_path / "out/model" / n).read_text()) for n in ("config.json", "generation_config.json"))
    assert said["eos_token_id"] == new.id_of("<|im_end|>") != 261
    assert said["vocab_size"] == len(trios.read(tmp_path / "out/model")[0][EMBED])
    assert generation == {"eos_token_id": [new.id_of("</s>"), new.id_of("<|im_end|>")], "pad_token_id": new.id_of("<pad>")}
    assert said["hidden_size"] == 32 and said["num_hidden_layers"] == 2


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_id_without_a_token_stays_within_the_rows_or_is_refused(three, tmp_path, name):
    file = three[1] / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": 9_999}))
    with pytest.raises(InputError, match=rf"(?s){name}: pad_token_id.*9999"):
        run(three, tmp_path / "out")


def test_chats_are_rendered_and_cut_as_before(three, tmp_path):
    found = {c.name: c for c in steps.run(config(three), CONTEXT, tmp_path / "out").data["checks"] and
             steps.checks.loadable(tmp_path / "out/model", before=resolve(three[1]).weights.extras)}
    assert all(found[name].ok for name in steps.SAME)
    core = Vocabulary.open(tmp_path / "out/model").tokenizer
    assert all(len(core.encode(t, add_special_tokens=False).ids) == 1 for t in trios.CONTROL)


# -------------------------------------------------------------------------------------------------------------- families


@pytest.mark.parametrize(("family", "mode"), zip(families.FAMILIES, MODES * 3))
def test_every_family_loads_and_its_logits_are_finite(family, mode, tiny, tmp_path):
    base = tiny(family)
    three = base, trios.instruct(base, tmp_path / "i", trios.noisy(0.02)), trios.donor(base, tmp_path / "d", noise=0.05)
    result, _ = run(three, tmp_path / "out", mode=mode)
    assert_reloads(tmp_path / "out/model")
    assert result.data["tied"] == (family in families.TIED)
    assert list(result.data["sides"]) == (["embedding"] if result.data["tied"] else ["embedding", "head"])


@pytest.mark.parametrize("mode", ["swap", "conversion"])
def test_half_precision_is_rounded_once_and_swapped_bit_for_bit(tiny, tmp_path, mode):
    base = trios.write(tmp_path / "b", *trios.read(tiny("llama"))[:2], tiny("llama"), "BF16")
    tensors = {n: trios.read(f(base))[:2] for n, f in (("i", lambda b: trios.instruct(b, tmp_path / "i", trios.noisy(0.05))),
                                                       ("d", lambda b: trios.donor(b, tmp_path / "d", noise=0.1)))}
    made = [trios.write(tmp_path / f"{n}16", *tensors[n], tmp_path / n, "BF16") for n in "id"]
    three = base, *made
    result, rows = run(three, tmp_path / "out", mode=mode)
    donor = trios.read(three[2])[0]
    assert Checkpoint.open(tmp_path / "out/model").tensors[EMBED].dtype == "BF16"
    size = Vocabulary.open(three[2]).size
    assert (rows[EMBED][4:size].tobytes() == donor[EMBED][4:size].tobytes()) == (mode == "swap")
    assert result.data["sides"]["head"]["rows_copied"] == (len(donor[HEAD]) - 4 if mode == "swap" else 0)


def test_a_bias_of_the_head_takes_the_change_of_its_pieces(three, tmp_path):
    rng, biased = np.random.default_rng(0), []
    for n, path in enumerate(three):
        tensors, said, _ = trios.read(path)
        tensors["lm_head.bias"] = rng.normal(size=len(tensors[HEAD])).astype(np.float32)
        biased.append(trios.write(tmp_path / f"bias{n}", tensors, said, path))
    _, made = run(biased, tmp_path / "out")
    old, new = Vocabulary.open(three[0]), Vocabulary.open(three[2])
    pieces, (base, instruct, donor) = decompose(old, new), (trios.read(p)[0]["lm_head.bias"].astype(np.float64) for p in biased)
    for i in range(4, new.size):
        ids = pieces.of(i)
        assert made["lm_head.bias"][i] == pytest.approx(donor[i] + np.mean(instruct[ids] - base[ids]), abs=1e-6)
    assert made["lm_head.bias"][2] == np.float32(instruct[2])


# ------------------------------------------------------------------------------------------------------------ tokenizers


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_vocabulary_of_another_kind_takes_the_base_s_place(kind, three, tmp_path):
    """A SentencePiece donor of a byte-level base: tokens match by bytes, control tokens by name, the rest is appended."""
    other = trios.replaced(three[0], tmp_path / "sp", sentencepiece(kind))
    result, made = run((three[0], three[1], other), tmp_path / "out")
    new, instruct = Vocabulary.open(tmp_path / "out/model"), trios.read(three[1])[0]
    assert result.data["appended"] == ["<pad>", *trios.CONTROL] and new.alphabet == "metaspace"
    assert new.size == Vocabulary.open(other).size + 3 <= len(made[EMBED])
    old = Vocabulary.open(three[1])
    for token in ("<pad>", "<s>", "</s>", "<unk>", *trios.CONTROL):
        assert made[HEAD][new.id_of(token)].tobytes() == instruct[HEAD][old.id_of(token)].tobytes()
    assert result.data["made_of"]["nothing"] == 0 and result.data["made_of"]["pieces"] > 20
    assert json.loads((tmp_path / "out/model/config.json").read_text())["eos_token_id"] == new.id_of("<|im_end|>")
    steps.checks.check_ids(new)


def test_holes_in_the_donor_s_ids_are_rows_like_others_and_no_token_moves(three, tmp_path):
    def skip(tree):
        for token, i in tree["model"]["vocab"].items():
            tree["model"]["vocab"][token] = i + 3 * (i >= 310)

    tensors, said, _ = trios.read(three[2])
    wide = {k: np.concatenate([v, v[-8:]]) if len(v) == 320 else v for k, v in tensors.items()}
    donor = trios.write(tmp_path / "holes", wide, said | {"vocab_size": 328}, three[2])
    tree = json.loads((donor / "tokenizer.json").read_text())
    skip(tree)
    (donor / "tokenizer.json").write_text(json.dumps(tree))
    result, made = run((three[0], three[1], donor), tmp_path / "out", mode="swap")
    new = Vocabulary.open(tmp_path / "out/model")
    assert new.holes == (310, 311, 312) and result.data["appended"] == list(trios.CONTROL)
    assert made[EMBED][4:323].tobytes() == wide[EMBED][4:323].tobytes()
    steps.checks.check_ids(new)


def test_a_token_that_only_tokenizer_config_names_keeps_its_row(three, tmp_path):
    tensors, said, _ = trios.read(three[1])
    instruct = trios.write(tmp_path / "i2", tensors, said, three[1])
    settings = json.loads((instruct / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {"262": {"content": "<|tool|>", "special": True}}
    (instruct / "tokenizer_config.json").write_text(json.dumps(settings))
    result, made = run((three[0], instruct, three[2]), tmp_path / "out")
    row, old = result.data["kept"]["<|tool|>"]
    assert old == 262 and made[EMBED][row].tobytes() == tensors[EMBED][262].tobytes()
    assert Vocabulary.open(tmp_path / "out/model").control["<|tool|>"] == row


def test_a_donor_that_is_an_adapter_carries_its_change_to_the_instruct_model(three, tmp_path):
    base, key = resolve(three[2]), "model.layers.1.self_attn.q_proj.weight"
    at = lora(tmp_path / "lora", Checkpoint.open(three[2]), {key.removesuffix(".weight"): 4}, lora_alpha=0.1)
    context = Context(lambda ref: resolve(ref, base=base) if ref == str(at) else resolve(ref), Path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "checked", lambda job, model: [])
        result = steps.run(config((three[0], three[1], at), body=0.5), context, tmp_path / "out")
    made, instruct = trios.read(tmp_path / "out/model")[0], trios.read(three[1])[0]
    change = oracle_merge(Checkpoint.open(three[2]), at, key, 0.1 / 4) - trios.read(three[0])[0][key]
    np.testing.assert_allclose(made[key], instruct[key] + 0.5 * change, atol=1e-6)
    assert result.data["body"]["changed_in_donor"] == 1


# ------------------------------------------------------------------------------------------------------------------ body


def changed_body(three, out: Path, amount: float) -> tuple[Path, Path, Path]:
    tensors, said, tables = trios.read(three[2])
    change = trios.noisy(amount, seed=9)
    some = {k: v if k in tables or "mlp" in k else change(k, v) for k, v in tensors.items()}
    return three[0], three[1], trios.write(out, some, said, three[2])


def test_a_donor_with_another_body_is_refused_until_it_is_said_what_to_do(three, tmp_path):
    other = changed_body(three, tmp_path / "body", 0.01)
    with pytest.raises(InputError, match="body was trained too"):
        run(other, tmp_path / "none")
    tensors = [trios.read(p)[0] for p in other]
    for share in (0.0, 0.5):
        result, made = run(other, tmp_path / f"out{share}", body=share)
        for key in (k for k in made if k not in (EMBED, HEAD)):
            base, instruct, donor = (t[key].astype(np.float64) for t in tensors)
            np.testing.assert_allclose(made[key], instruct + share * (donor - base), atol=1e-6)
            assert share or made[key].tobytes() == tensors[1][key].tobytes()
        assert 0 < result.data["body"]["changed_in_donor"] < result.data["body"]["tensors"]


# ---------------------------------------------------------------------------------------------------------- what is told


def test_rows_far_from_those_of_the_instruct_model_are_told(three, tmp_path):
    tensors, said, _ = trios.read(three[2])
    odd = Vocabulary.open(three[2]).names[300]
    tensors[EMBED][300] *= 1000
    result, _ = run((three[0], three[1], trios.write(tmp_path / "odd", tensors, said, three[2])), tmp_path / "out")
    side = result.data["sides"]["embedding"]
    assert list(side["odd"]) == [odd] and side["odd_tokens"] == 1 and result.data["sides"]["head"]["odd_tokens"] == 0
    assert any("3 times longer" in c and repr(odd) in c for c in result.caveats)


def test_a_dimension_that_w_blows_up_is_told(tiny, tmp_path):
    def change(key, value):
        scale = np.ones(32, np.float32)
        scale[7] = 50
        return value * scale if key == EMBED else value

    base = tiny("llama")
    three = base, trios.instruct(base, tmp_path / "i", change), trios.donor(base, tmp_path / "d", noise=0.1)
    result, _ = run(three, tmp_path / "out", mode="bypass")
    assert result.data["sides"]["embedding"]["odd_dimensions"] == [7]
    assert result.data["sides"]["head"]["odd_dimensions"] == []


def test_noise_that_w_cannot_carry_is_told_and_auto_does_not_follow_it(three, tmp_path):
    """Noise alone: there is nothing to learn, so that least squares are worse than nothing, and the identity is chosen."""
    plain, _ = run(three, tmp_path / "plain", mode="overlap")
    assert any("worse on held-out tokens than doing nothing" in c for c in plain.caveats)
    auto, _ = run(three, tmp_path / "auto", mode="overlap", ridge="auto")
    ratios = [r.data["sides"]["embedding"]["held_out_error"]["ratio"]["value"] for r in (auto, plain)]
    assert ratios[0] < ratios[1] and auto.data["sides"]["embedding"]["w"]["ridge"] in (1.0, 10.0, "identity")


# ---------------------------------------------------------------------------------------------------- verbs and functions


def test_from_python_the_folder_is_the_model_or_absent(three, tmp_path):
    made = vocab.propagate(base=three[0], instruct=resolve(three[1]), donor=three[2], mode="swap", out=tmp_path / "out")
    assert json.loads((tmp_path / "out/propagation.json").read_text()) == json.loads(json.dumps(made.data))
    assert json.loads((tmp_path / "out/manifest.json").read_text())["recipe"]["use"] == "vocab.propagate@1"
    with pytest.raises(InputError, match="no such model"):
        vocab.propagate(base=three[0], instruct=three[1], donor=tmp_path / "nowhere", out=tmp_path / "never")
    assert not (tmp_path / "never").exists() and not (tmp_path / "never.partial").exists()


def test_a_plan_says_rows_and_tokens_without_reading_a_tensor(three):
    made = steps.plan(config(three, mode="conversion"), Context(resolve, Path, planning=True))
    assert "264 rows become 384" in made.lines[0] and "6 tokens keep" in made.lines[1] and "320 tokens to fit" in made.lines[2]
    assert made.peak_bytes and made.disk_bytes and made.like is not None


@pytest.mark.parametrize("fields", [{"mode": "swap", "ridge": 1.0}, {"ridge": -1.0}, {"mode": "swop"}, {"ridge": "often"}])
def test_what_cannot_be_meant_is_refused(three, tmp_path, fields):
    with pytest.raises(RecipeError):
        vocab.propagate(base=three[0], instruct=three[1], donor=three[2], out=tmp_path / "out", **fields)
