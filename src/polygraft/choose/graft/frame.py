"""Frame: one model without weights of its own, through which every candidate is computed a layer at a time.

Masks and positions are made by the family's own code once a piece, around stand-ins for its layers; layers, norm and head are
called as the family calls them, on whatever parameters they wear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.choose.graft.pieces import Piece
from polygraft.errors import InputError, StepFailed
from polygraft.evals.engines import row
from polygraft.evals.engines.columns import Columns
from polygraft.standins import Reached, hidden_of, instead, layer_list, stop, with_hidden

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Frame:
    """`embed`, `layer`, `logits`: the parts of a forward, each on the parameters that the model wears when it is called."""

    def __init__(self, model: Any, anatomy: Anatomy, device: str):
        self.model, self.anatomy, self.device = model, anatomy, device
        self.modules = layer_list(model, anatomy)
        if len(self.modules) != anatomy.layers:
            raise InputError("the model does not have the layers of its files", where=anatomy.where, found=len(self.modules),
                             expected=anatomy.layers)
        self._plain: bool | None = None  # whether a layer returns a tensor; else a tuple that begins with one
        self._calls: dict[tuple[int, int], list[Call]] = {}  # what each layer is called with, by piece and number of states

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: how many logits a token has."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def token_bytes(self) -> int:
        """Bytes of a hidden state a token."""
        return self.anatomy.sizes.hidden * int(self.model.dtype.itemsize)

    def forget(self) -> None:
        """Forget what layers were called with: other pieces come."""
        self._calls.clear()

    def embed(self, piece: Piece) -> Any:
        """[rows * width, hidden]: what the first layer gets."""
        found = self._follow(piece.many(1), lambda _number, args, kwargs: stop(hidden_of(args, kwargs)))
        return found.reshape(-1, found.shape[-1])

    def layer(self, number: int, pieces: Sequence[Piece], states: Sequence[Any], out: Sequence[Any],
              spots: np.ndarray | None = None) -> None:  # fmt: skip
        """Send states [tokens, hidden] through one layer, side by side, into `out`, which may be the same tensors.

        spots: int64, ascending, the tokens that are looked at behind this layer, if they are not all: its FFN computes no others,
        and what stands at the others in `out` means nothing.
        """
        import torch

        cache = Columns()
        with row.grouped(self.device):
            for k, piece in enumerate(pieces):
                inside = slice(piece.start, piece.stop)
                together = torch.stack([s[inside] for s in states]).view(-1, piece.width, states[0].shape[-1])
                with self._narrowed(number, piece, len(states), spots):
                    found = self._run(number, k, piece, len(states), together, cache)
                for target, value in zip(out, found.view(len(states), -1, found.shape[-1])):
                    target[inside] = value
                cache = _carried(cache, piece)

    def logits(self, hidden: Any) -> Any:
        """[n, vocabulary] of states [n, hidden] behind the last layer: the model's own norm and head, a row a token."""
        import torch

        last = self.anatomy.layers - 1

        def place(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._shaped(hidden[:, None] if number == last else hidden_of(args, kwargs))

        with instead(self.modules, place):
            ids = torch.zeros(len(hidden), 1, dtype=torch.long, device=self.device)
            return self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, 0]

    @contextmanager
    def _narrowed(self, number: int, piece: Piece, states: int, spots: np.ndarray | None) -> Iterator[None]:
        """Within: the layer's FFN computes some of a piece's tokens, and gives 0 for the others."""
        import torch

        module = None if spots is None else self._ffn(number)
        if module is None or spots is None:
            yield
            return
        size, real = piece.stop - piece.start, module.forward
        at = spots[slice(*np.searchsorted(spots, [piece.start, piece.stop]))] - piece.start
        some = torch.from_numpy((np.arange(states)[:, None] * size + at).reshape(-1)).to(self.device)

        def forward(x: Any, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs:  # it adds to a residual of its own
                return real(x, *args, **kwargs)
            found = x.new_zeros(x.numel() // x.shape[-1], x.shape[-1])
            if len(some):
                found[some] = real(x.reshape(found.shape)[some][None])[0]
            return found.view(x.shape)

        module.forward = forward
        try:
            yield
        finally:
            del module.forward

    def _ffn(self, number: int) -> Any:
        """The module that is one layer's FFN and nothing else; None for a mixture, and where a family has no such module."""
        keys = [key for key in self.anatomy.keys(layer=number, kind="ffn") if self.anatomy.parts[key].role == "down"]
        names = {(self.anatomy.live_name(key) or "").rpartition(".")[0].rpartition(".")[0] for key in keys}
        module = self.model.get_submodule(names.pop()) if len(names) == 1 else None
        return None if module is self.modules[number] else module

    def _run(self, number: int, k: int, piece: Piece, states: int, hidden: Any, cache: Columns) -> Any:
        args, kwargs = self._called(number, k, piece, states)
        args, kwargs = with_hidden(args, kwargs, hidden)
        args = tuple(cache if isinstance(a, Columns) else a for a in args)
        out = self.modules[number](*args, **{n: cache if isinstance(v, Columns) else v for n, v in kwargs.items()})
        self._plain = not isinstance(out, tuple)
        return out if self._plain else out[0]

    def _called(self, number: int, k: int, piece: Piece, states: int) -> Call:
        """What the family calls this layer with, but for the hidden state."""
        if (k, states) not in self._calls:
            calls: list[Call] = []

            def note(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                value = hidden_of(args, kwargs)
                calls.append(with_hidden(args, kwargs, None))
                return stop(None) if self._plain is None or number == self.anatomy.layers - 1 else self._shaped(value)

            self._follow(piece.many(states), note)
            if self._plain is None:  # what a layer returns is not known before the first has been called
                return calls[0]
            self._calls[k, states] = calls
        return self._calls[k, states][number]

    def _shaped(self, hidden: Any) -> Any:
        return hidden if self._plain else (hidden,)

    def _follow(self, inputs: dict[str, Any], act: Callable[..., Any]) -> Any:
        """The model's own forward, up to where `act` ends it."""
        with instead(self.modules, act):
            try:
                self.model.base_model(**inputs)
            except Reached as reached:
                return reached.value
            except InputError as error:  # a layer that shares more than the hidden state
                raise InputError(error.what, where=self.anatomy.where, found=error.found,
                                 fix="write each merge and evaluate it") from None
        raise StepFailed("the model did not call its layers", where=self.anatomy.where)


def _carried(cache: Columns, piece: Piece) -> Columns:
    """The columns that the next piece attends to."""
    if piece.keep is None:
        return Columns()
    cache.advance(piece.inputs["position_ids"][0].cpu().numpy().astype(np.int64))
    cache.keep(*piece.keep)
    return cache
