"""What training leaves: an adapter folder as peft writes it, or a model folder with exactly the base's keys and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.errors import StepFailed
from polygraft.files import write_atomic, write_json
from polygraft.tune.grafts import SUFFIX

if TYPE_CHECKING:
    from polygraft.checkpoint import Checkpoint
    from polygraft.model import Live
    from polygraft.sources import Source
    from polygraft.tune.chosen import Chosen

LARGEST = {"F16": 65504.0, "BF16": 3.3895e38, "F32": 3.4028e38, "F64": 3.4028e38}  # what training holds is float32

def write_adapter(model: Any, source: Source, out: Path) -> None:
    """A peft adapter folder in the base's dtype, naming the base as the user did. Same weights, same bytes."""
    from safetensors.torch import save

    assert source.checkpoint is not None
    tensors = adapter_tensors(model, source.checkpoint)
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config["default"].to_dict().items()}
    config |= {"base_model_name_or_path": source.spec, "inference_mode": True}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_json(out / "adapter_config.json", dict(sorted(config.items())))


def adapter_tensors(model: Any, base: Checkpoint) -> dict[str, Any]:
    """The adapter's tensors as its file has them: peft's keys, on the CPU, in the dtype of most of the base."""
    import torch
    from peft import get_peft_model_state_dict

    dtype = {"BF16": torch.bfloat16, "F16": torch.float16}.get(_main_dtype(base), torch.float32)
    whole = {k: v for k, v in model.state_dict().items() if SUFFIX not in k}  # which hold the rounded values of their grafts
    found = get_peft_model_state_dict(model, state_dict=whole)
    return {k: v.detach().to("cpu", dtype).contiguous() for k, v in sorted(found.items())}


def _main_dtype(checkpoint: Checkpoint) -> str:
    sizes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return max(sizes, key=lambda d: sizes[d])


def write_model(live: Live, base: Checkpoint, out: Path, chosen: Chosen) -> None:
    """A model folder with the base's keys, dtypes, config and tokenizer: trained rows rounded once, all else the base's bytes.

    Raises StepFailed, before anything is written, where a trained value is not finite in the base's dtype.
    """
    check_finite(live, base, chosen)
    write_like(base, out, lambda key: after(live, base, chosen, key))


def write_like(base: Checkpoint, out: Path, content: Callable[[str], bytes | bytearray]) -> None:
    """A model folder with the base's keys, dtypes, shapes, config and tokenizer; `content(key)` gives a tensor's bytes."""
    from polygraft.writer import CheckpointWriter

    out.mkdir(parents=True, exist_ok=True)
    with CheckpointWriter(out, {k: (t.dtype, t.shape) for k, t in base.tensors.items()}) as writer:
        for key in base.tensors:
            writer.write(key, content(key))
        writer.close()
    write_json(out / "config.json", base.config)
    for name, path in base.extras.items():
        write_atomic(out / name, path.read_bytes())


def after(live: Live, base: Checkpoint, chosen: Chosen, key: str) -> bytes | bytearray:
    """The bytes of file tensor `key` after training: those of the base, with what was trained put in, in the base's dtype."""
    import numpy as np

    from polygraft.floats import from_f32

    if key not in chosen.selection:
        return base.read(key)
    info, rows = base.tensors[key], chosen.selection.rows[key]
    value = chosen.value(live, key)
    new = from_f32(value.cpu().numpy().reshape(-1), info.dtype)
    if rows is None:
        return new
    raw, item = bytearray(base.read(key)), f"V{info.itemsize}"
    part = (slice(None),) * chosen.selection.axis.get(key, 0) + (rows,)
    np.frombuffer(raw, item).reshape(info.shape)[part] = np.frombuffer(new, item).reshape(tuple(value.shape))
    return raw


def check_finite(live: Live, base: Checkpoint, chosen: Chosen) -> None:
    """Raise StepFailed where a trained value is no number, or too large for the file's number format."""
    for key in chosen.selection.rows:
        most, value = LARGEST[base.tensors[key].dtype], chosen.value(live, key).abs().max()
        if not float(value) <= most:  # NaN is not
            raise StepFailed("a trained value does not fit into the file's numbers", where=key, found=float(value),
                             expected=f"at most {most:g}", fix="lower the learning rate")  # fmt: skip
