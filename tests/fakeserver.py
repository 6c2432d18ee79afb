"""An OpenAI-compatible server on this machine's own loopback, around a tiny model in memory."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from polygraft.evals.engines.base import Decoding


class FakeServer:
    """What vLLM's server does with /models, /completions and /chat/completions, by a `Scorer`.

    before(path, payload) may give (status, headers, body) instead of an answer; edit(answer) may change an answer.
    """

    def __init__(self, scorer, *, models=("tiny",), key="", **entry):
        self.scorer, self.models, self.key, self.entry = scorer, models, key, entry
        self.seen, self.headers = [], []
        self.before = lambda path, payload: None
        self.edit = lambda answer: answer
        self.turn = threading.Lock()  # one answer at a time: tiny models need no more

    def answer(self, path, payload):
        if path == "/v1/models":
            return {"data": [{"id": m, "created": len(self.seen), **self.entry} for m in self.models]}
        if payload["model"] not in self.models:
            raise LookupError(f"the model `{payload['model']}` does not exist")
        if path == "/v1/chat/completions":
            turns = payload["messages"]
            prefix = turns.pop()["content"] if payload.get("continue_final_message") else ""
            text, ids, reason = self.write(self.scorer.encode_prompt(self.scorer.chat(turns, prefix)), payload)
            return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": ids}}
        assert path == "/v1/completions", path
        prompt = payload["prompt"]
        ids = self.scorer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        if len(ids) + payload["max_tokens"] > self.scorer.max_length:
            raise ValueError(f"this model's maximum context length is {self.scorer.max_length} tokens")
        text, n, reason = self.write(ids, payload)
        choice = {"text": text, "finish_reason": reason}
        if payload.get("echo"):
            choice["logprobs"] = self.logprobs(ids)
        return {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": n}}

    def write(self, ids, payload):
        decoding = Decoding(payload["max_tokens"], tuple(payload.get("stop", ())), payload["temperature"], payload.get("top_p", 1.0),
                            payload.get("seed", 0))
        found = {}
        inner, self.scorer.encode_prompt = self.scorer.encode_prompt, lambda prompt: ids
        try:
            self.scorer.generate([""], decoding, found.update)
        finally:
            self.scorer.encode_prompt = inner
        return found[0].text, found[0].tokens, "stop" if found[0].finished else "length"

    def logprobs(self, ids):
        import torch

        with torch.inference_mode():
            scores = self.scorer.model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        words = [self.scorer.tokenizer.decode([i]) + f"<{i}>" for i in ids]
        own = [float(scores[t, i]) for t, i in enumerate(ids[1:])]
        best = [(float(s.max()), int(s.argmax())) for s in scores]
        top = [{words[t + 1]: own[t], self.scorer.tokenizer.decode([i]) + f"<{i}>": x} for t, (x, i) in enumerate(best)]
        # the one token that was written comes last
        return {"tokens": [*words, "new"], "token_logprobs": [None, *own, -1.0], "top_logprobs": [None, *top, {"new": -1.0}],
                "text_offset": list(range(len(ids) + 1))}


@contextmanager
def serve(fake):
    """The address of a running server: `http://127.0.0.1:PORT/v1`."""
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, status, body, headers=()):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (*dict(headers).items(), ("Content-Length", str(len(data)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            payload = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            with fake.turn:
                fake.seen.append((self.path, payload))
                fake.headers.append(dict(self.headers))
                if (other := fake.before(self.path, payload)) is not None:
                    return self.reply(other[0], other[2], other[1])
                if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
                    return self.reply(401, {"error": {"message": f"invalid key {self.headers.get('Authorization')}"}})
                try:
                    return self.reply(200, fake.edit(fake.answer(self.path, payload)))
                except (LookupError, ValueError) as e:
                    return self.reply(404 if isinstance(e, LookupError) else 400, {"error": {"message": str(e)}})
                except AssertionError:
                    return self.reply(404, {"error": {"message": "not here"}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
