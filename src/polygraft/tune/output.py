"""What training leaves: an adapter folder as peft writes it, or a model folder with exactly the base's keys and dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.files import write_atomic, write_json

if TYPE_CHECKING:
    from polygraft.checkpoint import Checkpoint
    from polygraft.model import Live
    from polygraft.sources import Source



def write_adapter(model: Any, source: Source, out: Path) -> None:
    """A peft adapter folder in the base's dtype, naming the base as the user did. Same weights, same bytes."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    dtypes = {"BF16": torch.bfloat16, "F16": torch.float16}
    assert source.checkpoint is not None
    dtype = dtypes.get(_main_dtype(source.checkpoint), torch.float32)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in sorted(get_peft_model_state_dict(model).items())}
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config["default"].to_dict().items()}
    config |= {"base_model_name_or_path": source.spec, "inference_mode": True}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_json(out / "adapter_config.json", dict(sorted(config.items())))


def _main_dtype(checkpoint: Checkpoint) -> str:
    sizes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return max(sizes, key=lambda d: sizes[d])


def write_model(live: Live, base: Checkpoint, out: Path) -> None:
    """A model folder with the base's keys, dtypes, config and tokenizer, and the live weights rounded once."""
    from polygraft.floats import from_f32
    from polygraft.model import view
    from polygraft.writer import CheckpointWriter

    out.mkdir(parents=True, exist_ok=True)
    with CheckpointWriter(out, {k: (t.dtype, t.shape) for k, t in base.tensors.items()}) as writer:
        for key, info in base.tensors.items():
            value = view(live.model, live.anatomy, key)
            if value is None:  # a buffer that the live model does not keep
                writer.write(key, base.read(key))
            else:
                writer.write(key, from_f32(value.detach().float().cpu().numpy().reshape(-1), info.dtype))
        writer.close()
    write_json(out / "config.json", base.config)
    for name, path in base.extras.items():
        write_atomic(out / name, path.read_bytes())
