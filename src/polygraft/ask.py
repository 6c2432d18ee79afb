"""Ask several models the same thing and put the answers side by side, so that a person can simply try what came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.sources import Source


@dataclass(frozen=True)
class Answer:
    """One model's answer: `tokens` generated in `seconds`, `chat` if its template was used, `complete` if it ended by itself."""

    model: str
    text: str
    tokens: int
    seconds: float
    chat: bool
    complete: bool


def ask(
    models: Iterable[str | Path | Source],
    prompt: str,
    *,
    base: str | None = None,
    system: str | None = None,
    plain: bool = False,
    max_tokens: int = 256,
    dtype: str = "auto",
    device: str = "auto",
    offline: bool = False,
) -> list[Answer]:
    """Greedy answers, one model in memory at a time: through the chat template where there is one, unless `plain`.

    `base` is what adapters lie on. Raises InputError for an empty prompt, a model without tokenizer or one that cannot be loaded.
    """
    from polygraft.model import device_for, dtype_for, load
    from polygraft.sources import Source, resolve

    if not prompt.strip():
        raise InputError("the prompt is empty", fix="put the question in quotes")
    if max_tokens < 1:
        raise InputError("max_tokens must be at least 1", found=max_tokens)
    # all headers first: a misspelt second name is told before the first model has answered
    sources = [spec if isinstance(spec, Source) else resolve(spec, base=base, offline=offline) for spec in models]
    place = device_for(device)
    kind, _ = dtype_for(place, dtype)
    answers = []
    for source in sources:
        live = load(source, dtype=kind, device=place, offline=offline)
        answers.append(answer(live, source.spec, prompt, system=system, plain=plain, max_tokens=max_tokens))
        del live  # before the next one is loaded
    return answers


def answer(live: Live, name: str, prompt: str, *, system: str | None = None, plain: bool = False, max_tokens: int = 256) -> Answer:
    """One greedy answer of a loaded model. Raises InputError if it has no tokenizer or the prompt leaves no room in its context."""
    import torch

    if live.tokenizer is None:
        fix = "copy tokenizer.json and tokenizer_config.json into its folder"
        raise InputError("the model has no tokenizer", where=name, fix=fix)
    chat = live.chat and not plain
    inputs = encode(live.tokenizer, prompt, system, chat)
    _check_length(live, name, inputs["input_ids"].shape[1], max_tokens)
    started = perf_counter()
    with torch.inference_mode():
        out = live.model.generate(**inputs.to(live.model.device), generation_config=_greedy(live, max_tokens))
    new = out[0, inputs["input_ids"].shape[1] :].tolist()
    ends = _end_tokens(live)
    text = live.tokenizer.decode(new, skip_special_tokens=True).strip()
    return Answer(name, text, len(new), perf_counter() - started, chat, bool(new) and new[-1] in ends)


def encode(tokenizer: Any, prompt: str, system: str | None, chat: bool) -> Any:
    """Token ids [1, n] and mask: the template rendered by transformers' sandbox, or the plain text after the system text."""
    if not chat:
        text = prompt if system is None else f"{system}\n\n{prompt}"
        return tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    except Exception as error:  # a template is a program of the model's author: whatever it raises, it is refused by name
        found = f"{type(error).__name__}: {error}"
        raise InputError("the model's chat template cannot render this", found=found, fix="ask without it: --plain") from None


def _check_length(live: Live, name: str, tokens: int, max_tokens: int) -> None:
    limit = getattr(live.model.config.get_text_config(), "max_position_embeddings", None)
    if limit and tokens + max_tokens > limit:
        fix = f"shorten the prompt or ask for at most {max(0, limit - tokens)} tokens"
        found = f"{tokens} + {max_tokens} tokens"
        expected = f"at most {limit}"
        raise InputError("the prompt and its answer do not fit in the context", where=name, found=found, expected=expected, fix=fix)


def _end_tokens(live: Live) -> set[int]:
    own = live.model.generation_config.eos_token_id
    ids = own if isinstance(own, list) else [own]
    return {int(i) for i in [*ids, live.tokenizer.eos_token_id] if i is not None}


def _greedy(live: Live, max_tokens: int) -> Any:
    """A fresh configuration: what a folder's generation_config.json samples with must not colour a comparison."""
    from transformers import GenerationConfig

    ends = sorted(_end_tokens(live))
    start, pad = live.tokenizer.bos_token_id, live.tokenizer.pad_token_id
    if pad is None:
        pad = ends[0] if ends else 0
    return GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, eos_token_id=ends or None, pad_token_id=pad, bos_token_id=start
    )
