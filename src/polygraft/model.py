"""Live models: load a source through transformers with every tensor accounted for, and reach its parameters by their file keys."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.addresses import Address
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError, suggestion

if TYPE_CHECKING:
    import torch

    from polygraft.checkpoint import Weights
    from polygraft.sources import Source

DTYPES = ("auto", "float32", "bfloat16", "float16")
SPREAD = "auto-map"  # a device's name: the layers spread over all accelerators, and the CPU where they are full


@dataclass(frozen=True)
class Live:
    """A model in memory: the transformers model in eval mode, its tokenizer (None if the folder has none) and its anatomy."""

    model: Any
    tokenizer: Any
    anatomy: Anatomy
    device: str

    @property
    def chat(self) -> bool:
        """Whether the tokenizer brings a chat template."""
        return bool(self.tokenizer is not None and getattr(self.tokenizer, "chat_template", None))


def device_for(wanted: str = "auto") -> str:
    """`auto` is the first CUDA device if there is one, else the CPU; `auto-map` is all of them (SPREAD).

    Raises InputError for a device that is not there.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if (wanted == SPREAD or wanted.startswith("cuda")) and not torch.cuda.is_available():
        raise InputError("no CUDA device here", found=wanted, fix="use cpu or auto")
    return wanted


def dtype_for(device: str, wanted: str) -> tuple[str, str]:
    """(dtype, reason). A CPU without bfloat16 instructions computes it more slowly than float32, and less exactly."""
    if wanted != "auto":
        return wanted, "as asked"
    if device != "cpu":
        return "auto", "the checkpoint's own, on an accelerator"
    import torch

    has = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if any(f is not None and f() for f in has):
        return "auto", "the checkpoint's own: this CPU computes bfloat16"
    return "float32", "this CPU has no bfloat16 instructions"


def load(
    source: str | Path | Source,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    base: Source | str | Path | None = None,
    offline: bool = False,
    extra: Iterable[Mapping[str, Any]] = (),
) -> Live:
    """Load a folder, hub id, GGUF file, `demo:` model, or an adapter on `base` (or on the base that it names itself).

    `dtype` "auto" keeps the checkpoint's; `extra` are a recipe's `anatomy` rows.
    Raises InputError when transformers would leave a parameter random or a tensor unused.
    """
    from polygraft.sources import Source, resolve, with_base

    if dtype not in DTYPES:
        raise InputError("unknown dtype", found=dtype, fix=suggestion(dtype, DTYPES))
    found = source if isinstance(source, Source) else resolve(source, base=base, offline=offline)
    if found.adapter is None:
        _ = found.weights  # refuses a model that runs elsewhere
        return load_folder(found.path, dtype=dtype, device=device, extra=extra)
    if found.base is None:
        under = base or found.adapter.base
        if not under:
            raise InputError("the adapter does not say what it lies on", where=found.spec, fix="name the base: --base MODEL")
        found = with_base(found, under if isinstance(under, Source) else resolve(under, offline=offline))
    return _load_adapter(found, dtype, device, extra)


def _load_adapter(found: Source, dtype: str, device: str, extra: Iterable[Mapping[str, Any]]) -> Live:
    """The base through transformers, then the merged values of what the adapter changes: the bytes that a merge would write."""
    from polygraft.adapter import MergedView

    merged = found.weights
    assert found.base is not None and isinstance(merged, MergedView)
    live = load_folder(found.base.path, dtype=dtype, device=device, extra=extra)
    copy_weights(live, merged, sorted(merged.changed()))
    with quiet():
        own = load_tokenizer(found.path)
    return live if own is None else replace(live, tokenizer=own)


def load_folder(folder: Path, *, dtype: str = "auto", device: str = "cpu", extra: Iterable[Mapping[str, Any]] = ()) -> Live:
    """Load one model folder. Raises InputError if it cannot be built, or a tensor is missing, unexpected or misshapen."""
    import transformers

    anatomy, place = anatomy_of(folder, extra), device_for(device)
    with quiet():
        try:
            load_model: Any = transformers.AutoModelForCausalLM.from_pretrained
            options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "output_loading_info": True}
            options |= {"device_map": "auto"} if place == SPREAD else {}
            model, info = load_model(folder, **options)
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError("transformers cannot load this model", where=folder, found=first) from None
        tokenizer = load_tokenizer(folder)
    check_loading(info, folder)
    return Live((model if place == SPREAD else model.to(place)).eval(), tokenizer, anatomy, place)


def check_loading(info: dict[str, Any], where: Any) -> None:
    """Refuse a load that left parameters at random, tensors unused or shapes unequal (transformers only warns)."""
    words = {
        "missing_keys": "parameters that no tensor of the folder fills",
        "unexpected_keys": "tensors that the model has no place for",
        "mismatched_keys": "tensors of another shape than config.json says",
    }
    for name, what in words.items():
        if found := sorted(map(str, info.get(name) or ())):
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise InputError(what, where=where, found=", ".join(found[:3]) + more)


def anatomy_of(folder: Path, extra: Iterable[Mapping[str, Any]] = ()) -> Anatomy:
    """The anatomy of a model folder, from its headers."""
    from polygraft.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(folder)
    return Anatomy.of(checkpoint.config, checkpoint.tensors, extra=extra, where=folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model's folder, or None where there is none. Raises InputError when it cannot be loaded."""
    import transformers

    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise InputError("the tokenizer cannot be loaded", where=folder, found=str(error).splitlines()[0]) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' loading bars and notices off the terminal: what matters in them is checked and raised as an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def view(model: Any, anatomy: Anatomy, key: str) -> torch.Tensor | None:
    """The part of the live model's parameters that file tensor `key` fills, as a view to read and write; None for buffers."""
    name, part = anatomy.live_name(key), anatomy.parts[key]
    if name is None:
        return None
    if part.label == "head" and anatomy.tied:
        return model.get_input_embeddings().weight.data
    return inside(anatomy, key, model.get_parameter(name).data)


def inside(anatomy: Anatomy, key: str, value: torch.Tensor) -> torch.Tensor:
    """The part of a live parameter's `value` (or of its gradient) that file tensor `key` fills: one expert's, else all."""
    part = anatomy.parts[key]
    if part.expert is None:
        return value
    value, half = value[part.expert], anatomy.sizes.moe_ffn
    return {"experts.gate": value[:half], "experts.up": value[half:]}.get(part.role, value)


def rows(model: Any, anatomy: Anatomy, address: Address) -> torch.Tensor:
    """The live rows of an address, as a view. Raises InputError for a tensor that is not in the model."""
    value = view(model, anatomy, address.key)
    if value is None:
        raise InputError("the tensor is not part of the live model", found=address.key)
    return value.narrow(address.axis, address.start, address.stop - address.start)


def copy_weights(live: Live, weights: Weights, keys: list[str]) -> None:
    """Overwrite the live parameters of `keys` with these values (converted to the live dtype)."""
    import torch

    for key in keys:
        target = view(live.model, live.anatomy, key)
        if target is not None:
            value = torch.from_numpy(weights.f32(key)).reshape(weights.info(key).shape)
            target.copy_(value.to(target.dtype))
