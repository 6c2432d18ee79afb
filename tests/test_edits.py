"""Edits: their algebra, files and refusals; what runs under them (engines, batches, stores); proof that they fired."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import edits_oracle
from polygraft import edits, evals, model
from polygraft.edits import GENERATED, Edit, Edits, applied, at_work, stages, told
from polygraft.errors import InputError, StepFailed
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer

WIDTH = 6


@st.composite
def edit(draw, width=WIDTH):
    op = draw(st.sampled_from(edits.OPS))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    if op in ("project", "keep"):
        return Edit("residual", 0, op, None, np.linalg.qr(rng.normal(size=(width, width)))[0][: draw(st.integers(0, 3))])
    rows = draw(st.one_of(st.none(), st.lists(st.integers(0, width - 1), unique=True).map(np.array)))
    size = width if rows is None else len(rows)
    return Edit("residual", 0, op, rows, rng.normal(size=draw(st.sampled_from([1, size])) if size else 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(edit(), max_size=5), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 99))
def test_edits_in_order_are_what_each_does_after_the_other(some, shape, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(*shape, WIDTH)))
    found = edits.Ready(stages(some, WIDTH))(x.clone(), slice(0, None), None)
    np.testing.assert_allclose(found.numpy(), edits_oracle.edited(x.numpy(), some), rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(edit(), min_size=1, max_size=4), st.integers(0, 99), st.sampled_from(["prompt", "generated"]))
def test_positions_choose_tokens(some, seed, positions):
    rng = np.random.default_rng(seed)
    x, written = torch.from_numpy(rng.normal(size=(2, 3, WIDTH))), torch.from_numpy(rng.random((2, 3)) < 0.5)
    work = Edits(tuple(some)).at(positions)
    found = edits.Ready(stages(work.edits, WIDTH))(x.clone(), slice(0, None), written[..., None])
    chosen = (written if positions == "generated" else ~written).numpy()[..., None]
    expected = np.where(chosen, edits_oracle.edited(x.numpy(), some), x.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_all_that_set_scale_and_add_is_one_operation():
    some = [Edit("act", 0, op, np.arange(4), np.ones(1)) for op in ("set", "scale", "add", "set")]
    assert [s.kind for s in stages(some, 8)] == ["set"]
    assert [s.kind for s in stages([*some, Edit("act", 0, "atleast", None, np.zeros(1)), *some], 8)] == ["set", "atleast", "set"]


def test_a_neuron_that_overflowed_can_still_be_silenced():
    x = torch.tensor([[float("inf"), 1.0]])
    found = edits.Ready(stages([Edit("act", 0, "set", np.array([0]), np.zeros(1))], 2))(x, slice(0, None), None)
    assert found.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(("what", "wrong"), {
    "no such op": {"op": "push"}, "no such point": {"point": "gate"}, "no such positions": {"positions": "last"},
    "not a finite number": {"values": np.array([np.nan])}, "named twice": {"rows": np.array([3, 3])},
    "negative or named": {"rows": np.array([-1])}, "not one value for each row": {"values": np.zeros(3)},
    "whole residual stream": {"op": "project", "values": np.eye(2)},
    "not orthonormal": {"point": "residual", "op": "keep", "rows": None, "values": np.ones((2, 4))},
}.items())
def test_what_cannot_be_an_edit_is_refused(what, wrong):
    given = {"point": "act", "layer": 0, "op": "set", "rows": np.array([0, 1]), "values": np.zeros(1)} | wrong
    with pytest.raises(InputError, match=what):
        Edit(**given)


def work(layer=0, rows=(1, 5), op="set", value=0.5):
    return Edits((Edit("act", layer, op, np.array(rows), np.array([value])),))


@pytest.mark.parametrize(("some", "what"), [
    (work(rows=(48,)), "beyond the layer"), (work(layer=2), "no such layer"), (work(layer=-1), "no such layer"),
    (Edits((Edit("act", 0, "set", None, np.zeros(5)),)), "not one value"),
    (Edits((Edit("residual", 0, "project", None, np.eye(5)[:2]),)), "another width"),
])
def test_what_does_not_fit_the_model_is_refused(tiny, some, what):
    with pytest.raises(InputError, match=what):
        applied(model.load(tiny()), some)


def test_edits_add_up_and_come_back_from_files(tmp_path):
    a, b = work(), Edits((Edit("residual", 1, "project", None, np.eye(4)[:2], "prompt"), Edit("residual", 1, "add", None, np.ones(4))))
    both = a + b
    both.save(tmp_path)
    found = Edits.load(tmp_path)
    assert found.digest == both.digest and len(found.edits) == 3 and found.positional and not a.positional
    assert len({a.digest, b.digest, (b + a).digest, both.digest, Edits().digest, work(value=0.25).digest, a.at("prompt").digest}) == 7
    assert Edits().off and not a.off
    told_ = json.loads((tmp_path / edits.FILE).read_text())
    told_["edits"][0]["layer"] = 1
    (tmp_path / edits.FILE).write_text(json.dumps(told_))
    with pytest.raises(InputError, match="do not belong together"):
        Edits.load(tmp_path)
    (tmp_path / edits.FILE).write_text('{"edits": [{"point": "act"}], "digest": ""}')
    with pytest.raises(InputError, match="not a list of edits"):
        Edits.load(tmp_path)


# ---------------------------------------------------------------------------------------------------------- proof of firing


def ids(*shape):
    return torch.randint(4, 260, shape, generator=torch.Generator().manual_seed(0))


def test_a_point_that_is_not_passed_is_an_error(tiny):
    live = model.load(tiny(layers=3))
    layer = live.model.model.layers[1].mlp
    layer.forward = lambda x: layer.down_proj(layer.up_proj(x))  # a kernel that does without the activation's module
    with torch.inference_mode(), pytest.raises(StepFailed, match="act, layer 1"), applied(live, work(1)):
        live.model(input_ids=ids(1, 5))


def test_a_pass_that_broke_off_does_not_count(tiny):
    live = model.load(tiny(layers=3))
    head = live.model.model.norm.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with torch.inference_mode(), applied(live, work(1)) as run:
        with pytest.raises(RuntimeError):
            live.model(input_ids=ids(2, 5))
        head.remove()
        live.model(input_ids=ids(1, 5))
    assert (run.passes, run.tokens) == (1, 5)


def test_nothing_is_left_behind_not_even_after_an_error(tiny):
    live = model.load(tiny("mixtral"))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in live.model.modules()]
    kind = live.model.config._experts_implementation
    with pytest.raises(ZeroDivisionError), applied(live, work()):
        assert at_work(live.model).digest == work().digest
        raise ZeroDivisionError
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in live.model.modules()] == hooks
    assert at_work(live.model).off and live.model.config._experts_implementation == kind


def test_edits_inside_edits_come_after_them(tiny):
    live = model.load(tiny())
    with torch.inference_mode():
        with applied(live, work(op="add")), applied(live, work(op="scale", value=3.0)):
            nested = live.model(input_ids=ids(1, 6)).logits
            both = at_work(live.model)
        with applied(live, both):
            torch.testing.assert_close(live.model(input_ids=ids(1, 6)).logits, nested)
        with applied(live, Edits()):
            plain = live.model(input_ids=ids(1, 6)).logits
        assert torch.equal(live.model(input_ids=ids(1, 6)).logits, plain) and not torch.equal(plain, nested)


def test_edits_of_positions_need_to_be_told(tiny):
    live = model.load(tiny())
    for mask in (None, torch.zeros(1, 4, dtype=torch.bool)):
        token = GENERATED.set(mask)
        with torch.inference_mode(), pytest.raises(StepFailed, match="which tokens are prompt"), applied(live, work().at("prompt")):
            live.model(input_ids=ids(1, 5))
        GENERATED.reset(token)


# ------------------------------------------------------------------------------------------------------------ in the engines

PROMPTS = ["one", "a longer prompt", "and one that is longer still", "x"]


def strong(live, positions="all"):
    rng = np.random.default_rng(0)
    return Edits(tuple(Edit("act", i, "set", np.arange(0, 48, 2), rng.normal(size=24) * 3) for i in range(2))).at(positions)


def written(live, prompts, **more):
    found = {}
    Scorer(live.model, live.tokenizer, **more).generate(prompts, Decoding(6), lambda some: found.update(some))
    return [found[i].text for i in range(len(prompts))]


@pytest.mark.parametrize("positions", edits.POSITIONS)
def test_an_answer_is_the_same_alone_in_a_batch_and_by_hand(tiny, positions):
    live = model.load(tiny())
    with applied(live, strong(live, positions)):
        together = written(live, PROMPTS)
        assert together == [written(live, [p])[0] for p in PROMPTS]
        for prompt, text in zip(PROMPTS, together):
            read = live.tokenizer(prompt, return_tensors="pt")["input_ids"]
            start, full = read.shape[1], read
            for _ in range(6):
                mask = (torch.arange(full.shape[1]) >= start)[None]
                with torch.inference_mode(), told(mask):
                    full = torch.cat([full, live.model(input_ids=full, use_cache=False).logits[:, -1:].argmax(-1)], 1)
                if int(full[0, -1]) == live.tokenizer.eos_token_id:
                    break
            assert live.tokenizer.decode(full[0, start:], skip_special_tokens=True) == text
    assert together != written(live, PROMPTS)


@pytest.mark.parametrize("positions", edits.POSITIONS)
def test_a_likelihood_is_that_of_the_item_alone_with_its_answer_as_generated(tiny, positions):
    live, pairs, found = model.load(tiny()), [("ab", "cde"), ("ab", "xy"), ("longer context", "q"), ("", "zz")], {}
    with applied(live, strong(live, positions)):
        scorer = Scorer(live.model, live.tokenizer)
        scorer.pairs(pairs, lambda some: found.update(some))
        for i, pair in enumerate(pairs):
            prefix, answer = scorer.encode_pair(*pair)
            row = torch.tensor([prefix + answer])
            with torch.inference_mode(), told((torch.arange(row.shape[1]) >= len(prefix))[None]):
                logits = live.model(input_ids=row).logits[0, len(prefix) - 1:-1].double().log_softmax(-1)
            assert found[i][0] == pytest.approx(float(logits[range(len(answer)), answer].sum()), abs=1e-4)


def test_a_text_has_no_prompt(tiny):
    live = model.load(tiny())
    plain = Scorer(live.model, live.tokenizer).documents(["some text to read"])
    with applied(live, strong(live, "generated")), pytest.raises(InputError, match="no prompt"):
        Scorer(live.model, live.tokenizer).documents(["some text to read"])
    with applied(live, strong(live)):
        assert Scorer(live.model, live.tokenizer).documents(["some text to read"])[0].nats != plain[0].nats


def test_answers_under_edits_are_kept_apart_from_those_without(tiny, tmp_path):
    live = model.load(tiny())

    def nats():
        found = evals.score(live.model, live.tokenizer, tasks=["problems"], langs=["en"], limit=4, identity="m", store=tmp_path)
        return [s["value"] for s in found.data["scores"] if s["metric"] == "nats"]

    plain = nats()
    with applied(live, strong(live)):
        edited = nats()
    assert edited != plain and nats() == plain
    with applied(live, strong(live)):
        assert nats() == edited
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2
