"""From a model's source to an engine that can be asked: in memory, under vLLM, or behind a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polygraft.errors import InputError
from polygraft.evals.engines.base import Engine
from polygraft.evals.identity import model_digest
from polygraft.files import read_json
from polygraft.sources import SERVER, Source

BACKENDS = ("hf", "vllm")


@dataclass(frozen=True)
class Opened:
    """An engine; what names its answers in the response store (None: nothing does, so none may be kept for later); what the numbers
    are computed with, as a part of their names, and in words."""

    engine: Engine
    digest: str | None
    computed: dict[str, Any]
    how: str


def open_engine(source: Source, *, backend: str = "hf", dtype: str = "auto", device: str = "auto", batch_tokens: int = 512,
                chat: bool = False, seed: int = 0, offline: bool = False) -> Opened:
    """Load the model. Raises UserError when it cannot be asked; with `chat`, also when it has no chat template."""
    if source.kind == SERVER:
        from polygraft.evals.engines import served

        engine, digest = served.connect(source.spec, offline=offline)
        return Opened(engine, digest, {"backend": "served"}, f"given by a server ({engine.name})")
    opened = _under_vllm(source, dtype, seed) if backend == "vllm" else _in_memory(source, dtype, device, batch_tokens)
    if chat and not getattr(getattr(opened.engine, "tokenizer", None), "chat_template", None):
        raise no_template(source)
    return opened


def no_template(source: Source) -> InputError:
    return InputError("the model has no chat template", where=source.spec, fix="set chat: false, or name a chat model")


def lacks_template(source: Source) -> bool:
    """Whether the files beside the weights show that the model has no chat template; False where they may not all be here."""
    folders = [s.path for s in (source, source.base) if s is not None]
    remote = "hub" in (source.kind, source.base.kind if source.base else "")
    if remote or not any((f / "tokenizer.json").is_file() for f in folders):
        return False
    files = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    if any((f / name).exists() for f in folders for name in files):
        return False
    configs = [read_json(p) for f in folders if (p := f / "tokenizer_config.json").is_file()]
    return not any(isinstance(c, dict) and c.get("chat_template") for c in configs)


def _in_memory(source: Source, dtype: str, device: str, batch_tokens: int) -> Opened:
    from polygraft import model as live_models
    from polygraft.evals.engines.hf import Scorer

    device = live_models.device_for(device)
    dtype, why = live_models.dtype_for(device, dtype)
    live = live_models.load(source, dtype=dtype, device=device, base=source.base.spec if source.base is not None else None)
    if live.tokenizer is None:
        raise _no_tokenizer(source)
    computed = {"backend": "hf", "dtype": str(live.model.dtype).removeprefix("torch.")}
    how = f"computed in {dtype if dtype != 'auto' else 'the stored type'} on {device} ({why})"
    return Opened(Scorer(live.model, live.tokenizer, batch_tokens=batch_tokens), model_digest(source), computed, how)


def _under_vllm(source: Source, dtype: str, seed: int) -> Opened:
    from polygraft import model as live_models
    from polygraft.evals.engines import vllm

    if source.checkpoint is None:
        raise InputError("vLLM runs whole models, not adapters", where=source.spec, fix="merge the adapter into its base first")
    tokenizer = live_models.load_tokenizer(source.path)
    if tokenizer is None:
        raise _no_tokenizer(source)
    computed = {"backend": "vllm", "dtype": dtype}
    return Opened(vllm.start(source.path, tokenizer, dtype=dtype, seed=seed), model_digest(source), computed,
                  f"computed by vLLM in {dtype if dtype != 'auto' else 'the stored type'}")


def _no_tokenizer(source: Source) -> InputError:
    return InputError("the model has no tokenizer", where=source.spec, fix="put tokenizer.json and tokenizer_config.json beside it")
