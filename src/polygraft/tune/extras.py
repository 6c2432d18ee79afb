"""What training can use where it is installed: other optimisers, kernels, trackers. Each missing one is refused by name.

AdamW: Loshchilov and Hutter 2019, arXiv 1711.05101. 8-bit states: Dettmers et al. 2022, arXiv 2110.02861 (bitsandbytes). Adafactor:
Shazeer and Stern 2018, arXiv 1804.04235; its second moment is a product of row and column means, so that what it does to rows of a
tensor is not what it would do to them in the whole tensor. Kernels: liger (arXiv 2410.10989).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from polygraft.errors import RecipeError

if TYPE_CHECKING:
    from polygraft.tune.settings import Settings

OPTIMIZERS = {"adamw": "adamw_torch", "adamw8bit": "adamw_bnb_8bit", "adafactor": "adafactor", "sgd": "sgd"}  # transformers' names
BYTES = {"adamw": 8, "adamw8bit": 2, "adafactor": 1, "sgd": 0}  # of state for each trained parameter, at most
PACKAGES = {"adamw8bit": "bitsandbytes", "liger": "liger_kernel", "wandb": "wandb", "trackio": "trackio",
            "tensorboard": "tensorboard"}  # fmt: skip


def check(s: Settings) -> None:
    """Raise RecipeError for an extra that is asked for and not here."""
    wanted = [("optimizer", s.optimizer), ("report-to", s.report_to), *([("liger", "liger")] if s.liger else [])]
    for field, name in wanted:
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise RecipeError(f"`{name}` needs a package that is not installed", where=field, found=f"no {package}",
                              fix=f"pip install {package.replace('_', '-')}, or leave `{field}` out")  # fmt: skip


def check_gpu(s: Settings) -> None:
    """Raise RecipeError for kernels that have no GPU to run on."""
    if s.liger and not _gpu():
        raise RecipeError("liger's kernels run on GPUs", where="liger", found="no GPU", fix="leave `liger` out")


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
