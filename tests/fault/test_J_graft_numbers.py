"""Group J: what candidates cannot be computed from is refused by name, and no NaN becomes a score."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from polygraft.choose.graft import Grafter
from polygraft.errors import InputError
from polygraft.merge import makers
from polygraft.sources import resolve

J = pytest.mark.group("J")
ROWS, SCORED = [[7, 60, 61, 62], [7, 60, 63]], [2, 1]


@pytest.fixture
def broken(tiny, tmp_path):
    """Two sources, the second with a NaN in one tensor."""
    import torch
    from safetensors.torch import load_file, save_file

    def make(key):
        task, language = (tiny("llama", layers=4, seed=s, noise=0.05) for s in (1, 2))
        out = tmp_path / "language"
        shutil.copytree(language, out)
        if key is not None:
            tensors = load_file(out / "model.safetensors")
            tensors[key].view(-1)[:] = torch.nan
            save_file(tensors, out / "model.safetensors", {"format": "pt"})
        return [resolve(task), resolve(out)]

    return make


def opened(sources):
    grafter = Grafter.open(sources, dtype="float32")
    return grafter, [makers.swap(grafter.anatomy, bottom=b, top=0, transition=0, embed=e, head="task", norm="task", names=("task", "language"))
                     for b, e in ((0, "task"), (2, "task"), (3, "task"), (0, "language"))]


@J
@pytest.mark.parametrize(("key", "said", "who"), [
    ("model.layers.1.mlp.down_proj.weight", "layer 1", "candidate 1"),
    ("model.layers.2.self_attn.q_proj.weight", "layer 2", "candidate 2"),
    ("model.embed_tokens.weight", "the embedding", "candidate 3"),
])
def test_a_nan_names_candidate_and_layer(broken, key, said, who):
    grafter, profiles = opened(broken(key))
    with pytest.raises(InputError, match="not numbers") as caught:
        grafter.likelihoods(profiles, ROWS, SCORED)
    assert said in str(caught.value) and who in str(caught.value)
    with pytest.raises(InputError, match="not numbers"):
        grafter.divergence(profiles, ROWS, SCORED, profiles[0])


@J
def test_a_nan_in_the_reference_or_in_a_head_or_in_a_blend(broken):
    grafter, profiles = opened(broken("model.layers.1.mlp.down_proj.weight"))
    with pytest.raises(InputError, match="layer 1"):
        grafter.divergence(profiles[:1], ROWS, SCORED, profiles[1])
    assert np.isfinite(grafter.divergence(profiles[:1], ROWS, SCORED, profiles[0])).all()
    with pytest.raises(InputError, match=r"cannot be blended") as caught:
        grafter.likelihoods([makers.soup(grafter.anatomy, ("task", "language"))], ROWS, SCORED)
    assert "model.layers.1.mlp.down_proj.weight" in str(caught.value)


@J
def test_a_nan_in_the_head(broken):
    grafter, _ = opened(broken("lm_head.weight"))
    with pytest.raises(InputError, match="the head"):
        grafter.likelihoods([makers.swap(grafter.anatomy, bottom=0, top=0, transition=0, head="language")], ROWS, SCORED)


@J
@pytest.mark.parametrize(("row", "scored", "said"), [
    ([7, 9999], 1, "no embedding"), ([7, -1], 1, "no embedding"), ([7, 8], 2, "more tokens to score"), ([], 1, "more tokens to score"),
    ([7, 8], -1, "more tokens to score"), ([7] * 130, 1, "longer than the model's context"),
])
def test_rows_that_cannot_be_read(broken, row, scored, said):
    grafter, profiles = opened(broken(None))
    with pytest.raises(InputError, match=said) as caught:
        grafter.likelihoods(profiles, [*ROWS, row], [*SCORED, scored])
    assert "row 2" in str(caught.value)


@J
@pytest.mark.parametrize(("other", "said"), [({"layers": 3}, "differ"), ({"dtype": "bfloat16"}, "differ"), ({"vocab_size": 272}, "differ")])
def test_sources_that_do_not_belong_together(tiny, other, said):
    sources = [resolve(tiny("llama", layers=4, seed=1, noise=0.05)), resolve(tiny("llama", **({"layers": 4, "seed": 2, "noise": 0.05} | other)))]
    with pytest.raises(InputError, match=said):
        Grafter.open(sources, dtype="float32")


@J
def test_layers_that_share_more_than_the_hidden_state_are_refused(broken, monkeypatch):
    from polygraft.choose.graft.pieces import Piece

    grafter, profiles = opened(broken(None))
    many = Piece.many
    monkeypatch.setattr(Piece, "many", lambda self, states: many(self, states) | {"shared_states": {}})
    with pytest.raises(InputError, match="share more than the hidden state") as caught:
        grafter.likelihoods(profiles, ROWS, SCORED)
    assert "shared_states" in str(caught.value) and "write each merge" in str(caught.value)
