"""A merge that is only in memory: a Profile followed into the parameters of a live model, and nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.merge import compat
from polygraft.merge.engine import Merge, settle
from polygraft.merge.profile import Profile

if TYPE_CHECKING:
    import torch

    from polygraft.model import Live

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}  # of safetensors: torch's names


def apply(profile: Profile, live: Live, sources: Sequence[Weights]) -> None:
    """Overwrite the live parameters with what the merge would write, tensor by tensor; at most one tensor is held besides them.

    sources: in the profile's order. live: any model of their shapes, loaded from the source whose tokenizer the merge is to have;
    in the sources' dtype its bytes are the written merge's, in another one these are converted. Raises InputError for sources that
    cannot be merged, and for numbers that are not finite in what is blended; tensors before those have been overwritten then.
    """
    from polygraft.model import view

    if len(sources) != len(profile.sources):
        raise InputError("not the sources of this profile", found=f"{len(sources)} models", expected=", ".join(profile.sources))
    compat.check(list(zip(profile.sources, sources)))
    merge = Merge(settle(profile, sources), sources)
    for key in profile.weights:
        target = view(live.model, live.anatomy, key)
        if target is None or sources[0].info(key).dtype not in FLOATS:
            continue  # buffers: the model computes them itself
        target.copy_(tensor(merge, key))


def tensor(merge: Merge, key: str) -> torch.Tensor:
    """The bytes that the written merge would have for a tensor of `FLOATS`, in its own shape and dtype."""
    import torch

    info = merge.models[0].info(key)
    values = torch.frombuffer(bytearray().join(merge.stream(key)), dtype=getattr(torch, FLOATS[info.dtype]))
    return values.reshape(info.shape)
