"""What an evaluation leaves: every item's record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygraft.evals import metrics
from polygraft.evals.bpb import Scored
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import choice
from polygraft.evals.metrics.likelihood import BITS
from polygraft.evals.quality.identify import identify
from polygraft.evals.quality.prose import answer_language
from polygraft.evals.tasks.rendering import Asked
from polygraft.evals.tasks.schema import Task
from polygraft.files import write_atomic


def prompt_hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def record(task: Task, item: Item, asked: Asked, response: Response, *, reading: bool = False) -> dict[str, Any]:
    """One item's line: enough to see what was asked and answered, and to compute every score again."""
    row: dict[str, Any] = {"id": item.id, "language": item.language}
    row |= {k: v for k, v in (("stratum", item.stratum), ("group", item.group)) if v}
    if answer_language(item) != item.language:
        row["answer_language"] = answer_language(item)
    row |= {"prompt": item.prompt, "shots": asked.shots, "prompt_sha256_16": prompt_hash(asked.text)}
    if asked.truncated:
        row["truncated_prompt"] = True
    if task.written:
        row |= {"gold": item.golds[0] if item.golds else "", "output": response.text, "tokens": response.tokens,
                "gold_tokens": response.gold_tokens, "finished": response.finished,
                "language_detected": identify(response.text).tag}
    else:
        row |= {"gold": item.target, "choices": list(item.choices), "choice_nats": [-x for x in response.nats],
                "tokens": response.tokens}
        if choice.tied(response):
            row["tie"] = True
    used = {} if reading else {name: metrics.get(name) for name in task.metrics}
    if parsed := [m.parse(item, response) for m in used.values() if m.parse is not None]:
        row["parsed"] = parsed[0]
    scores = {name: [float(x) for x in m.score(item, response)] for name, m in used.items()}
    if binary := [scores[name] for name, m in used.items() if m.binary]:
        row["correct"] = bool(binary[0][0])
    return row | {"seconds": response.seconds, "scores": scores}


def document(language: str, number: int, text: str, found: Scored) -> dict[str, Any]:
    """A document's line."""
    return {"id": f"{language}-{number:04d}", "language": language, "prompt_sha256_16": prompt_hash(text), "nats": found.nats,
            "bytes": found.bytes, "tokens": found.tokens, "seconds": found.seconds,
            "scores": {BITS.name: [found.nats, float(found.bytes)]}}


def write_samples(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """`samples/<name>.jsonl`, one record a line, whole or absent."""
    path = Path(folder) / "samples" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in rows).encode("utf-8", "replace"))


def chosen(ids: Sequence[str], n: int, seed: int = 0) -> list[int]:
    """Places of n items picked by the hash of their id: nobody chose them, and everybody gets the same."""
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}/{ids[i]}".encode()).hexdigest())
    return sorted(order[:n])
