"""The versions that bytes and scores may depend on, for manifests; nothing is imported to learn them."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from polygraft import __version__

MERGING = ("numpy",)
ALL = (*MERGING, "torch", "transformers", "safetensors", "tokenizers", "peft", "trl", "lm-eval", "datasets", "accelerate",
       "sacrebleu", "py3langid", "vllm")  # fmt: skip


@cache
def versions(packages: tuple[str, ...] = ALL) -> dict[str, str]:
    """Polygraft's, Python's, and those of the packages that are installed."""
    found = {"polygraft": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
