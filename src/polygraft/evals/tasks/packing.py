"""A task as lm-eval takes it: prompts already written out, so that what lm-eval sends is what the records hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polygraft.evals.engines.base import Decoding
from polygraft.evals.tasks.rendering import Asked
from polygraft.evals.tasks.schema import CHOICE, Task


def lm_eval_config(task: Task, name: str, sent: Sequence[Asked], how: Decoding | None) -> dict[str, Any]:
    """One job's items as an lm-eval task. Scores are computed from its logged responses, not by lm-eval."""
    from datasets import Dataset

    docs = Dataset.from_list([{"prompt": a.text, "choices": list(a.continuations)} for a in sent])
    config: dict[str, Any] = {
        "task": name, "custom_dataset": lambda **_: {"test": docs}, "test_split": "test", "output_type": task.output_type,
        "doc_to_text": "prompt", "num_fewshot": 0, "metadata": {"version": task.version}, "target_delimiter": "",
        "metric_list": [{"metric": "answered", "aggregation": "mean", "higher_is_better": True}],
        "process_results": lambda doc, results: {"answered": 1.0},
    }
    if task.output_type == CHOICE:
        return config | {"doc_to_choice": "choices", "doc_to_target": 0}
    assert how is not None
    return config | {"doc_to_target": "", "generation_kwargs": {
        "max_gen_toks": how.max_tokens, "until": list(how.stops), "do_sample": how.temperature > 0, "temperature": how.temperature,
        "top_p": how.top_p, "seed": how.seed}}
