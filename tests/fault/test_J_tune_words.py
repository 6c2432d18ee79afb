"""Group J: what a training refuses at the command line says where, what was found, and how to mend it, in a few lines."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polygraft import cli, selectionfile
from polygraft.selectionfile import Entry

pytestmark = pytest.mark.group("J")

DATA = ("--data", "d.jsonl")
SLAM = ("slam", "llama", "--pairs", "sw=q.jsonl", "--english", "en.jsonl")
PARTITION = ("partition", "llama", "--task-data", "m=d.jsonl", "--language-data", "s=d.jsonl")
# name: (words, exit code, what is said of it). `llama`, `gpt2`: model folders
CASES = {
    "an empty file": (("sft", "llama", "--data", "empty.jsonl"), 3, ["no examples", "an empty file"]),
    "missing columns": (("sft", "llama", "--data", "columns.jsonl"), 3, ["columns.jsonl:1", "keys ['a']", "rename the columns"]),
    "an empty completion": (("sft", "llama", "--data", "completion.jsonl"), 3, ["`completion` is empty", "take the line out"]),
    "an unknown role": (("sft", "llama", "--data", "role.jsonl"), 3, ["robot", "rename the role"]),
    "no messages": (("sft", "llama", "--data", "messages.jsonl"), 3, ["found: []", "expected: ["]),
    "a file that is not there": (("sft", "llama", "--data", "nowhere.jsonl"), 3, ["nowhere.jsonl: no such file", "check the path"]),
    "a folder of examples": (("sft", "llama", "--data", "folder"), 3, [".jsonl", "name a file in it"]),
    "deep JSON": (("sft", "llama", "--data", "deep.jsonl"), 3, ["brackets within brackets"]),
    "no English row": (("slam", "llama", "--layers", "0", "--pairs", "sw=q.jsonl"), 3, ["q.jsonl:1", "or name a file of English"]),
    "a negative weight": (("sft", "llama", *DATA, "--mix", "sw=-1,en=2"), 2, ["found: sw=-1\n", "expected: 0 or more"]),
    "weights of 0": (("sft", "llama", "--data", "sw=d.jsonl", "--mix", "sw=0"), 2, ["all weights are 0", "found: sw=0"]),
    "weights and alpha": (("sft", "llama", *DATA, "--mix", "sw=1", "--mix-alpha", "0.3"), 2, ['`weights` {"sw": 1}', "`alpha` 0.3"]),
    "two choices of layers": ((*SLAM, "--layers", "0", "--everything"), 2, ['`layers` ["0"], `everything` true', "leave out all but one"]),
    "no choice of layers": (SLAM, 2, ["say what is trained", "for example"]),
    "gate of everything": ((*SLAM, "--everything", "--gate"), 2, ["`gate` true", "leave `gate` out"]),
    "no such language": (("slam", "llama", "--layers", "0", "--pairs", "zz9=q.jsonl"), 2, ["found: 'zz9'", "fix: check the spelling"]),
    "English among the pairs": (("slam", "llama", "--layers", "0", "--pairs", "en=q.jsonl"), 2, ["found: en\n", "`english`"]),
    "too many random neurons": (("neurons", "llama", *DATA, "--select", "s.json:crowd", "--random", "0"), 2, ["select fewer"]),
    "rows of attention": (("neurons", "llama", *DATA, "--select", "s.json:rows"), 3, ["layer 0 attn.q", "name a selection of neurons"]),
    "no neuron": (("neurons", "llama", *DATA, "--select", "s.json:none"), 2, ["found: none", "another selection"]),
    "a file without selections": (("neurons", "llama", *DATA, "--select", "none.json"), 2, ["holds no selection", "make it again"]),
    "gate of a model without": (("neurons", "gpt2", *DATA, "--select", "s.json:some", "--parts", "gate"), 2,
                                ["found: gate\n  expected: up, down\n  fix: leave `gate` out"]),
    "a part of a model without": (("lora", "gpt2", *DATA, "--parts", "wings"), 2, ["fix: name one of these"]),
    "the head of a tied model": (("sft", "gpt2", *DATA, "--method", "full", "--select", "s.json:head"), 2,
                                 ["one tensor in this model", "found: head", "expected: embed", "which is both"]),
    "longer than the model can see": (("sft", "gpt2", "--data", "long.jsonl", "--length", "100000"), 3,
                                      ["what the model was made to see", "fix: shorten the examples"]),
    "longer than the length": (("sft", "gpt2", "--data", "long.jsonl", "--length", "16"), 3, ["fix: raise `length`"]),
    "a seed beyond": (("sft", "llama", *DATA, "--seed", "4294967296"), 2, ["--seed", "less than 4294967296"]),
    "a seed far beyond": (("neurons", "llama", *DATA, "--select", "s.json:some", "--seed", "9" * 23), 2, ["--seed", "less than"]),
    "steps without sense": (("sft", "llama", *DATA, "--steps", "9" * 21), 2, ["--steps", "at most 1000000000"]),
    "epochs without sense": ((*SLAM, "--layers", "0", "--epochs", "1e99"), 2, ["--epochs", "at most"]),
    "steps and epochs": (("sft", "llama", *DATA, "--steps", "3", "--epochs", "2"), 2, ["`steps` 3, `epochs` 2", "leave one of them out"]),
    "weights with one source a side": ((*PARTITION, "--mix", "m=.5,s=.5"), 2, ["would do nothing", "leave them out"]),
    "a word that is no token": (("embeddings", "llama", *DATA, "--tokens", "words.txt"), 3, ["words.txt:1", "fix: take the line out"]),
}


@pytest.fixture
def place(tiny, tmp_path, monkeypatch):
    """Files that are all wrong in some way, and models by their families' names."""
    monkeypatch.chdir(tmp_path)
    for family in ("llama", "gpt2"):
        (tmp_path / family).symlink_to(tiny(family))
    rows = {"d": {"prompt": "a", "completion": "b"}, "columns": {"a": 1}, "completion": {"prompt": "a", "completion": ""},
            "role": {"messages": [{"role": "robot", "content": "a"}]}, "messages": {"messages": []}, "q": {"question": "swali"},
            "en": {"question": "q"}, "long": {"prompt": "a" * 5000, "completion": "b"}}
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    (tmp_path / "words.txt").write_text("no token at all 12345\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "none.json").write_text('{"selections": {}}')
    some = {"some": np.array([1]), "crowd": np.arange(40), "none": np.array([], int)}
    named = {name: (Entry(0, "ffn", "neuron", rows),) for name, rows in some.items()}
    selectionfile.write(tmp_path / "s.json", named | {"rows": (Entry(0, "attn", "q", np.array([1])),), "head": (Entry(None, "head"),)})
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_the_refusal_says_what_to_do(case, place, capsys):
    words, code, said = CASES[case]
    assert cli.run(["tune", *words, "--plan"]) == code
    error = capsys.readouterr().err
    assert [part for part in said if part not in error] == [], error
    assert "  fix: " in error or "--seed" in said or (code == 2 and "at most" in said[-1]), error
    assert "a mapping with" not in error and len(error) < 1500


def test_a_word_is_sought_behind_a_space_first():
    from polygraft.tune.embeddings import meant

    vocabulary = {f"t{i}": i for i in range(40_000)} | {"Ġhabari": 1, "habar": 2}
    assert meant("habari", vocabulary) == "did you mean `Ġhabari`?"
    assert meant("habarr", vocabulary).startswith("did you mean `habar`") and len(meant("??", vocabulary)) < 200


def test_a_probe_without_a_plan_trains_nothing(place, capsys):
    assert cli.run(["tune", "sft", "llama", *DATA, "--probe", "--out", "out"]) == 2
    assert "fix: add --plan" in capsys.readouterr().err and not (place / "out").exists()


def test_files_that_are_missing_leave_no_false_totals(place, capsys):
    (place / "r.yaml").write_text("recipe: 1\nname: r\nquestion: Why?\nmodels: {base: llama}\nsteps:\n"
                                  "  - {id: one, use: tune.sft, model: base, data: [x/nowhere.jsonl]}\n")
    assert cli.run(["plan", "r.yaml"]) == 3
    said = capsys.readouterr()
    assert "or put the file there: the head of r.yaml may say how" in said.err
    assert "1 of 1 steps to do" in said.out and "when these are mended" in said.out and "0 B" not in said.out
