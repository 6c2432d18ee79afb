"""Does the result read chats as the instruct model does: the same text from its template, the same control tokens, one id each?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.chat import Plain, plain
from polygraft.errors import StepFailed
from polygraft.vocab.propagation.joining import Joined
from polygraft.vocab.propagation.trio import Member

CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello! 2 + 2 = 4?"}],
    [{"role": "user", "content": "Привет!\n你好"}, {"role": "assistant", "content": "Да."}, {"role": "user", "content": "...?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
)


@dataclass(frozen=True)
class Chat:
    """How many chats were rendered, and what stood in the way of the others ("" for nothing)."""

    rendered: int
    why: str = ""


def check_chat(instruct: Member, model: Path, join: Joined) -> Chat:
    """Render chats with both. Raises StepFailed where text or control tokens differ, or a control token is not one id."""
    files = {p.name: p for p in model.iterdir() if p.is_file()}
    before, after = plain(instruct.weights.extras), plain(files)
    if before is None or after is None:
        raise StepFailed("the tokenizers library cannot read the result's tokenizer", where=model / "tokenizer.json",
                         fix="please report it with both tokenizer.json")
    control = [t["content"] for t in join.vocabulary.added.values() if t.get("special")]
    for token in control:
        if (found := after.core.encode(token, add_special_tokens=False).ids) != [join.vocabulary.id_of(token)]:
            raise StepFailed("a control token is not one id", where=model, found=f"{token!r}: {found}",
                             expected=join.vocabulary.id_of(token), fix="please report it with both tokenizers")
    if before.chat_template is None:
        return Chat(0, "the instruct model has no chat template")
    done = [_rendered(before, after, chat, instruct, model) for chat in CHATS]
    why = next((words for words in done if words), "")
    return Chat(done.count(""), why)


def _rendered(before: Plain, after: Plain, chat: list[dict[str, str]], instruct: Member, model: Path) -> str:
    """"" when both make the same of a chat, or why the instruct model's own template refuses it."""
    from jinja2.exceptions import TemplateError

    try:
        text = before.apply_chat_template(chat, add_generation_prompt=True)
    except (TemplateError, TypeError, AttributeError, KeyError) as e:
        return f"the template does not render {len(chat)} turns from {chat[0]['role']}: {e}"
    if (made := after.apply_chat_template(chat, add_generation_prompt=True)) != text:
        raise StepFailed("the chat template renders otherwise", where=model, found=repr(made[:200]), expected=repr(text[:200]))
    one, two = _control(before, text, instruct.vocabulary.control), _control(after, text, instruct.vocabulary.control)
    if one != two:
        raise StepFailed("a chat has other control tokens than before", where=model, found=two, expected=one)
    return ""


def _control(tokenizer: Plain, text: str, control: Any) -> list[str]:
    ids = tokenizer.core.encode(text, add_special_tokens=False).ids
    return [token for i in ids if (token := tokenizer.core.id_to_token(i)) in control]
