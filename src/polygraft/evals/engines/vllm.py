"""A model under vLLM (`pip install 'polygraft[vllm]'`), for GPUs: token ids in, log-likelihoods and texts out.

Written against vLLM's documented interface: `LLM.generate` on `TokensPrompt`s, `SamplingParams(prompt_logprobs=1)` for likelihoods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polygraft.errors import InputError
from polygraft.evals.engines import batches
from polygraft.evals.engines.base import Decoding, Written
from polygraft.evals.engines.coding import Coded, Done

AT_ONCE = 256  # requests handed over together: what an interruption costs


class UnderVllm(Coded):
    """The engine on a vLLM `LLM` and the model's tokenizer."""

    def __init__(self, llm: Any, tokenizer: Any, max_length: int):
        # a scored text may exceed the context by one token here, and vLLM always writes one more
        super().__init__(tokenizer, max_length - 2)
        self.llm = llm

    def likelihoods(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        """(nats, all greedy?) of the last `scored[i]` tokens of each id sequence. Raises InputError when one is not a number."""
        how = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 1, "detokenize": False}

        def score(i: int, answer: Any) -> tuple[float, bool]:
            at = range(len(rows[i]) - scored[i], len(rows[i]))
            steps = [{token: x.logprob for token, x in answer.prompt_logprobs[t].items()} for t in at]
            own = [step[rows[i][t]] for step, t in zip(steps, at)]
            if not all(map(math.isfinite, own)):
                raise InputError("the model's likelihoods are not numbers", where=self.name, found=f"request {i}",
                                 fix="look for NaN or Inf in its tensors, or compute in float32 (`dtype: float32`)")
            return math.fsum(own), all(x >= max(step.values()) for x, step in zip(own, steps))
        self._asked(rows, how, score, done)

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Callable[[list[tuple[int, Written]]], None]) -> None:
        """Written answers; a prompt that does not fit beside the new tokens loses its beginning."""
        ids, limit = self.encode_prompts(prompts, decoding)
        how: dict[str, Any] = {"temperature": decoding.temperature, "max_tokens": limit, "stop": [s for s in decoding.stops if s]}
        if decoding.temperature:
            how |= {"top_p": decoding.top_p, "seed": decoding.seed}

        def read(i: int, answer: Any) -> Written:
            [found] = answer.outputs
            cut = batches.cut(found.text, decoding.stops)
            return Written(cut, len(found.token_ids), found.finish_reason != "length" or cut != found.text)
        self._asked(ids, how, read, done)

    def _asked(self, rows: Sequence[Sequence[int]], how: dict[str, Any], read: Callable[[int, Any], Any], done: Callable) -> None:
        vllm = module()
        for start in range(0, len(rows), AT_ONCE):
            some = range(start, min(start + AT_ONCE, len(rows)))
            found = self.llm.generate([vllm.TokensPrompt(prompt_token_ids=list(rows[i])) for i in some],
                                      vllm.SamplingParams(**how), use_tqdm=False)
            done([(i, read(i, answer)) for i, answer in zip(some, found, strict=True)])


def module() -> Any:
    """The `vllm` module. Raises InputError where it is not installed."""
    try:
        import vllm
    except ImportError as e:
        raise InputError("vLLM is not installed", found=str(e), fix="pip install 'polygraft[vllm]' (needs a GPU), "
                         "or leave out `backend: vllm`") from None
    return vllm


def start(folder: Path, tokenizer: Any, *, dtype: str = "auto", seed: int = 0) -> UnderVllm:
    """The engine on a whole model's folder. Raises InputError when vLLM is not installed or cannot run the model."""
    vllm = module()
    try:
        llm = vllm.LLM(model=str(folder), tokenizer=str(folder), dtype=dtype, seed=seed)
    except (ValueError, RuntimeError, OSError, KeyError, AssertionError) as e:
        said = (str(e).strip() or type(e).__name__).splitlines()[0][:300]
        raise InputError("vLLM cannot run this model", where=folder, found=said,
                         fix="evaluate it without `backend: vllm`") from None
    return UnderVllm(llm, tokenizer, int(llm.llm_engine.model_config.max_model_len))
