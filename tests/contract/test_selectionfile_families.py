"""In every contract family a selection file means the weights that do what it says."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny as make
from polygraft import model as live_models
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError
from polygraft.selectionfile import Entry, from_mask, neurons, on, whole
from polygraft.taps import Taps

FAMILY = pytest.mark.parametrize("family", make.FAMILIES)


@pytest.fixture
def net(tiny, family):
    return live_models.load_folder(tiny(family))


@pytest.fixture
def files(tiny, family):
    return Checkpoint.open(tiny(family))


def shapes_of(weights):
    return {k: t.shape for k, t in weights.tensors.items()}


def width(anatomy):
    return sum(block.size for block in anatomy.neurons(0))


def without(folder, out, selection):
    """The model folder with every selected number set to 0."""
    shutil.copytree(folder, out)
    path = out / "model.safetensors"
    tensors = load_file(path)
    for key, rows in selection.rows.items():
        if rows is None:
            tensors[key].zero_()
        else:
            tensors[key].index_fill_(selection.axis.get(key, 0), torch.as_tensor(rows), 0.0)
    save_file(tensors, path, {"format": "pt"})
    return out


@FAMILY
@torch.no_grad()
def test_weights_of_selected_neurons_are_what_their_activations_are_made_of(net, files, tiny, family, tmp_path):
    anatomy, rng = net.anatomy, np.random.default_rng(3)
    mask = rng.random((anatomy.layers, width(anatomy))) < 0.3
    ids = torch.randint(4, 260, (2, 24), generator=torch.Generator().manual_seed(0))

    def silence(p):
        own = mask[p.layer] if p.expert is None else mask[p.layer].reshape(make.EXPERTS, -1)[p.expert]
        return p.value.masked_fill(torch.as_tensor(own), 0.0)

    with Taps(net.model, anatomy, silence, points=["act"]):
        expected = net.model(ids).logits
    for i, experts in enumerate([0, make.EXPERTS] if family in make.MOE else [0]):
        selected = on(from_mask(mask, experts), files_anatomy(files), shapes_of(files))
        found = live_models.load_folder(without(tiny(family), tmp_path / str(i), selected))
        torch.testing.assert_close(found.model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(net.model(ids).logits, expected, atol=1e-3)


def files_anatomy(files):
    from polygraft.anatomy import Anatomy

    return Anatomy.of(files.config, files.tensors)


@FAMILY
def test_masks_and_entries_are_the_same_thing(files, family):
    anatomy = files_anatomy(files)
    mask = np.random.default_rng(0).random((anatomy.layers, width(anatomy))) < 0.5
    experts = make.EXPERTS if family in make.MOE else 0
    sizes = [width(anatomy)] * anatomy.layers
    assert (neurons(from_mask(mask), anatomy.layers, sizes) == mask).all()
    assert (neurons(from_mask(mask, experts), anatomy.layers, sizes, experts) == mask).all()


@FAMILY
def test_queries_keys_and_values_are_told_apart_in_one_tensor(files, family):
    anatomy, shapes, dim = files_anatomy(files), shapes_of(files), files_anatomy(files).sizes.head_dim
    seen: dict[str, list[int]] = {}
    for role in "qkv":
        heads = anatomy.heads(1)[role]
        for j, head in enumerate(heads):
            got = on([Entry(1, "attn", role, np.arange(j * dim, (j + 1) * dim))], anatomy, shapes)
            for a in head:
                assert got.rows[a.key].tolist() == list(range(a.start, a.stop)) and got.axis.get(a.key, 0) == a.axis
                seen.setdefault(a.key, []).extend(range(a.start, a.stop))
        all_of_it = on([Entry(1, "attn", role)], anatomy, shapes).normal(shapes)
        assert all_of_it == on([Entry(1, "attn", role, np.arange(len(heads) * dim))], anatomy, shapes).normal(shapes)
        with pytest.raises(InputError, match="beyond"):
            on([Entry(1, "attn", role, [len(heads) * dim])], anatomy, shapes)
    for key, rows in seen.items():  # nothing twice, nothing left
        axis = 1 if anatomy.traits.transposed and len(shapes[key]) == 2 else 0
        assert sorted(rows) == list(range(shapes[key][axis]))


@FAMILY
def test_gate_and_up_are_halves_where_they_are_one_tensor(files, family):
    anatomy, shapes = files_anatomy(files), shapes_of(files)
    block = anatomy.neurons(0)[0]
    fused = bool(anatomy.keys(layer=0, role="gate_up"))
    for role, addresses in (("gate", block.gate), ("up", block.up)):
        if block.expert is not None or not addresses:
            continue
        got = on([Entry(0, "ffn", role)], anatomy, shapes).normal(shapes)
        assert set(got.rows) == {a.key for a in addresses}
        assert all((got.rows[a.key] is None) != fused for a in addresses)
        one = on([Entry(0, "ffn", role, [5])], anatomy, shapes)
        assert {k: r.tolist() for k, r in one.rows.items()} == {a.key: [a.start + 5] for a in addresses}
        assert all(one.axis.get(a.key, 0) == a.axis for a in addresses)


@FAMILY
def test_every_part_can_be_selected_whole(files, family):
    anatomy, shapes = files_anatomy(files), shapes_of(files)
    parts = {(p.layer, p.kind, p.role or None) for p in anatomy.parts.values() if p.kind != "outside"}
    entries = [Entry(*part) for part in sorted(parts, key=str)]
    keys = {k for k, p in anatomy.parts.items() if p.kind != "outside"}
    assert whole(entries, anatomy) == keys == set(on(entries, anatomy, shapes).rows)
    assert on([Entry(None, "embed")], anatomy, shapes).count(shapes) > 0


@FAMILY
@pytest.mark.parametrize("entry, what", [
    (Entry(9, "ffn", "neuron"), "no such layer"), (Entry(0, "attn", "w"), "no such part"), (Entry(0, "ffn", "neuron", [10_000]), "beyond"),
    (Entry(0, "attn", "o", [10_000]), "beyond"), (Entry(None, "embed", None, [10_000]), "beyond"), (Entry(0, "ffn", "neuron", None, 77), "no such expert"),
])  # fmt: skip
def test_what_the_model_does_not_have_is_refused(files, family, entry, what):
    with pytest.raises(InputError, match=what) as error:
        on([entry], files_anatomy(files), shapes_of(files))
    assert entry.label in str(error.value)


@FAMILY
def test_rows_are_refused_where_a_tensor_is_taken_whole(files, family):
    anatomy = files_anatomy(files)
    for entry in (Entry(0, "ffn", "neuron"), Entry(0, "attn", "o", [1])):
        with pytest.raises(InputError, match="taken whole"):
            whole([entry], anatomy)
