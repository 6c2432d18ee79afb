"""A model whose layers accelerate has put in several places answers as it does in one."""

import pytest

import tiny as make
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer

PAIRS = [("How many?", answer) for answer in (" 12", " 19", " none of them")] + [("", "start"), ("another", " one")]
TEXTS = ["twelve apples and seven pears", "短い文"]


def answers(model):
    """(likelihoods, texts, nats of documents)"""
    scorer, nats, texts = Scorer(model, make.tokenizer(), batch_tokens=48), {}, {}
    scorer.pairs(PAIRS, nats.update)
    scorer.generate([context for context, _ in PAIRS], Decoding(12), texts.update)
    return ([nats[i] for i in range(len(PAIRS))], [texts[i] for i in range(len(PAIRS))], [d.nats for d in scorer.documents(TEXTS, 16, 8)])


def places(model, head):
    """The first layer's place, then the second's, and where the embedding and the head are."""
    inner = model.base_model_prefix
    outside = {name: head for name, _ in model.named_children() if name != inner}
    return outside | {f"{inner}.{name}": head for name, _ in getattr(model, inner).named_children() if name not in ("layers", "h")}


@pytest.mark.parametrize(("family", "layers"), [("llama", "layers"), ("gemma2", "layers"), ("gpt2", "h"), ("bloom", "h")])
@pytest.mark.parametrize("where", [("cpu", "disk", "cpu"), ("disk", "cpu", "disk")])
def test_cpu_and_disk(family, layers, where, tmp_path):
    from accelerate import dispatch_model

    plain = answers(make.model(family, layers=2, seed=4))
    model = make.model(family, layers=2, seed=4)
    place = {f"{model.base_model_prefix}.{layers}.{i}": where[i] for i in (0, 1)} | places(model, where[2])
    spread = dispatch_model(model, place, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    assert any(p.device.type == "meta" for p in spread.parameters()), "nothing was put on disk"
    nats, texts, documents = answers(spread)
    assert [n for n, _ in nats] == pytest.approx([n for n, _ in plain[0]], abs=1e-4)
    assert [greedy for _, greedy in nats] == [greedy for _, greedy in plain[0]] and texts == plain[1]
    assert documents == pytest.approx(plain[2], abs=1e-4)
