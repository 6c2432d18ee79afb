"""The part of vLLM's interface that the engine uses, on a tiny model in memory: `LLM`, `SamplingParams`, `TokensPrompt`.

Types, names and defaults follow vLLM's documentation; an argument that vLLM does not know is refused here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from polygraft.evals.engines.base import Decoding


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    max_tokens: int = 16
    prompt_logprobs: int | None = None
    detokenize: bool = True


class TokensPrompt(dict):
    pass


def module(scorer, refuses: Exception | None = None) -> ModuleType:
    """A module `vllm` whose every LLM is `scorer`; `refuses` is raised when one is made."""
    class LLM:
        made: list[dict[str, Any]] = []

        def __init__(self, *, model, tokenizer, dtype, seed):
            if refuses:
                raise refuses
            self.made.append({"model": model, "tokenizer": tokenizer, "dtype": dtype, "seed": seed})
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=scorer.max_length))

        def generate(self, prompts, sampling_params, use_tqdm=True):
            assert not use_tqdm
            return [self.one(p["prompt_token_ids"], sampling_params) for p in prompts]

        def one(self, ids, how):
            assert len(ids) + how.max_tokens <= scorer.max_length
            inner, scorer.encode_prompt = scorer.encode_prompt, lambda prompt: ids
            found = {}
            try:
                scorer.generate([""], Decoding(how.max_tokens, tuple(how.stop), how.temperature, how.top_p, how.seed or 0), found.update)
            finally:
                scorer.encode_prompt = inner
            answer = SimpleNamespace(text=found[0].text, token_ids=[0] * found[0].tokens, finish_reason="stop" if found[0].finished else "length")
            return SimpleNamespace(outputs=[answer], prompt_logprobs=self.logprobs(ids, how.prompt_logprobs))

        def logprobs(self, ids, n):
            import torch

            if n is None:
                return None
            with torch.inference_mode():
                scores = scorer.model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
            top = [{int(i): float(s[i]) for i in (*s.topk(n).indices, want)} for s, want in zip(scores, ids[1:])]
            return [None, *({i: SimpleNamespace(logprob=x, rank=None, decoded_token="") for i, x in t.items()} for t in top)]

    made = ModuleType("vllm")
    made.LLM, made.SamplingParams, made.TokensPrompt = LLM, SamplingParams, TokensPrompt  # type: ignore[attr-defined]
    return made
