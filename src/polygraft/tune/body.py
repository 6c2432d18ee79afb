"""A body that moves a little beside rows that are trained themselves: LoRA on attention and FFN, merged into it at the end.

Ruadapt's later way of continued pretraining: rank 32, alpha 32, with embedding and head trained whole. What is written is a model,
whose change of the body has the rank of the adapter; propagation can carry it on (`vocab propagate --body`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polygraft.selection import Selection, Shapes
from polygraft.tune.adapters import slots
from polygraft.tune.hooks import Hook

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.model import Live
    from polygraft.tune.chosen import Chosen


class Body(Hook):
    """Pairs of a rank, scaled by 1, on every attention and dense FFN matrix. `selection` is what it changes, whole tensors; of
    them only the pairs are trained."""

    def __init__(self, rank: int, seed: int, anatomy: Anatomy, shapes: Shapes):
        self.rank, self.seed, self.turned = rank, seed, anatomy.traits.transposed
        self.slots = slots(anatomy, shapes, None)

    @property
    def key(self) -> Any:
        return ["Body", self.rank, self.seed]

    @property
    def selection(self) -> Selection:
        return Selection({slot.key: None for slot in self.slots})

    @property
    def lean(self) -> Mapping[str, int]:
        return {slot.key: slot.parameters(self.rank) for slot in self.slots}

    def start(self, live: Live, chosen: Chosen | None) -> None:
        """Lay the pairs under the matrices, which themselves are held still from now on."""
        from peft import LoraConfig, inject_adapter_in_model
        from transformers import set_seed

        self.model = live.model
        for slot in self.slots:
            self.model.get_parameter(f"{slot.module}.weight").requires_grad_(False)
        others = [p for p in self.model.parameters() if p.requires_grad]
        set_seed(self.seed)
        config = LoraConfig(r=self.rank, lora_alpha=self.rank, lora_dropout=0.0, fan_in_fan_out=self.turned,
                            target_modules=[slot.module for slot in self.slots])  # fmt: skip
        with warnings.catch_warnings():  # peft asks transformers for a name that changes
            warnings.simplefilter("ignore", FutureWarning)
            inject_adapter_in_model(config, self.model)
        for parameter in others:  # peft froze everything but its pairs
            parameter.requires_grad_(True)

    def end(self, model: Any, step: int) -> None:
        """Merge every pair into its matrix, and put the matrix back where it was."""
        for slot in self.slots:
            home, _, name = slot.module.rpartition(".")
            layer = self.model.get_submodule(slot.module)
            layer.merge(safe_merge=True)
            setattr(self.model.get_submodule(home), name, layer.get_base_layer())
