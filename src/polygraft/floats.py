"""Number formats of checkpoints to and from float32, in numpy, rounded to nearest even. Exact where the target is wider."""

from __future__ import annotations

import numpy as np

from polygraft.errors import InputError

FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}  # the dtype that numpy reads the bytes as
Raw = bytes | bytearray | memoryview


def refuse_not_float(dtype: str, where: object = None) -> None:
    """Raises InputError for integer, boolean and 8-bit or smaller float formats: they can be copied, never blended."""
    if dtype not in FLOATS:
        raise InputError(
            "numbers of this format cannot be computed with",
            where=where,
            found=dtype,
            expected=" or ".join(FLOATS),
            fix="use an unquantised copy of the model (its original bf16 or fp16 release)",
        )


def to_f32(raw: Raw, dtype: str, out: np.ndarray | None = None) -> np.ndarray:
    """Little-endian bytes of `dtype` to a flat float32 array (into `out` if given). F64 is rounded, the others are exact."""
    refuse_not_float(dtype)
    values = np.frombuffer(raw, dtype=FLOATS[dtype])
    if out is None:
        out = np.empty(values.size, np.float32)
    if dtype == "BF16":  # a bfloat16 is the upper half of a float32
        bits = out.view(np.uint32)
        bits[:] = values
        np.left_shift(bits, 16, out=bits)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = values
    return out


def from_f32(values: np.ndarray, dtype: str) -> bytes:
    """A float32 array to little-endian bytes of `dtype`, rounded once to nearest even; overflow gives infinity, NaN stays NaN."""
    refuse_not_float(dtype)
    values = np.ascontiguousarray(values, np.float32).reshape(-1)
    if dtype == "BF16":
        return _bf16_bits(values).tobytes()
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(FLOATS[dtype]).tobytes()


def _bf16_bits(values: np.ndarray) -> np.ndarray:
    """Add half a unit of the last kept place (one less when that place is even), then drop the lower half; carries round up."""
    bits = values.view(np.uint32)
    rounded = np.right_shift(bits, 16)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, 0x7FFF, out=rounded)
    np.add(rounded, bits, out=rounded)
    upper = rounded.view(np.uint16)[1::2]
    if (nan := np.isnan(values)).any():  # the carry could turn a NaN into an infinity or a zero
        upper[nan] = np.right_shift(bits[nan], 16) | 0x40
    return upper
