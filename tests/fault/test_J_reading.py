"""Readings at the edge of numbers and texts: defined values, or a refusal that names its place; never NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny as make
from polygraft import model as live_models
from polygraft.activity import Activity
from polygraft.analysis.reading.bins import zero
from polygraft.analysis.reading.config import Wanted
from polygraft.analysis.reading.passing import How, gather
from polygraft.arrays import Arrays
from polygraft.data import Corpus
from polygraft.errors import StepFailed, UserError
from polygraft.windows import Stream, budgeted, tokenized

ALL = Wanted(histogram=True, groups=5, residual=True, attention=True)


def stream(*documents: list[int], language: str = "en", bos: int | None = 1) -> Stream:
    sizes = list(map(len, documents))
    ids = np.array([t for d in documents for t in d], np.int32)
    return Stream(language, ids, np.cumsum([0, *sizes]), np.array(sizes), bos)


def read(net: Any, folder: Path, wanted: Wanted = ALL, window: int = 16, **streams: Stream) -> Activity:
    found = gather(net, streams or {"en": stream([9] * 20)}, wanted, folder, how=How(window, rows=2))
    for g in found.languages:
        assert all(np.isfinite(a).all() for a in found.of(g).values())
    return found


def zeroed(net: Any, role: str) -> None:
    with torch.no_grad():
        for layer in net.model.model.layers:
            getattr(layer.mlp, role).weight.zero_()


def one_token(net: Any, folder: Path) -> None:
    found = read(net, folder, en=stream([7]))
    assert found.tokens("en") == 1 and set(np.unique(found.probability()[found.real])) <= {0.0, 1.0}


def one_language(net: Any, folder: Path) -> None:
    assert read(net, folder).probability().shape[-1] == 1


def nothing_fires(net: Any, folder: Path) -> None:
    zeroed(net, "gate_proj")
    found = read(net, folder)
    assert not found.probability().any() and (found.array("en", "histogram")[..., zero()] == 20).all()


def more_groups_than_documents(net: Any, folder: Path) -> None:
    assert read(net, folder, en=stream([5] * 3, [6] * 4)).array("en", "group.tokens").tolist() == [3, 4, 0, 0, 0]


def documents_without_tokens(net: Any, folder: Path) -> None:
    found = read(net, folder, en=stream([], [5] * 3, [], [6]))
    assert found.tokens("en") == 4 and found.array("en", "group.tokens").sum() == 4


def windows_of_one_token(net: Any, folder: Path) -> None:
    found = read(net, folder, window=2, en=stream([5, 6, 7]))
    assert found.tokens("en") == 3 == found.array("en", "histogram")[0, 0].sum()


def no_bos(net: Any, folder: Path) -> None:
    assert read(net, folder, en=stream([5, 6, 7], bos=None)).tokens("en") == 3


def the_last_window_is_one_token(net: Any, folder: Path) -> None:
    assert read(net, folder, en=stream([5] * 16)).tokens("en") == 16  # 15 a window


def the_same_text_twice(net: Any, folder: Path) -> None:
    found = read(net, folder, en=stream([5] * 9), sw=stream([5] * 9, language="sw"))
    p = found.probability()
    assert (p[..., 0] == p[..., 1]).all()


def a_huge_first_state(net: Any, folder: Path) -> None:
    """BOS is often an outlier; what is not counted may be anything."""
    with torch.no_grad():
        net.model.get_input_embeddings().weight[1] = 1e30
    net.model.model.layers[0].self_attn.v_proj.weight.data.zero_()  # so that it reaches no other token
    net.model.model.layers[1].self_attn.v_proj.weight.data.zero_()
    read(net, folder)


def squares_over_float32(net: Any, folder: Path) -> None:
    with torch.no_grad():
        net.model.model.layers[0].mlp.gate_proj.weight[0] = 1e25
    with pytest.raises(StepFailed, match="not finite") as e:
        read(net, folder, en=stream(list(range(10, 40))))
    assert "layer 0" in str(e.value.where)


def nan_weights(net: Any, folder: Path) -> None:
    with torch.no_grad():
        net.model.model.layers[1].self_attn.o_proj.weight[0, 0] = float("nan")
    with pytest.raises(StepFailed, match="not finite") as e:
        read(net, folder, en=stream([5, 6, 7]))
    assert "weights" in str(e.value.fix) and "--dtype" not in str(e.value.fix)
    net.model.to(torch.bfloat16)
    with pytest.raises(StepFailed, match="not finite") as e:
        read(net, folder, en=stream([5, 6, 7]))
    assert "--dtype float32" in str(e.value.fix)


def one_bin_holds_all(net: Any, folder: Path) -> None:
    found = read(net, folder, en=stream([5]))
    assert (found.array("en", "histogram")[found.real].max(-1) == 1).all()


CASES: list[Callable[[Any, Path], None]] = [
    one_token, one_language, nothing_fires, more_groups_than_documents, documents_without_tokens, windows_of_one_token, no_bos,
    the_last_window_is_one_token, the_same_text_twice, a_huge_first_state, squares_over_float32, nan_weights, one_bin_holds_all,
]  # fmt: skip


@pytest.mark.group("J")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_odd_readings(case, tiny, tmp_path):
    case(live_models.load_folder(tiny("llama")), tmp_path / "r")


@pytest.mark.group("J")
def test_an_expert_that_nobody_chose_never_fires(tiny, tmp_path):
    net = live_models.load_folder(tiny("mixtral"))
    with torch.no_grad():
        for layer in net.model.model.layers:
            layer.mlp.gate.weight[2] = -1e3 * layer.mlp.gate.weight[:2].sum(0)
            layer.mlp.gate.weight[:2] = 0
    found = read(net, tmp_path / "r", en=stream(list(range(10, 40))))
    tokens = found.array("en", "histogram").sum(-1)
    assert (tokens == 30).all() and found.sizes == (make.EXPERTS * make.FFN,) * 2


TEXTS = {
    "names of special tokens": ("a<s>b</s>\n", "a<s>b</s>"),
    "a byte-order mark": ("\ufeffab\n", "ab"),
    "carriage returns": ("ab\r\ncd\r\n", "abcd"),
    "blank lines": ("ab\n\n  \ncd\n", "abcd"),
    "right to left": ("\u0645\u0631\u062d\u0628\u0627\n", "\u0645\u0631\u062d\u0628\u0627"),
    "joiners": ("\u0915\u094d\u200d\u0937\n", "\u0915\u094d\u200d\u0937"),
    "no end of line": ("ab", "ab"),
    "one long line": ("ab " * 5000, "ab " * 5000),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_read_as_they_are(name, tiny, tmp_path):
    text, expected = TEXTS[name]
    (tmp_path / "a.txt").write_bytes(text.encode())
    tokenizer = live_models.load_tokenizer(tiny("llama"))
    found = tokenized(Corpus("en", tmp_path / "a.txt"), tokenizer)
    assert tokenizer.decode(found.ids) == expected and not set(found.ids.tolist()) & set(tokenizer.all_special_ids)


@pytest.mark.group("K")
@pytest.mark.parametrize("data", [b"", b"\n\n", b"a\x00b\n", b"\xff\xfea\x00", b"\xc3\x28\n"], ids=["empty", "blank", "nul", "utf-16", "broken"])
def test_texts_that_are_none_are_refused(data, tiny, tmp_path):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError) as e:
        tokenized(Corpus("en", tmp_path / "a.txt"), live_models.load_tokenizer(tiny("llama")))
    assert str(tmp_path / "a.txt") in str(e.value.where)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.group("I")
@pytest.mark.parametrize("harm", [half, emptied, gone], ids=lambda h: h.__name__)
def test_a_language_that_does_not_lie_there_whole_is_read_again(harm, tiny, tmp_path):
    net = live_models.load_folder(tiny("llama"))
    streams, _ = budgeted({"en": stream([5] * 30), "sw": stream([6] * 40, language="sw")}, tokens=None, parallel=False)
    found = read(net, tmp_path / "r", **streams)
    before = {p.name: p.read_bytes() for p in found.folder.iterdir()}
    harm(found.path("sw"))
    (found.folder / ".activity.sw.safetensors.1-1.tmp").write_bytes(b"left by a kill")
    read(net, tmp_path / "r", **streams)
    assert {p.name: p.read_bytes() for p in found.folder.iterdir()} == before


@pytest.mark.group("I")
@pytest.mark.parametrize("change", ["groups", "window", "text", "histogram"])
def test_another_question_is_asked_again(change, tiny, tmp_path):
    net = live_models.load_folder(tiny("llama"))
    read(net, tmp_path / "r")
    first = Arrays(tmp_path / "r" / "activity.en.safetensors").metadata["key"]
    wanted = Wanted(groups=3) if change == "groups" else Wanted() if change == "histogram" else ALL
    text = stream([9] * 19 + [8]) if change == "text" else stream([9] * 20)
    read(net, tmp_path / "r", wanted, 15 if change == "window" else 16, en=text)
    found = Arrays(tmp_path / "r" / "activity.en.safetensors")
    assert found.metadata["key"] != first and ("histogram" in found) == wanted.histogram
