"""Which side of the train/dev split an example is on: a function of its content alone."""

from __future__ import annotations

import hashlib


def held_out(key: bytes, share: float) -> bool:
    """Whether the example of this key (`text.key`) belongs to the `share` that is held out.

    Neither its place nor any other example matters, so data that grow keep every example where it was; what differs only in case,
    white space or normal form has one key and lies on one side. A larger share holds out what a smaller one did, and more.
    """
    return int.from_bytes(hashlib.sha256(b"split\0" + key).digest()[:8], "big") < share * 2**64
