"""Group C: recipes with a fault are refused with exit code 2, the line (marked `#!` here) and what was probably meant.

The messages are kept in `C_recipes.golden`; `python tests/fault/test_C_recipes.py` writes it anew, to be read before it is committed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
import toys
from polygraft.errors import RecipeError
from polygraft.recipe import read_recipe

pytestmark = pytest.mark.group("C")
GOLDEN = Path(__file__).with_name("C_recipes.golden")

HEAD = "recipe: 1\nname: t\nmodels:\n  base: models/a\n  math: {adapter: models/c, base: base}\n"
ONE = "steps:\n  - id: one\n    use: toy.blend\n    left: base\n    right: math\n"
TWO = "  - id: two\n    use: toy.score\n    models: [one]\n"


def blend(extra: str) -> str:
    return HEAD + ONE + f"    {extra}   #!\n"


def score(extra: str) -> str:
    return HEAD + ONE + TWO + extra


REFUSED: dict[str, str | bytes] = {
    # unknown keys at four depths
    "unknown key, top": HEAD + ONE + "stepz: 3   #!\n",
    "unknown key, model": "recipe: 1\nmodels:\n  base: models/a\n  m: {adaptor: models/c, base: base}   #!\n" + ONE.replace("math", "base"),
    "unknown key, step": blend("frobnicate: 3"),
    "unknown key, nested": score("    texts:\n      sw: {corpus: x.txt, limits: 3}   #!\n"),
    # slips of the keyboard
    "typo models": "recipe: 1\nmodel:   #!\n  base: models/a\n" + ONE.replace("base", "models/a").replace("math", "models/b"),
    "typo question": HEAD + ONE + "qestion: why   #!\n",
    "typo name": "nmae: t   #!\n" + HEAD.replace("name: t\n", "") + ONE,
    "typo bottom": blend("botom: 3"),
    "typo weights key": blend("wieghts: plain"),
    "typo weights value": blend("weights: magnitud"),
    "typo case": blend("Bottom: 3"),
    "typo step": HEAD + ONE.replace("toy.blend", "toy.blned   #!"),
    "typo model ref": HEAD + ONE.replace("right: math", "right: mth   #!"),
    "typo step ref": HEAD + ONE + "  - id: two\n    use: toy.score\n    models: [onne]   #!\n",
    "typo base": HEAD.replace("base: base}", "base: bse}   #!") + ONE,
    "typo use": HEAD + ONE.replace("  - id: one\n    use:", "  - id: one   #!\n    ues:"),
    # wrong types
    "text for a number": blend("bottom: five"),
    "quoted number": blend('bottom: "3"'),
    "fraction for a whole number": blend("bottom: 2.5"),
    "true for a number": blend("bottom: true"),
    "number for text": blend("note: 3"),
    "number for true": blend("quiet: 1"),
    "text for a list": HEAD + ONE + "  - id: two\n    use: toy.score\n    models: one   #!\n",
    "list for a mapping": score("    texts: [a, b]   #!\n"),
    "list for a step": HEAD + "steps:\n  - [1, 2]   #!\n",
    "mapping for steps": HEAD + "steps:   #!\n  one: {use: toy.blend}\n",
    "nothing for text": HEAD + ONE.replace("left: base", "left:   #!"),
    "number for a model": "recipe: 1\nmodels:\n  base: 3   #!\n" + ONE.replace("math", "base"),
    # values out of range
    "below the least": blend("bottom: -1"),
    "above the most": blend("bottom: 101"),
    # missing
    "missing field": HEAD + "steps:\n  - id: one   #!\n    use: toy.blend\n    left: base\n",
    "missing steps": HEAD,
    "missing id": HEAD + "steps:\n  - use: toy.blend   #!\n    left: base\n    right: math\n",
    "missing version": "name: t   #!\n" + ONE,
    "no steps": HEAD + "steps: []   #!\n",
    "empty file": "",
    "only a comment": "# nothing here\n",
    # YAML that recipes do not use
    "duplicate key": blend("left: base"),
    "duplicate step key, top": HEAD + ONE + "name: u   #!\n",
    "alias": HEAD + ONE.replace("left: base", "left: &b base   #!").replace("right: math", "right: *b"),
    "tag": blend("note: !!str 3"),
    "python tag": blend("note: !!python/name:os.system x"),
    "merge key": blend("<<: {bottom: 3}"),
    "tab indent": HEAD + ONE + "\tbottom: 3   #!\n",
    "not UTF-8": HEAD.encode() + ONE.encode() + b"    note: caf\xe9   #!\n",
    "UTF-16": (HEAD + ONE).encode("utf-16"),
    "control character": blend("note: a\x07b"),
    "unclosed bracket": HEAD + ONE + "  - id: two\n    use: toy.score\n    models: [one\n",
    "two documents": HEAD + ONE + "---   #!\na: 1\n",
    "too large": HEAD + ONE + "# " + "x" * 2_000_000 + "\n",
    "1000 nested lists": HEAD + ONE + "    note: " + "[" * 1000 + "]" * 1000 + "   #!\n",
    "key that is a list": HEAD + ONE + "    ? [a]\n    : 3\n".replace("? [a]", "? [a]   #!"),
    "huge number": blend("bottom: 1" + "0" * 400),
    # numbers and words as YAML 1.2 has them
    "underscore number": blend("bottom: 1_000"),
    "octal number": blend("bottom: 0o7"),
    "infinity": blend("share: .inf"),
    "word for true": blend("quiet: on"),
    # references and names
    "forward reference": HEAD + "steps:\n  - id: two\n    use: toy.score\n    models: [one]   #!\n" + ONE.removeprefix("steps:\n"),
    "self reference": HEAD + ONE.replace("left: base", "left: one   #!"),
    "step that makes no model": score("  - id: three\n    use: toy.score\n    models: [two]   #!\n"),
    "two equal ids": HEAD + ONE + "  - id: one   #!\n    use: toy.score\n    models: [base]\n",
    "id like a model": HEAD + ONE.replace("id: one", "id: math   #!"),
    "id with a slash": HEAD + ONE.replace("id: one", "id: ../one   #!"),
    "model is its own base": HEAD.replace("base: base}", "base: math}   #!") + ONE,
    "unknown step version": HEAD + ONE.replace("toy.blend", "toy.blend@7   #!"),
    "recipe 2": HEAD.replace("recipe: 1", "recipe: 2   #!") + ONE,
    "recipe one": HEAD.replace("recipe: 1", "recipe: one   #!") + ONE,
}
SETS = {
    "set unknown key": "steps.one.botom=3",
    "set unknown step": "steps.onne.bottom=3",
    "set unknown top": "modles.base=x",
    "set bad value": "steps.one.bottom=three",
    "set position": "steps.9.bottom=3",
    "set through a scalar": "name.x=3",
    "set without value": "steps.one.bottom",
    "set not YAML": "steps.one.note=[a",
}
ACCEPTED = {
    "no stays text": (blend("note: no"), "note", "no"),
    "on stays text": (blend("note: on"), "note", "on"),
    "1e-5 is a number": (blend("share: 1e-5"), "share", 1e-5),
    "date stays text": (blend("note: 2026-01-02"), "note", "2026-01-02"),
    "quoted 1e-5 is text": (blend("note: '1e-5'"), "note", "1e-5"),
    "time stays text": (blend("note: 12:30:45"), "note", "12:30:45"),
    "BOM": ("\ufeff" + blend("bottom: 3"), "bottom", 3),
    "CRLF": (blend("bottom: 3").replace("\n", "\r\n"), "bottom", 3),
}


def attempt(folder: Path, text: str | bytes, sets: tuple[str, ...] = ()):
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recipe(path, toys.TABLE, sets)


def message(folder: Path, name: str) -> str:
    text, sets = (HEAD + ONE, (SETS[name],)) if name in SETS else (REFUSED[name], ())
    with pytest.raises(RecipeError) as caught:
        attempt(folder, text, sets)
    assert caught.value.exit_code == 2
    return str(caught.value)


def golden() -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", GOLDEN.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2])}


@pytest.mark.parametrize("name", [*REFUSED, *SETS])
def test_a_bad_recipe_is_refused_with_its_line(name, tmp_path):
    told = message(tmp_path, name)
    text = REFUSED.get(name, b"")
    rows = (text if isinstance(text, bytes) else text.encode()).split(b"\n")
    for line in (i + 1 for i, row in enumerate(rows) if row.endswith(b"#!")):
        assert re.search(rf"recipe\.yaml:{line}\b", told), told
    if name in SETS:
        assert f"--set {SETS[name]}" in told
    assert "pydantic" not in told and "Traceback" not in told
    assert told == golden()[name]


@pytest.mark.parametrize("name", ACCEPTED)
def test_words_and_numbers_mean_what_they_look_like(name, tmp_path):
    text, field, value = ACCEPTED[name]
    found = getattr(attempt(tmp_path, text).steps[0].config, field)
    assert found == value and type(found) is type(value)


def test_every_fault_is_told_at_once(tmp_path):
    text = HEAD + ONE.replace("left: base", "left: bse") + "    botom: 3\n    share: much\nnope: 1\n"
    with pytest.raises(RecipeError) as caught:
        attempt(tmp_path, text)
    told = str(caught.value)
    assert told.startswith("3 problems") and all(f"recipe.yaml:{line}:" in told for line in (11, 12, 13)), told


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as t:
        GOLDEN.write_text("".join(f"## {n}\n{message(Path(t), n)}\n\n" for n in [*REFUSED, *SETS]), encoding="utf-8")
