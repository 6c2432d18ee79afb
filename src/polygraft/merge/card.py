"""The README.md of a merged model: YAML front matter, what came from where, how to check it. Names are never markup."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from polygraft import __version__
from polygraft.anatomy import Anatomy
from polygraft.merge.profile import Profile

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KINDS = ("attn", "ffn", "norm")


def yaml_text(text: str) -> str:
    """Any string as a double-quoted YAML scalar on one line, in printable characters only."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'


def plain(text: str) -> str:
    """Any string as one line of Markdown that shows it literally: no markup, HTML, control or direction characters."""
    visible = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return re.sub(r"([\\`*_{}\[\]()#|~$>])", r"\\\1", visible.replace("&", "&amp;").replace("<", "&lt;"))


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks inside; control characters are replaced."""
    visible = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", visible)), default=0))
    return f"{fence}{language}\n{visible}\n{fence}"


def picture(profile: Profile, anatomy: Anatomy) -> str:
    """Layers across, kinds down: the letter of the source that is copied, `+` for a blend, `/` for a mixture of these."""
    head = "".join(str(i // 10) if i % 10 == 0 else " " for i in range(anatomy.layers))
    lines = [f"{'layer':>12} {head}", f"{'':>12} {''.join(str(i % 10) for i in range(anatomy.layers))}"]
    for kind in KINDS:
        cells = [
            _cell(profile, [k for k, p in anatomy.parts.items() if p.layer == i and p.kind == kind]) for i in range(anatomy.layers)
        ]
        if any(c != " " for c in cells):
            lines.append(f"{kind:>12} {''.join(cells)}")
    for label in anatomy.outside:
        keys = [k for k, p in anatomy.parts.items() if p.layer is None and p.label == label]
        lines.append(f"{label:>12} {_cell(profile, keys)}")
    legend = [
        f"{LETTERS[i % 26]} = {name}"
        for i, name in enumerate(profile.sources)
        if any(w[i] for w in profile.weights.values()) or i == 0
    ]
    return "\n".join([*lines, "", ", ".join(legend) + ", + = blended"])


def _cell(profile: Profile, keys: Sequence[str]) -> str:
    found = {profile.copied_from(k) for k in keys if k in profile.weights}
    if len(found) != 1:
        return "/" if found else " "
    (one,) = found
    return "+" if one is None else LETTERS[one % 26]


@dataclass(frozen=True)
class Origin:
    """How the card names a source: its name in the profile, its hub id or folder name, and the hub ids that it stands on."""

    name: str
    spec: str
    hub: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """What may be published: hub ids as they are, of a local path only the last name."""
        return self.spec if self.hub or ":" in self.spec else PurePath(self.spec).name


def card(
    profile: Profile,
    anatomy: Anatomy,
    origins: Sequence[Origin],
    donor: str,
    recipe: dict[str, Any],
    counts: Sequence[str],
    *,
    library: str = "transformers",
) -> str:
    """The text of README.md. `counts` are sentences about what was copied and blended."""
    hub = [f"  - {yaml_text(i)}" for i in dict.fromkeys(i for o in origins for i in o.hub)]
    based = ["base_model:", *hub, *(["base_model_relation: merge"] if library == "transformers" else [])] if hub else []
    front = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags:",
        "  - merge",
        "  - polygraft",
        *based,
        "---",
    ]
    sources = [f"- {LETTERS[i % 26]}: {plain(o.name)} ({plain(o.shown)})" for i, o in enumerate(origins)]
    local = {o.spec: o.shown for o in origins}
    body = [
        f"# {plain(profile.name)} of {plain(', '.join(profile.sources))}",
        f"Made by polygraft {__version__} with `merge {profile.name.replace('_', '-')}`. {' '.join(counts)}",
        "## Sources",
        "\n".join(sources),
        f"{'Config and tokenizer' if library == 'transformers' else 'The settings'} come from {plain(donor)}.",
        "## What came from where",
        fenced(picture(profile, anatomy)),
        fenced("\n".join(profile.text(anatomy))),
        "## Recipe",
        fenced(json.dumps(_published(recipe, local), indent=1, ensure_ascii=False), "json"),
        "## Check it",
        "`polygraft verify DIR` compares every file with `manifest.json`, which also holds a digest per tensor and per source.",
    ]
    return "\n".join(front) + "\n\n" + "\n\n".join(body) + "\n"


def _published(value: Any, local: dict[str, str]) -> Any:
    """The recipe with local paths shortened to their last name."""
    if isinstance(value, dict):
        return {k: _published(v, local) for k, v in value.items()}
    if isinstance(value, list):
        return [_published(v, local) for v in value]
    return local.get(value, value) if isinstance(value, str) else value
