"""Every contract family's text is read in one pass: counts, sums and bins against the values that one token after another gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny as make
from oracle import activity_oracle as oracle
from polygraft import edits
from polygraft import model as live_models
from polygraft.analysis.reading.config import Wanted
from polygraft.analysis.reading.passing import How, gather
from polygraft.errors import InputError
from polygraft.taps import Passing, Taps
from polygraft.windows import Stream

WINDOW, GROUPS = 20, 3


def text() -> tuple[list[list[int]], Stream]:
    rng = np.random.default_rng(0)
    documents = [rng.integers(4, 260, n).tolist() for n in (7, 30, 1, 25)]
    sizes = list(map(len, documents))
    return documents, Stream("en", np.concatenate(documents).astype(np.int32), np.cumsum([0, *sizes]), np.array(sizes), 1)


def by_definition(net: live_models.Live, documents: list[list[int]], tokens: int) -> tuple[list[np.ndarray], np.ndarray]:
    """float64 [tokens, neurons] of each layer, experts one after another and 0 where a token did not choose them; documents."""
    sizes = edits.sizes(net.anatomy)
    layers: list[list[np.ndarray]] = [[] for _ in sizes]
    docs: list[int] = []
    for ids, of in oracle.windows(documents, WINDOW, 1, tokens):
        table = [np.zeros((len(ids), n)) for n in sizes]

        def keep(p: Passing, table: list[np.ndarray] = table) -> None:
            value = p.value.reshape(-1, p.value.shape[-1]).double().numpy()
            if p.expert is None:
                table[p.layer][:] = value
            else:
                assert p.tokens is not None
                width = value.shape[-1]
                table[p.layer][p.tokens.numpy(), p.expert * width : (p.expert + 1) * width] = value

        with torch.no_grad(), Taps(net.model, net.anatomy, keep):
            net.model(input_ids=torch.tensor([ids]))
        for kept, one in zip(layers, table, strict=True):
            kept.append(one[1:])
        docs += of
    return [np.concatenate(kept) for kept in layers], np.array(docs)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_a_reading_holds_what_each_token_gave(tiny, family, tmp_path):
    net, (documents, stream) = live_models.load_folder(tiny(family)), text()
    wanted = Wanted(histogram=True, groups=GROUPS, residual=True, attention=True, norms=("qkv", "o", "ffn"))
    found = gather(net, {"en": stream}, wanted, tmp_path / "r", how=How(WINDOW, rows=1))
    values, docs = by_definition(net, documents, stream.tokens)
    groups, edges = stream.groups(GROUPS)[docs], np.array(found.edges)
    assert found.sizes == tuple(v.shape[1] for v in values) and found.experts == (make.EXPERTS if family in make.MOE else 0)
    histogram = found.array("en", "histogram")
    assert (histogram.sum(-1)[found.real] == stream.tokens).all()
    for layer, a in enumerate(values):
        for name, expected in oracle.sums(a, groups, GROUPS).items():
            whole = found.array("en", name)
            got = (whole[:, layer] if name.startswith("group") else whole[layer])[..., : a.shape[1]]
            assert np.abs(got - expected).max() <= (0 if "positive" in name else 1e-6 * max(np.abs(a).sum(), (a * a).sum())), name
        for n in (0, a.shape[1] - 1):
            bins = np.bincount([oracle.bin_of(v, edges) for v in a[:, n]], minlength=len(edges) - 1)
            assert histogram[layer, n].tolist() == bins.tolist()


@pytest.mark.parametrize("family", make.MOE)
def test_a_mixture_has_no_down_projection_to_measure(tiny, family, tmp_path):
    net, (_, stream) = live_models.load_folder(tiny(family)), text()
    with pytest.raises(InputError, match="cannot be tapped"):
        gather(net, {"en": stream}, Wanted(norms=("down",)), tmp_path / "r", how=How(WINDOW))


@pytest.mark.parametrize("family", make.FAMILIES)
def test_the_stream_and_the_matrices_inputs_are_the_models_own(tiny, family):
    """The stream before the first layer and after each is what the model itself calls its hidden states; attention adds to it."""
    net = live_models.load_folder(tiny(family))
    ids = torch.randint(4, 260, (2, 9), generator=torch.Generator().manual_seed(0))
    seen: dict[tuple[str, int], torch.Tensor] = {}

    def keep(p: Passing) -> None:
        seen[p.point, p.layer] = p.value.reshape(2, 9, -1).clone()

    points = ("input.layer", "residual", "attention", "input.qkv", "input.o", "input.ffn")
    with torch.no_grad(), Taps(net.model, net.anatomy, keep, points=points):
        states = net.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.equal(seen["input.layer", 0], states[0]) and torch.equal(seen["residual", 0], states[1])
    assert torch.equal(seen["input.layer", 1], seen["residual", 0])
    name = net.anatomy.live_name(net.anatomy.keys(layer=1, kind="attn", role="o")[0]) or ""
    matrix = net.model.get_submodule(name.rpartition(".")[0])
    with torch.no_grad():
        torch.testing.assert_close(matrix(seen["input.o", 1]), seen["attention", 1])


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_point_may_be_replaced(tiny, family):
    """A tap that returns the value again changes nothing; one that returns another changes the answer."""
    net, ids = live_models.load_folder(tiny(family)), torch.arange(10, 20)[None]
    with torch.no_grad():
        plain = net.model(input_ids=ids).logits
        for point in ("attention", "input.qkv", "input.o", "input.ffn", "input.layer"):
            with Taps(net.model, net.anatomy, lambda p: p.value.clone(), points=[point]):
                torch.testing.assert_close(net.model(input_ids=ids).logits, plain)
            with Taps(net.model, net.anatomy, lambda p: p.value * 0, points=[point], layers=[1]):
                assert not torch.equal(net.model(input_ids=ids).logits, plain), point
