"""The wire to an OpenAI-compatible server: addresses, requests, patience, and errors that say what to do.

With the hub, the only place that opens a connection, and only to the address that was named. No redirect is followed, and the key
is read from the environment, sent to that address alone and never shown.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from polygraft.errors import InputError, RecipeError, ResourceError, suggestion

SCHEME = "server:"
NAME_TOKENIZER = "name the model's tokenizer: ?tokenizer=FOLDER or hub id"
OPTIONS = ("key", "identity", "tokenizer", "at_once", "context")
NUMBERS = {"at_once", "context"}
BUSY = {408, 429, 500, 502, 503, 504}
TRIES, LONGEST_WAIT, TIMEOUT = 6, 60.0, 600.0
LARGEST = 256 << 20  # bytes of one answer


@dataclass(frozen=True)
class Address:
    """`server:URL[?option=value&...]#MODEL`.

    key: the environment variable that holds the API key. identity: what names the exact weights, so that answers may be kept for
    later runs. tokenizer: the model's tokenizer, a folder or hub id. at_once: requests under way together. context: tokens, if the
    server does not say.
    """

    url: str
    model: str = ""
    key: str = ""
    identity: str = ""
    tokenizer: str = ""
    at_once: int = 8
    context: int = 0

    @classmethod
    def parse(cls, spec: str) -> Address:
        """Raises RecipeError for what is no address."""
        parts = urlsplit(spec.removeprefix(SCHEME))
        form = f"{SCHEME}http://HOST:PORT/v1#MODEL"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RecipeError("not the address of a server", found=spec[:200], expected=form)
        if parts.username or parts.password:
            raise RecipeError("a password in an address ends up in reports", where=parts.hostname, expected=form,
                              fix="put the key into an environment variable, and name that: ?key=VARIABLE")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in options:
            if name not in OPTIONS:
                raise RecipeError("no such option of a server", found=name, fix=suggestion(name, OPTIONS))
        words: dict[str, Any] = dict(options)
        for name in NUMBERS & options.keys():
            if not re.fullmatch("[1-9][0-9]{0,6}", options[name]):
                raise RecipeError("not a number", where=f"{name} of a server", found=options[name][:40], expected="1 or more")
            words[name] = int(options[name])
        url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        return cls(url, unquote(parts.fragment), **words)

    def refuse(self, *, documents: bool, chat_choices: bool) -> None:
        """Before anything is asked: raise InputError for what cannot be asked without the tokenizer."""
        for wanted, what in ((documents, "bits per byte"), (chat_choices, "choices after a conversation")):
            if wanted and not self.tokenizer:
                raise InputError(f"{what} cannot be asked of a server whose tokenizer is not known", where=self.url,
                                 fix=NAME_TOKENIZER)

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")


class Refused(Exception):
    """An HTTP status that waiting does not mend, and what the server said."""

    def __init__(self, status: int, said: str):
        super().__init__(f"{status}: {said}")
        self.status, self.said = status, said


class Client:
    """One server. `sleep` waits between tries."""

    def __init__(self, address: Address, *, timeout: float = TIMEOUT, sleep: Callable[[float], None] = time.sleep):
        self.address, self.timeout, self.sleep = address, timeout, sleep
        self.secret = os.environ.get(address.key, "") if address.key else ""
        if address.key and not self.secret:
            raise InputError("the environment variable with the server's key is not set", where=address.url, found=address.key,
                             fix=f"export {address.key}=...")
        self.opener = OpenerDirector()  # of urllib's handlers, none that follows redirects or opens files
        for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
            self.opener.add_handler(handler)

    def ask(self, path: str, payload: dict[str, Any] | None = None) -> Any:
        """The JSON that the server answers to a POST of `payload`, or to a GET. Busy servers are asked again, more and more slowly.

        Raises Refused for a status that will not change, ResourceError when the server cannot be reached or stays busy.
        """
        last = ""
        for attempt in range(TRIES):
            try:
                return self._once(path, payload)
            except HTTPError as e:
                last = f"{e.code}: {self._said(e)}"
                if e.code not in BUSY:
                    raise Refused(e.code, self._said(e)) from None
                wait = _seconds(e.headers.get("Retry-After"))
            except (URLError, OSError, HTTPException) as e:
                last, wait = self.shown(str(getattr(e, "reason", None) or e) or type(e).__name__), None
            if attempt + 1 < TRIES:
                self.sleep(min(LONGEST_WAIT, 2.0**attempt if wait is None else wait))
        raise ResourceError("the server does not answer", where=self.address.url, found=f"{last} ({TRIES} tries)",
                            fix="is it running, at this address? lower ?at_once= if it is overloaded; what was answered is kept")

    def _once(self, path: str, payload: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.secret:
            headers["Authorization"] = f"Bearer {self.secret}"
        data = None if payload is None else json.dumps(payload, allow_nan=False).encode()
        with self.opener.open(Request(self.address.url + path, data, headers), timeout=self.timeout) as answer:
            raw = answer.read(LARGEST + 1)
        try:
            found = json.loads(raw) if len(raw) <= LARGEST else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError("the server's answer is not a JSON object", where=self.address.url + path,
                             found=self.shown(raw[:80].decode("utf-8", "replace")), fix="does the address end in /v1?")
        return found

    def _said(self, error: HTTPError) -> str:
        """What the server gives as its reason, on one line."""
        if not hasattr(error, "said"):
            try:
                error.said = error.read(4000).decode("utf-8", "replace")  # type: ignore[attr-defined]
            except (OSError, HTTPException):
                error.said = str(error.reason)  # type: ignore[attr-defined]
        return self.shown(" ".join(error.said.split())[:300])  # type: ignore[attr-defined]

    def shown(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self.secret, "[redacted]") if self.secret else text


def _seconds(text: str | None) -> float | None:
    """The seconds of a Retry-After header; its date form is not read."""
    return float(text) if text is not None and text.strip().isdecimal() else None
