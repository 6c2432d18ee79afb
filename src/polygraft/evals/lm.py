"""One lm-eval language model of ours, registered as `polygraft`, around any engine and the response store.

lm-eval's own response cache is not used, because it does not know which model answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from polygraft.evals.asking import Asker, Pair
from polygraft.evals.bpb import Scored
from polygraft.evals.engines.base import Decoding
from polygraft.evals.items import Response
from polygraft.evals.responses import About


def decoding(options: Mapping[str, Any], seed: int = 0) -> Decoding:
    """lm-eval's generation options as ours."""
    stops = options.get("until") or []
    sampled = (options.get("do_sample", True) and float(options.get("temperature") or 0)) or 0.0
    return Decoding(int(options.get("max_gen_toks", 256)), (stops,) if isinstance(stops, str) else tuple(stops),
                    sampled, float(options.get("top_p") or 1.0), seed if sampled else 0)


@lru_cache(maxsize=1)
def lm_class() -> type:
    """`PolygraftLM`, the lm-eval model class; made on first use because importing lm-eval takes seconds."""
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

    @register_model("polygraft")
    class PolygraftLM(LM):
        """lm-eval's view of an `Asker`. `about` says for each lm-eval task's name what names its responses in the store.

        `given[task, document, place]` is what each request was answered, with what lm-eval does not carry (tokens, seconds ...).
        """

        def __init__(self, asker: Asker, about: Mapping[str, About] | None = None):
            super().__init__()
            self.asker, self.about = asker, about or {}
            self.given: dict[tuple[str, int, int], Pair | Response | Scored] = {}

        @property
        def tokenizer_name(self) -> str:
            return self.asker.engine.name

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            prefix = "" if add_generation_prompt else chat_history[-1]["content"]
            return self.asker.engine.chat(chat_history if add_generation_prompt else chat_history[:-1], prefix)

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            found = self.asker.pairs([(self._about(r), *r.args) for r in requests])
            self._keep(requests, found)
            return [(p.nats, p.greedy) for p in found]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            context = self.asker.engine.max_length  # lm-eval's windows: each token is scored once, none is read twice but the first
            found = self.asker.documents([(self._about(r), r.args[0]) for r in requests], context + 1, context)
            self._keep(requests, found)
            return [s.log_likelihood for s in found]

        def generate_until(self, requests: list[Any]) -> list[str]:
            times: Counter[str] = Counter()  # a prompt that is sampled again is another draw
            asked = []
            for r in requests:
                about, how = self._about(r), decoding(r.args[1])
                if how.temperature:
                    name = repr((about, r.args))
                    how = replace(how, seed=about.seed + times[name])
                    times[name] += 1
                asked.append((about, r.args[0], how))
            found = self.asker.generate(asked)
            self._keep(requests, found)
            return [w.text for w in found]

        def _keep(self, requests: list[Any], found: Sequence[Pair | Response | Scored]) -> None:
            for r, answer in zip(requests, found):
                if getattr(r, "task_name", None) is not None and r.doc_id is not None:
                    self.given[r.task_name, r.doc_id, r.idx] = answer

        def _about(self, request: Any) -> About:
            name = getattr(request, "task_name", None) or ""
            return self.about.get(name) or About(f"lm-eval:{name}")

    return PolygraftLM
