"""The trie of layer sources: every distinct beginning is computed once, whatever the room, and few states are held meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraft.anatomy import Anatomy
from polygraft.choose.graft import trie
from polygraft.choose.graft.variants import Blend, Places
from polygraft.errors import InputError
from polygraft.merge import makers
from polygraft.merge.profile import Profile

LAYERS = 5
KEYS = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        *(f"model.layers.{i}.{m}.weight" for i in range(LAYERS) for m in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm"))]
paths = st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=12)


def anatomy(**config):
    return Anatomy.of({"model_type": "llama", "num_hidden_layers": LAYERS, "tie_word_embeddings": False} | config, KEYS)


def walked(made, room, together):
    """(nodes in the order computed, the most states held, how many calls)"""
    agenda, held, most, order, calls = trie.Agenda(made), set(), 0, [], 0
    while nodes := agenda.take(len(held), room, together):
        calls += 1
        assert len(nodes) <= together and len({(made.depth[n], made.variant[n]) for n in nodes}) == 1
        for node in nodes:
            assert made.parent[node] < 0 or made.parent[node] in held, "a state that is needed was forgotten"
            order.append(node)
            held.add(node)
            most = max(most, len(held))
            if agenda.done(node):
                held.remove(made.parent[node])
            if not made.children[node]:
                held.remove(node)
    assert not held
    return order, most, calls


@given(paths, st.integers(1, 20), st.integers(1, 5))
def test_every_distinct_beginning_is_computed_once(given_paths, room, together):
    made = trie.build(given_paths)
    beginnings = {tuple(p[:n]) for p in given_paths for n in range(1, 5)}
    assert len(made) == len(beginnings) and made.layers == len({b for b in beginnings if len(b) > 1})
    order, most, _ = walked(made, room, together)
    assert sorted(order) == list(range(len(made)))
    assert most <= room + 3 * together + 3, "about the room, and one batch a layer"
    for path, leaf in zip(given_paths, made.leaf):
        found = []
        while leaf >= 0:
            found.append(made.variant[leaf])
            leaf = made.parent[leaf]
        assert found[::-1] == path


@given(paths)
def test_with_room_for_all_what_meets_the_same_weights_goes_together(given_paths):
    made = trie.build(given_paths)
    order, _, calls = walked(made, len(made) + 1, len(made))
    assert [made.depth[n] for n in order] == sorted(made.depth[n] for n in order)
    assert calls == len({(made.depth[n], made.variant[n]) for n in range(len(made))})


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1), st.sampled_from(["plain", "ramp"])), min_size=1, max_size=10))
def test_a_grid_of_swaps_shares_what_is_equal(asked):
    """Layer evaluations are the distinct beginnings of layer weights, told from the profiles' vectors alone."""
    found = anatomy()
    made = [makers.swap(found, bottom=b, top=u, transition=t if b + u + t * ((b > 0) + (u > 0)) <= LAYERS else 0, weights=w,
                        names=("one", "two")) for b, u, t, w in asked]
    places = Places.of(found)
    built = trie.build([places.path(p, (0, 1))[0] for p in made])
    vectors = [[tuple(p.weights[k] for k in keys) for keys in (KEYS[:1], *(KEYS[3 + 3 * i:6 + 3 * i] for i in range(LAYERS)))] for p in made]
    assert built.layers == len({tuple(v[:n]) for v in vectors for n in range(2, LAYERS + 2)})


def test_what_stands_where():
    apart, tied = Places.of(anatomy()), Places.of(anatomy(tie_word_embeddings=True))
    assert apart.before == (KEYS[0],) and apart.behind == (KEYS[1], KEYS[2])
    assert tied.before == (KEYS[0],) and tied.behind == (KEYS[0], KEYS[1]), "a tied embedding stands on both sides; its stored copy is not read"
    assert all(len(keys) == 3 and f".{i}." in keys[0] for i, keys in enumerate(apart.layers))


def test_equal_blends_are_one_whoever_asks_and_others_are_not():
    found, places = anatomy(), Places.of(anatomy())
    names = ("base", "one", "two")

    def first(profile):
        return places.path(profile, (0, 1, 2))[0][1]

    soup = first(makers.soup(found, names))
    assert first(Profile("other", "linear", names, makers.soup(found, names).weights, {"made": "elsewhere"})) == soup
    others = [makers.soup(found, names, (1, 2, 1)), makers.task(found, names, (1 / 3, 1 / 3)), makers.ties(found, names), makers.ties(found, names, density=0.5),
              makers.dare_ties(found, names, seed=1), makers.dare_ties(found, names, seed=2), makers.dare_ties(found, ("base", "uno", "two"), seed=2)]
    assert len({soup, *map(first, others)}) == len(others) + 1
    assert all(isinstance(origin, Blend) for _, origin in soup)
    assert first(Profile("copied", "linear", names, dict.fromkeys(KEYS, (0.0, 1.0, 0.0)))) == tuple((k, 1) for k in KEYS[3:6])


def test_a_profile_of_another_model_is_refused():
    with pytest.raises(InputError, match="says nothing of a tensor"):
        Places.of(anatomy()).path(Profile("half", "linear", ("one", "two"), {KEYS[0]: (1.0, 0.0)}), (0, 1))


def test_the_grid_of_the_benchmark():
    """15 x 9 windows of 30 layers: the trie computes less than a quarter as many layers as one candidate at a time, plus a little."""
    made = [[0, *("l" if i < b or i >= 30 - u else "t" for i in range(30))] for b in range(15) for u in range(9)]
    assert trie.build(made).layers < 135 * 30 / 4
