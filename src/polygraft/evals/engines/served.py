"""A model behind an OpenAI-compatible server.

With the model's tokenizer named, texts are cut into tokens here and sent as ids, exactly as a model in memory would read them.
Without it the server cuts them: written answers and chats are as good, likelihoods are read by comparing the tokens of a context
with those of the context and its continuation, and bits per byte are not to be had.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft import files, hub
from polygraft.errors import InputError, RecipeError, suggestion
from polygraft.evals.engines import batches
from polygraft.evals.engines.base import Decoding, Engine, Written
from polygraft.evals.engines.client import NAME_TOKENIZER, Address, Client, Refused
from polygraft.evals.engines.coding import Coded, Done

CONTEXT = 4096  # tokens, where neither the server nor the user says
BYTES_PER_TOKEN = 3.0  # a guess for servers without a tokenizer: only decides how many worked examples fit
MOST_STOPS = 4  # that servers accept; answers are cut at all of them here
CHAT = "\0chat:"  # begins a prompt that is a conversation, which the server itself writes with the model's template
PROBE = "The quick brown fox: 1 234,5 Ωμέγα привет 你好 ১২৩"


@dataclass(frozen=True)
class Echo:
    """A prompt as the server read it: its tokens, the log-likelihood of each in nats and whether each is the likeliest one."""

    tokens: tuple[str, ...]
    nats: tuple[float, ...]
    greedy: tuple[bool, ...]


class Server:
    """What both engines need of one model on one server."""

    def __init__(self, client: Client):
        self.client, self.address = client, client.address
        self.entry = self._entry()
        self.model = str(self.entry["id"])
        # room for the one token that a server must be let write, and for the one that a scored text may exceed the context by
        self.context = (self.address.context or _context(self.entry) or CONTEXT) - 2

    def _entry(self) -> dict[str, Any]:
        """What /models says of the model. Raises RecipeError for a name that is not served."""
        try:
            found = self.client.ask("/models").get("data")
        except Refused as e:
            raise self._refusal(e, "/models") from None
        entries = {str(m["id"]): m for m in found or () if isinstance(m, dict) and m.get("id")}
        name = self.address.model or (next(iter(entries)) if len(entries) == 1 else "")
        if name in entries:
            return entries[name]
        if not name:
            raise RecipeError("the server has several models, or does not say", where=self.address.url,
                              found=", ".join(sorted(entries)[:20]) or "none", fix="name one after a #: server:URL#MODEL")
        raise RecipeError("the server has no such model", where=self.address.url, found=name, fix=suggestion(name, entries))

    @property
    def identity(self) -> str | None:
        """What names the answers of this model in the response store; None if nobody vouches that its weights stay the same."""
        if not self.address.identity:
            return None
        stable = {k: self.entry.get(k) for k in ("id", "owned_by", "root", "parent", "max_model_len")}
        return "served:" + files.digest([self.address.url, stable, self.address.identity])

    def _prompt(self, prompt: str | Sequence[int]) -> dict[str, Any]:
        return {"model": self.model, "prompt": prompt if isinstance(prompt, str) else list(prompt)}

    def complete(self, prompt: str | Sequence[int], **more: Any) -> dict[str, Any]:
        return self.post("/completions", self._prompt(prompt) | more)

    def post(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """An answer that has choices. Raises UserError."""
        try:
            found = self.client.ask(path, payload)
        except Refused as e:
            raise self._refusal(e, path) from None
        if not (isinstance(found.get("choices"), list) and found["choices"] and isinstance(found["choices"][0], dict)):
            raise InputError("the server's answer has no `choices`", where=self.address.url + path, fix="is it OpenAI-compatible?")
        return found

    def _refusal(self, error: Refused, path: str) -> InputError:
        fixes = {401: "name the environment variable with the key: ?key=VARIABLE", 403: "is the key allowed to use this model?",
                 404: "does the address end in /v1?", 400: "the text may not fit the context: lower it with ?context=TOKENS",
                 413: "lower ?context="}
        return InputError("the server refuses", where=self.address.url + path, found=f"{error.status}: {error.said}",
                          fix=fixes.get(error.status, "see the server's log"))

    def echo(self, prompt: str | Sequence[int]) -> Echo:
        """The likelihoods of a prompt's own tokens. Raises InputError when the server does not give them."""
        try:
            how = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
            found = self.client.ask("/completions", self._prompt(prompt) | how)
        except Refused as e:
            if e.status in (400, 404, 422, 501) and any(w in e.said.lower() for w in ("echo", "logprob", "not found", "support")):
                raise self._no_likelihoods(f"{e.status}: {e.said}") from None
            raise self._refusal(e, "/completions") from None
        try:
            logprobs = found["choices"][0]["logprobs"]
            tokens, nats, top = logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]
            n = int((found.get("usage") or {}).get("prompt_tokens", len(nats) - 1))
        except (KeyError, TypeError, IndexError, ValueError):
            raise self._no_likelihoods("an answer without them") from None
        if not (0 < n <= min(len(tokens), len(nats), len(top))):
            raise self._no_likelihoods(f"{len(nats)} likelihoods for {n} tokens")
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in nats[1:n]):
            raise InputError("the server's likelihoods are not numbers", where=self.address.url)
        likeliest = [x is not None and bool(t) and x >= max(t.values()) for x, t in zip(nats[:n], top)]
        return Echo(tuple(tokens[:n]), (0.0, *map(float, nats[1:n])), tuple(likeliest))

    def _no_likelihoods(self, found: str) -> InputError:
        return InputError("the server does not give the likelihood of a prompt", where=self.address.url, found=found,
                          expected="/completions with `echo` and `logprobs`, which choice tasks and bits per byte need",
                          fix="use a server that has it, such as vLLM's, or ask only tasks with written answers")

    def written(self, answer: dict[str, Any], text: Any, decoding: Decoding) -> Written:
        """An answer, cut before the first stop string."""
        text = text if isinstance(text, str) else ""
        cut = batches.cut(text, decoding.stops)
        tokens = (answer.get("usage") or {}).get("completion_tokens")
        finished = cut != text or answer["choices"][0].get("finish_reason") != "length"
        return Written(cut, tokens if isinstance(tokens, int) else 0, finished)

    def each(self, n: int, work: Callable[[int], Any], done: Callable[[list[tuple[int, Any]]], None]) -> None:
        """`work(i)` for i below n, `at_once` at a time; `done` is told in this thread, as they come."""
        pool = ThreadPoolExecutor(self.address.at_once)
        try:
            waiting = {pool.submit(work, i): i for i in range(n)}
            while waiting:
                over, _ = wait(waiting, return_when=FIRST_COMPLETED)
                good = [(waiting.pop(f), f) for f in over]
                done([(i, f.result()) for i, f in good if f.exception() is None])  # what is paid for is kept
                for _, f in good:
                    f.result()
        finally:
            pool.shutdown(cancel_futures=True)


def sampling(decoding: Decoding, limit: int) -> dict[str, Any]:
    """A decoding in the words of the OpenAI interface."""
    out: dict[str, Any] = {"max_tokens": limit, "temperature": decoding.temperature}
    if decoding.temperature:
        out |= {"top_p": decoding.top_p, "seed": decoding.seed}
    if stops := [s for s in decoding.stops if s][:MOST_STOPS]:
        out["stop"] = stops
    return out


class ServedIds(Coded):
    """A served model whose tokenizer is here."""

    def __init__(self, server: Server, tokenizer: Any):
        super().__init__(tokenizer, server.context)
        self.server = server
        said = server.complete(PROBE, max_tokens=1, temperature=0).get("usage") or {}
        here = len(self.encode_prompt(PROBE))
        if said.get("prompt_tokens", here) != here:
            raise RecipeError("the tokenizer is not the one that the server uses", where=server.address.url,
                              found=f"a text of {here} tokens here, of {said['prompt_tokens']} there", fix=NAME_TOKENIZER)

    @property
    def name(self) -> str:
        return self.server.model

    def likelihoods(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        """(nats, all greedy?) of the last `scored[i]` tokens of each id sequence."""
        def score(i: int) -> tuple[float, bool]:
            echo = self.server.echo(rows[i])
            if len(echo.nats) != len(rows[i]):
                raise InputError("the server reads other tokens than it is sent", where=self.server.address.url,
                                 found=f"{len(echo.nats)} tokens", expected=str(len(rows[i])), fix=NAME_TOKENIZER)
            start = len(rows[i]) - scored[i]
            return math.fsum(echo.nats[start:]), all(echo.greedy[start:])
        self.server.each(len(rows), score, done)

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Callable[[list[tuple[int, Written]]], None]) -> None:
        """Written answers; a prompt that does not fit beside the new tokens loses its beginning."""
        ids, limit = self.encode_prompts(prompts, decoding)

        def write(i: int) -> Written:
            answer = self.server.complete(ids[i], **sampling(decoding, limit))
            return self.server.written(answer, answer["choices"][0].get("text"), decoding)
        self.server.each(len(prompts), write, done)


class ServedText:
    """A served model of which only texts are known."""

    def __init__(self, server: Server):
        self.server, self.max_length = server, server.context

    @property
    def name(self) -> str:
        return self.server.model

    def pairs(self, pairs: Sequence[tuple[str, str]], done: Done) -> None:
        """Likelihoods of continuations: of the tokens that the context alone does not have, less those it loses at the seam."""
        odd = next((c for c, a in pairs if a and (not c.strip(" ") or c.startswith(CHAT))), None)
        if odd is not None:
            what = "likelihoods in a chat" if odd.startswith(CHAT) else "the likelihood of a text without a context"
            raise InputError(f"{what} cannot be asked of a server whose tokenizer is not known", where=self.server.address.url,
                             fix=NAME_TOKENIZER)
        stripped = [(c.rstrip(" "), c[len(c.rstrip(" ")):] + a) for c, a in pairs]
        contexts = list(dict.fromkeys(c for (c, _), (_, a) in zip(stripped, pairs) if a))
        read: dict[str, Echo] = {}
        self.server.each(len(contexts), lambda k: self.server.echo(contexts[k]),
                         lambda found: read.update({contexts[k]: echo for k, echo in found}))

        def score(i: int) -> tuple[float, bool]:
            if not pairs[i][1]:
                return 0.0, True
            context, whole = read[stripped[i][0]], self.server.echo("".join(stripped[i]))
            same = next((k for k, (a, b) in enumerate(zip(context.tokens, whole.tokens)) if a != b), len(context.tokens))
            return math.fsum(whole.nats[same:]) - math.fsum(context.nats[same:]), all(whole.greedy[same:])
        self.server.each(len(pairs), score, done)

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Callable[[list[tuple[int, Written]]], None]) -> None:
        """Written answers; conversations go to /chat/completions."""
        limit = min(decoding.max_tokens, max(1, self.max_length // 2))

        def write(i: int) -> Written:
            if prompts[i].startswith(CHAT):
                return self._chat(json.loads(prompts[i].removeprefix(CHAT)), decoding, limit)
            answer = self.server.complete(prompts[i], **sampling(decoding, limit))
            return self.server.written(answer, answer["choices"][0].get("text"), decoding)
        self.server.each(len(prompts), write, done)

    def _chat(self, talk: dict[str, Any], decoding: Decoding, limit: int) -> Written:
        payload = {"model": self.server.model, "messages": talk["messages"], **sampling(decoding, limit)}
        if talk["prefix"]:
            payload["messages"] = [*talk["messages"], {"role": "assistant", "content": talk["prefix"]}]
            payload |= {"continue_final_message": True, "add_generation_prompt": False}
        answer = self.server.post("/chat/completions", payload)
        return self.server.written(answer, (answer["choices"][0].get("message") or {}).get("content"), decoding)

    def documents(self, texts: Sequence[str], window: int, stride: int) -> list[Any]:
        raise InputError("bits per byte cannot be asked of a server whose tokenizer is not known", where=self.server.address.url,
                         fix=NAME_TOKENIZER)

    def chat(self, messages: Sequence[dict[str, str]], prefix: str = "") -> str:
        """The conversation itself: the server writes it with the model's own template."""
        return CHAT + json.dumps({"messages": list(messages), "prefix": prefix}, ensure_ascii=False, sort_keys=True)

    def count(self, text: str) -> int:
        """A guess from the bytes."""
        return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def connect(spec: str, *, offline: bool = False, client: Client | None = None) -> tuple[Engine, str | None]:
    """The engine at an address, and its identity in the response store, if it has one. Raises UserError.

    `offline` allows a server on this machine only.
    """
    address = Address.parse(spec)
    if offline and not address.local:
        raise InputError("this run is offline, and the server is on another machine", where=address.url)
    server = Server(client or Client(address))
    if not address.tokenizer:
        return ServedText(server), server.identity
    return ServedIds(server, _tokenizer(address.tokenizer, offline)), server.identity


def _tokenizer(spec: str, offline: bool) -> Any:
    from polygraft.model import load_tokenizer, quiet

    folder = Path(spec).expanduser()
    if not folder.is_dir():
        if hub.parse(spec) is None:
            raise InputError("no such folder", where=spec, expected="a folder with tokenizer.json, or a hub id")
        folder, _ = hub.snapshot(spec, offline=offline, weights=False)
    with quiet():
        found = load_tokenizer(folder)
    if found is None:
        raise InputError("no tokenizer here", where=spec, expected="a folder with tokenizer.json")
    return found


def _context(entry: dict[str, Any]) -> int:
    """Tokens of context, by what servers call it; 0 if they do not say."""
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    found: Iterable[Any] = (entry.get("max_model_len"), entry.get("context_length"), (meta or {}).get("n_ctx_train"))
    return next((n for n in found if isinstance(n, int) and n > 2), 0)
