"""Blocks: run a checkpoint larger than memory, one decoder layer at a time, with the model's own code around each layer.

The model is built without weights; what lies outside the layers becomes real (an untied head does not), and each layer for as long
as it works. A layer is called from within the model's own forward, whose other layers are stood in for, so that masks, positions
and whatever else the family hands to a layer are made by its own code: hidden states equal those of the whole model bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError, StepFailed
from polygraft.model import Live, view
from polygraft.spill import Spill
from polygraft.standins import Reached, empty_parameter, hidden_of, instead, layer_list, places, read, stop, unfilled, with_hidden
from polygraft.taps import layer_module

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy
    from polygraft.checkpoint import Weights
    from polygraft.sources import Source

Batch = dict[str, Any]  # what the model is called with: input_ids int64 [rows, tokens], attention_mask ...
Before = Callable[[int, Batch], None]
LIMIT = 1 << 30  # bytes of hidden states in memory; the rest lies in files


def _unheard(index: int, batch: Batch) -> None:
    """Nobody wants to know which batch comes next."""


@dataclass
class Blocks:
    """A model whose layers are in memory one at a time. Made by `open`.

    ```python
    blocks = Blocks.open(source, spill=folder)
    blocks.feed(batches)                      # embeds them
    for block in blocks:                      # layer 0, 1, ...: in memory until the next
        with Taps(blocks.live.model, blocks.live.anatomy, observe, points=points, layers=[block.layer]):
            block.run(before=begin)           # every batch through the layer; its output feeds the next
    ```
    `live` is the model as the rest of the project knows it; parameters of layers that are not in memory lie on the meta device.
    """

    live: Live
    weights: Weights
    states: Spill
    batches: list[Batch] = field(default_factory=list)
    _one: bool | None = None  # whether layers return a tensor; else a tuple that begins with one
    _spare: dict[Any, list[Any]] = field(default_factory=dict)  # parameters of the block before, to be overwritten

    @classmethod
    def open(cls, source: str | Path | Source, *, dtype: str = "auto", device: str = "cpu", spill: Path | None = None,
             limit: int = LIMIT, offline: bool = False) -> Blocks:
        """Build the model from config.json and make real what lies outside its layers, without the head.

        Hidden states stay in memory up to `limit` bytes and go to files in `spill` beyond. Raises InputError where the model
        cannot be built, or a parameter is filled by no tensor of the files.
        """
        from polygraft.sources import Source, resolve

        found = source if isinstance(source, Source) else resolve(source, offline=offline)
        made = cls(unfilled(found, dtype=dtype, device=device), found.weights, Spill(spill, limit))
        made._check_layers()
        made._fill(made._outside())
        return made

    def close(self) -> None:
        """Forget the hidden states, on disk too."""
        self.states.clear()

    def __enter__(self) -> Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------------------------------------------------- the way through

    def feed(self, batches: Iterable[Batch]) -> None:
        """Embed these batches: what layer 0 gets. What was fed before is forgotten."""
        self.states.clear()
        self.batches = []
        for batch in batches:
            self.states.put(len(self.batches), self._call(batch, 0, lambda _layer, args, kwargs: stop(hidden_of(args, kwargs))))
            self.batches.append(batch)

    def __iter__(self) -> Iterator[Block]:
        """The layers in order. One that was not run when the next is asked for is run then."""
        try:
            for number in range(self.live.anatomy.layers):
                block = Block(self, number, layer_module(self.live.model, self.live.anatomy, number))
                self._fill(self._inside(number))
                try:
                    yield block
                    if not block.propagated:
                        block.run()
                finally:
                    self._free(block.module)
        finally:
            self._spare.clear()

    def hidden(self, index: int) -> torch.Tensor:
        """[rows, tokens, hidden]: batch `index` where it is now: after the embedding, or after the last layer that was run."""
        return self.states.get(index, self.live.device)

    def _call(self, batch: Batch, layer: int, act: Callable[..., Any]) -> Any:
        """One forward of the model's body in which `act(layer, args, kwargs)` is called in the place of `layer`, and ends it."""
        import torch

        def place(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return act(number, args, kwargs) if number == layer else self._shaped(hidden_of(args, kwargs))

        inputs = {k: v.to(self.live.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with torch.no_grad(), instead(layer_list(self.live.model, self.live.anatomy), place):
            try:
                self.live.model.base_model(**inputs, use_cache=False)
            except Reached as reached:
                return reached.value
        raise StepFailed("the model did not call its layer", where=self.live.anatomy.where, found=f"layer {layer}",
                         fix="read this model in memory")

    def _shaped(self, hidden: Any) -> Any:
        """What a layer of this family returns, with this hidden state in it."""
        return hidden if self._one else (hidden,)

    # ------------------------------------------------------------------------------------------------------------ parameters

    def _check_layers(self) -> None:
        modules, count = layer_list(self.live.model, self.live.anatomy), self.live.anatomy.layers
        if len(modules) != count:
            raise InputError("the model does not have the layers of its files", where=self.live.anatomy.where,
                             found=f"{len(modules)}", expected=f"{count}")

    def _inside(self, layer: int) -> list[str]:
        module = layer_module(self.live.model, self.live.anatomy, layer)
        ids = {id(p) for p in module.parameters()}
        return [name for name, p in self.live.model.named_parameters() if id(p) in ids]

    def _outside(self) -> list[str]:
        """Names of parameters in no layer, each once, without an untied head: nothing that reads a model asks for it."""
        model = self.live.model
        inside = {id(p) for p in layer_list(self.live.model, self.live.anatomy).parameters()}
        shared = id(model.get_input_embeddings().weight)
        output = model.get_output_embeddings()
        heads = {id(p) for p in (output.parameters() if output is not None else ())} - {shared}
        return [n for n, p in model.named_parameters() if id(p) not in inside | heads]

    def _fill(self, names: list[str]) -> None:
        """Make these parameters real and read them from the files. Raises InputError where the files do not fill one."""
        live = self.live
        for name in names:
            meta = live.model.get_parameter(name)
            spare = self._spare.get((meta.shape, meta.dtype))
            real = spare.pop() if spare else empty_parameter(meta, live.device)
            for owner, own in list(places(live.model, [name])):
                owner._parameters[own] = real
            filled = 0
            for key in live.anatomy.file_keys(name):
                target = view(live.model, live.anatomy, key)
                assert target is not None
                read(self.weights, key, target)
                filled += target.numel() if target.untyped_storage().data_ptr() == real.untyped_storage().data_ptr() else 0
            if filled != real.numel():
                raise InputError("the tensors of the files do not fill a parameter", where=live.anatomy.where, found=name)

    def _free(self, module: Any) -> None:
        """Back to the meta device. The next block takes the room over: given back, an allocator might keep it as well."""
        for part in module.modules():
            for name, real in part._parameters.items():
                if real is not None:
                    part._parameters[name] = empty_parameter(real, "meta")
                    self._spare.setdefault((real.shape, real.dtype), []).append(real)

    @property
    def held(self) -> int:
        """Bytes of parameters in memory now."""
        return sum(p.nbytes for p in self.live.model.parameters() if not p.is_meta)  # a tied one counts once


@dataclass
class Block:
    """One decoder layer whose parameters are in memory. `module` may be changed between a run that observes and one that feeds."""

    blocks: Blocks
    layer: int
    module: Any
    propagated: bool = False

    def run(self, before: Before = _unheard, *, keep: bool = True) -> None:
        """Send every batch through the layer; `before(index, batch)` is called ahead of each.

        With `keep` its outputs become what the next layer gets; without, the layer may be run again on the same inputs (to
        observe them, say, before its weights are changed).
        """
        if self.propagated:
            raise StepFailed("the layer was run already: its inputs are gone", where=f"layer {self.layer}")
        for index, batch in enumerate(self.blocks.batches):
            before(index, batch)
            out = self._through(index, batch)
            if keep:
                self.blocks.states.put(index, out)
        self.propagated = keep

    def _through(self, index: int, batch: Batch) -> torch.Tensor:
        def act(_layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            args, kwargs = with_hidden(args, kwargs, self.blocks.hidden(index))
            out = self.module(*args, **kwargs)
            self.blocks._one = not isinstance(out, tuple)
            stop(out[0] if isinstance(out, tuple) else out)

        return self.blocks._call(batch, self.layer, act)


# ---------------------------------------------------------------------------------------------------------------- does it fit


def whole_bytes(weights: Weights, dtype: str = "auto") -> int:
    """Bytes of parameters of the whole model in memory, from headers."""
    width = {"float32": 4, "bfloat16": 2, "float16": 2}.get(dtype)
    return sum(t.numel * (width or t.itemsize) for t in weights.tensors.values())


def block_bytes(weights: Weights, anatomy: Anatomy, dtype: str = "auto") -> int:
    """Bytes of parameters that are in memory at most when a model runs block by block: what lies outside, and the largest layer."""
    width = {"float32": 4, "bfloat16": 2, "float16": 2}.get(dtype)
    layers: dict[int | None, int] = {}
    for key, t in weights.tensors.items():
        layer = anatomy.parts[key].layer
        layers[layer] = layers.get(layer, 0) + t.numel * (width or t.itemsize)
    return layers.pop(None, 0) + max(layers.values(), default=0)


def fits(weights: Weights, dtype: str = "auto", device: str = "cpu") -> bool:
    """Whether the whole model takes at most 80 % of the memory that the device has (a CPU: this process may use)."""
    return holds(whole_bytes(weights, dtype), device)


def holds(needed: int, device: str = "cpu") -> bool:
    """Whether so many bytes are at most 80 % of the memory that the device has (a CPU: this process may use)."""
    from polygraft.meter import memory_limit

    room = memory_limit()
    if device.startswith("cuda"):
        import torch

        room = torch.cuda.mem_get_info(device)[0]
    return room is None or needed <= 0.8 * room
