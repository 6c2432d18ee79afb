"""Tokenizers trained anew, and tokenizers as folders of files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.errors import InputError, RecipeError, StepFailed
from polygraft.step import Step
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tokenizer import steps, train
from polygraft.vocab.tokenizer.folder import anchored, model_files, read_tokenizer, write_tokenizer
from test_tokenfile import byte_level, sentencepiece
from test_vocab_extend import NEW, as_llama3, opened, prefixed, single_digits

TRAIN: Step = next(s for s in steps.STEPS if s.name == "vocab.train")
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]}  # fmt: skip
TEXT = [*NEW, "1999 и 2024, 3.14", "ещё немного слов о словах и о тексте"] * 3


def begun(tree):
    """<s> before every text, by a post-processor that holds its id."""
    i = next(t["id"] for t in tree["added_tokens"] if t["content"] == "<s>")
    tree["post_processor"] = TEMPLATE | {"special_tokens": {"<s>": {"id": "<s>", "ids": [i], "tokens": ["<s>"]}}}


def both(*changes):
    return lambda tree: [change(tree) for change in changes]


KINDS = {"bytes": (byte_level, begun), "llama3": (byte_level, both(as_llama3, begun)), "digits": (byte_level, single_digits),
         "metaspace": (sentencepiece, both(prefixed, begun)),
         "unigram": (lambda: sentencepiece("unigram"), begun)}  # fmt: skip


@pytest.fixture(scope="module", params=[(name, kind) for name in KINDS for kind in ("bpe", "unigram")], ids="-".join)
def trained(request, tmp_path_factory):
    name, kind = request.param
    tmp_path = tmp_path_factory.mktemp("train")
    make, change = KINDS[name]
    old = opened(tmp_path, make(), change)
    tree = train.replacement(old.vocabulary, TEXT, kind, 330)
    write_tokenizer(tmp_path / "new", tree, old)
    return kind, old.vocabulary, read_tokenizer(tmp_path / "new").vocabulary


def test_control_tokens_are_kept_by_name_and_ids_have_no_holes(trained):
    kind, old, new = trained
    assert set(new.control) == set(old.control) and new.kind.lower() == kind and new.alphabet == old.alphabet
    assert not new.holes and new.size <= 330
    for name, i in new.control.items():
        assert new.tokenizer.encode(f"да{name}да", add_special_tokens=False).ids.count(i) == 1


def test_what_is_put_before_a_text_has_its_new_id(trained):
    _, old, new = trained
    if old.tree.get("post_processor"):
        assert new.tokenizer.encode("да").ids[0] == new.id_of("<s>")


@given(st.text(st.sampled_from("абв ёЖz日🦙\n,.0129"), max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back(trained, text):
    _, old, new = trained
    wanted = old.tokenizer.decode(old.tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
    assert new.tokenizer.decode(new.tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == wanted


def test_no_token_has_two_digits(trained):
    _, _, new = trained
    digits = [sum(48 <= b <= 57 for b in content) for content in new.contents if content]
    assert max(digits) == 1


def test_the_text_takes_fewer_tokens(trained):
    _, old, new = trained
    before, after = (sum(len(v.tokenizer.encode(t, add_special_tokens=False).ids) for t in TEXT) for v in (old, new))
    assert after < before or old.size > 330


def test_words_of_the_text_are_tokens(tmp_path):
    for make in (byte_level, sentencepiece):
        old = opened(tmp_path, make(), name=make.__name__).vocabulary
        tree = train.replacement(old, ["зурбаган не зурбаган"] * 50, "bpe", 320)
        write_tokenizer(tmp_path / "new", tree, read_tokenizer(tmp_path / make.__name__))
        assert " зурбаган".encode() in Vocabulary.open(tmp_path / "new").by_bytes


def test_too_small_a_size_is_refused_with_what_is_always_there(tmp_path):
    old = opened(tmp_path, byte_level()).vocabulary
    with pytest.raises(RecipeError, match=r"(?s)no room.*258"):
        train.replacement(old, TEXT, "bpe", 258)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_step_writes_a_tokenizer_that_loads_everywhere(tmp_path, kind):
    import tiny
    from polygraft import recipe

    model, text = tiny.folder(tmp_path), tmp_path / "ru.txt"
    text.write_text("\n".join(TEXT))
    other = tmp_path / "en.txt"
    other.write_text("the dog barked\n" * 5)
    config = steps.Train(model=str(model), corpus={"ru": str(text), "en": str(other)}, share={"ru": 3, "en": 1}, size=340, kind=kind)
    result = recipe.run_step(TRAIN, config, tmp_path / "out")
    new = read_tokenizer(tmp_path / "out")
    old = read_tokenizer(model)
    assert set(new.vocabulary.control) == set(old.vocabulary.control)
    assert result.data["tokens"] == new.vocabulary.size <= 340 and result.data["shared"] >= 256
    assert ("340 were asked for" in result.summary[0]) is (new.vocabulary.size < 340)
    found = [c for c in result.caveats if "a check found" in c]
    assert not found if kind == "bpe" else all(": llama.cpp" in c or ": reach" in c for c in found), found
    figures = {row[0]: row[1:] for row in result.tables[0].rows}
    assert figures["Russian"][1].value > 1.2 * figures["Russian"][0].value
    assert new.config["chat_template"] == old.config["chat_template"] if "chat_template" in old.config else \
        new.files["chat_template.jinja"].read_bytes() == old.files["chat_template.jinja"].read_bytes()


# ---------------------------------------------------------------------------------------------------------------- folders


def put(folder, **more):
    for name, value in more.items():
        (folder / name.replace("__", ".")).write_text(value if isinstance(value, str) else json.dumps(value))


def test_ids_that_are_written_twice_follow_tokenizer_json(tmp_path):
    old = opened(tmp_path, byte_level())
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    put(tmp_path / "old", tokenizer_config__json={"added_tokens_decoder": {"0": {"content": "<s>"} | flags, "1": {"content": "</s>"} | flags}},
        added_tokens__json={"<s>": 0, "</s>": 1}, merges__txt="a b", special_tokens_map__json={"eos_token": "</s>"})  # fmt: skip
    old = read_tokenizer(tmp_path / "old")
    tree = train.replacement(old.vocabulary, TEXT, "bpe", 300)
    names = {t["content"]: i for t, i in zip(reversed(tree["added_tokens"]), (0, 1))}
    vocab = tree["model"]["vocab"]
    vocab.update(names)
    tree["added_tokens"] = [t | {"id": names[t["content"]]} for t in reversed(tree["added_tokens"])]
    assert write_tokenizer(tmp_path / "new", tree, old) == ("merges.txt",)
    new = read_tokenizer(tmp_path / "new")
    assert new.config["added_tokens_decoder"] == {"0": {"content": "</s>"} | flags, "1": {"content": "<s>"} | flags}
    assert json.loads(new.files["added_tokens.json"].read_text()) == {"<s>": 1, "</s>": 0}
    assert new.files["special_tokens_map.json"].read_bytes() == old.files["special_tokens_map.json"].read_bytes()
    assert "merges.txt" not in new.files and not new.stale


def test_a_tokenizer_is_found_in_a_step_a_model_and_by_its_file(tmp_path):
    opened(tmp_path, byte_level())
    for inside in ("tokenizer", "model"):
        place = tmp_path / f"step-{inside}" / inside
        place.mkdir(parents=True)
        for p in (tmp_path / "old").iterdir():
            (place / p.name).write_bytes(p.read_bytes())
        assert read_tokenizer(tmp_path / f"step-{inside}").vocabulary.path == place / "tokenizer.json"
    assert read_tokenizer(tmp_path / "old/tokenizer.json").files.keys() == read_tokenizer(tmp_path / "old").files.keys()
    with pytest.raises(InputError, match="no tokenizer"):
        read_tokenizer(tmp_path)


def test_config_and_tokenizer_that_disagree_are_refused_with_both(tmp_path):
    opened(tmp_path, byte_level())
    put(tmp_path / "old", tokenizer_config__json={"added_tokens_decoder": {"7": {"content": "<s>"}}})
    with pytest.raises(InputError, match=r"(?s)disagree.*'<s>' is 7.*0"):
        _ = read_tokenizer(tmp_path / "old").tree


def test_added_tokens_that_the_library_would_number_anew_are_found(tmp_path):
    old = opened(tmp_path, byte_level(), as_llama3)
    tree = old.tree
    tree["model"] = tree["model"] | {"vocab": tree["model"]["vocab"] | {"далеко": old.vocabulary.size + 1}}
    with pytest.raises(StepFailed, match="another id than was written"):
        write_tokenizer(tmp_path / "bad", tree, old)
    write_tokenizer(tmp_path / "good", anchored(tree), old)
    assert Vocabulary.open(tmp_path / "good").control == old.vocabulary.control


def test_files_of_a_model_with_another_tokenizer(tmp_path):
    opened(tmp_path, byte_level())
    extras = {name: tmp_path / name for name in ("generation_config.json", "tokenizer.json", "tokenizer.model", "special_tokens_map.json")}
    made = model_files(extras, tmp_path / "old")
    assert set(made) == {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert made["tokenizer.json"] == tmp_path / "old/tokenizer.json"
