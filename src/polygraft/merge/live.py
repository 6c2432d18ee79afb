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
    from polygraft.model import Live


def apply(profile: Profile, live: Live, sources: Sequence[Weights]) -> None:
    """Overwrite the live parameters with what the merge would write, tensor by tensor; at most one tensor is held besides them.

    sources: in the profile's order. live: any model of their shapes, loaded from the source whose tokenizer the merge is to have;
    in the sources' dtype its bytes are the written merge's, in another one these are converted. Raises InputError for sources that
    cannot be merged, and for numbers that are not finite in what is blended; tensors before those have been overwritten then.
    """
    import torch

    from polygraft.model import view

    if len(sources) != len(profile.sources):
        raise InputError("not the sources of this profile", found=f"{len(sources)} models", expected=", ".join(profile.sources))
    compat.check(list(zip(profile.sources, sources)))
    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
    merge = Merge(settle(profile, sources), sources)
    for key in profile.weights:
        info, target = sources[0].info(key), view(live.model, live.anatomy, key)
        if target is None or info.dtype not in dtypes:
            continue  # buffers: the model computes them itself
        values = torch.frombuffer(bytearray().join(merge.stream(key)), dtype=dtypes[info.dtype])
        target.copy_(values.reshape(info.shape))
