"""No secret of the environment reaches a file."""

from __future__ import annotations

import os
import re
from typing import Any

_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL", re.IGNORECASE)


def redact(value: Any) -> Any:
    """A JSON value without the secrets of the environment (`HF_TOKEN` and the like): nothing that is written may hold one."""
    secrets = [v for k, v in os.environ.items() if _SECRET.search(k) and len(v) >= 8]
    return _redact(value, secrets) if secrets else value


def _redact(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[redacted]")
        return value
    if isinstance(value, dict):
        return {_redact(k, secrets): _redact(v, secrets) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(v, secrets) for v in value]
    return value
