"""Logit lens: which language's tokens would each depth predict, were it the last? (nostalgebraist 2020; Wendler et al. 2024)

A token belongs to a language when nearly all of its occurrences in the corpora at hand are in that language; the others are shared
by languages, or were not seen. Ours: no list of translations is needed, and it says nothing of tokens that languages share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.analysis.groups import draws as resamples
from polygraft.errors import InputError
from polygraft.taps import Passing, Taps
from polygraft.windows import Stream

if TYPE_CHECKING:
    import torch

    from polygraft.model import Live

OWN = 0.9  # share of a token's occurrences, at equal budgets, that makes it one language's
WINDOW = 128  # tokens that the lens sees together at most
EACH = 8  # positions looked at in a window: more windows tell more than more positions of few
ROWS = 64  # states a time through the head
AGREE = 2e-2  # of the largest logit: how far the lens of the last layer may be from the model's own logits (half precision rounds)


@dataclass(frozen=True)
class Lens:
    """`share` float64 [K, depths, K + 2]: probability on tokens of each language, shared and unseen ones, by language of the text.

    `windows` float64 [K][W, depths, K + 2] is the same of each window. `text` [K, K + 2]: which tokens really follow. `vocabulary`
    [K + 2]: how many tokens of the vocabulary each has, as a share: what a model that knows nothing predicts.
    """

    share: np.ndarray
    windows: list[np.ndarray]
    text: np.ndarray
    vocabulary: np.ndarray
    positions: int

    def draws(self, count: int, seed: int) -> np.ndarray:
        """float64 [count, K, depths, K + 2]: `share` of bootstrap samples of the windows."""
        taken = resamples([len(w) for w in self.windows], count, seed)
        return np.stack([np.tensordot(t / len(w), w, 1) for t, w in zip(taken, self.windows)], axis=1)


def windows_of(stream: Stream, window: int, positions: int) -> list[np.ndarray]:
    """int64 token ids of windows for so many positions, spread evenly over the text; BOS first where there is one."""
    width = max(3, min(window, WINDOW)) - (stream.bos is not None)
    starts = np.arange(0, max(1, stream.tokens - width + 1), width)
    taken = starts[np.unique(np.linspace(0, len(starts) - 1, max(1, positions // EACH)).astype(int))]
    first = [] if stream.bos is None else [stream.bos]
    return [np.concatenate([first, stream.ids[i : i + width]]).astype(np.int64) for i in taken]


def occurrences(streams: list[Stream], vocabulary: int) -> np.ndarray:
    """int64 [vocabulary, K]: how often each token stands in the text of each language."""
    return np.stack([np.bincount(s.ids, minlength=vocabulary) for s in streams], axis=1)


def owners(seen: np.ndarray, own: float = OWN) -> np.ndarray:
    """int64 [vocabulary]: the language whose token it is, K where languages share it, K + 1 where no corpus has it.

    `seen` [vocabulary, K] are occurrences; each language's are divided by its total first, so that budgets need not be equal.
    """
    rate = seen / np.maximum(seen.sum(0), 1)
    total = rate.sum(1)
    best = rate.argmax(1)
    mine = rate.max(1) >= own * total
    return np.where(total == 0, seen.shape[1] + 1, np.where(mine, best, seen.shape[1]))


class Head:
    """What turns a state into logits: the last norm, the projection to the head where there is one, the head, its scale and cap."""

    def __init__(self, live: Live):
        anatomy, model = live.anatomy, live.model
        keys = [k for k in anatomy.keys(kind="final_norm") if k.endswith(".weight")]
        self.norm = [_module(model, anatomy.live_name(k)) for k in keys]
        self.project = [_module(model, anatomy.live_name(k)) for k in anatomy.keys(kind="head", role="project")]
        self.head = model.get_output_embeddings()
        config = model.config.get_text_config()
        self.scale = float(getattr(config, "logit_scale", None) or 1) / float(getattr(config, "logits_scaling", None) or 1)
        self.cap = getattr(config, "final_logit_softcapping", None)
        if self.head is None or len(keys) > 1:
            raise InputError("no single way from the stream to the logits", where=anatomy.where, found=", ".join(keys) or "no head")

    def __call__(self, state: torch.Tensor) -> torch.Tensor:
        """float32 logits [n, vocabulary] of states [n, D]."""
        import torch

        for module in (*self.norm, *self.project):
            state = module(state)
        logits = self.head(state).float() * self.scale
        return torch.tanh(logits / self.cap) * self.cap if self.cap else logits


def _module(model: Any, name: str | None) -> Any:
    return model.get_submodule((name or "").rpartition(".")[0])


def look(live: Live, windows: list[list[np.ndarray]], seen: np.ndarray, positions: int, seed: int = 0,
         progress: Callable[..., None] = lambda *_: None) -> Lens:
    """Run the `windows` (int64 token ids [tokens], BOS first where there is one) of each language; look at `positions` of each.

    `seen` int64 [vocabulary, K]. Positions are drawn evenly over the windows, never a window's first or last. Raises InputError
    where the lens of the last layer is not the model's own prediction: the head does more than is known here.
    """
    import torch

    owner = owners(seen)
    names = seen.shape[1] + 2
    head, rng = Head(live), np.random.default_rng(seed)
    onto: torch.Tensor | None = None
    known = owner
    parts: list[np.ndarray] = []
    text = np.zeros((len(windows), names))
    done = 0
    for k, rows in enumerate(windows):
        each, kept = max(1, positions // max(1, len(rows))), []
        for ids in (r for r in rows if len(r) > 2):
            at = np.sort(rng.choice(np.arange(1, len(ids) - 1), min(each, len(ids) - 2), replace=False))
            states, own = _states(live, ids, at)
            if onto is None:
                _check(head, states[-1], own, live)
                known = _fitted(owner, own.shape[-1], names - 1)
                onto = torch.from_numpy(np.eye(names, dtype=np.float32)[known])
            kept.append(np.stack([_shares(head, s, onto) for s in states]))
            text[k] += np.bincount(owner[ids[at + 1]], minlength=names)
            done += 1
            progress(done, sum(map(len, windows)), "logit lens")
        if not kept:
            raise InputError("no text long enough for the logit lens", found=f"{len(rows)} windows", expected="3 tokens or more")
        parts.append(np.stack(kept))
    share = np.stack([p.mean(0) for p in parts])
    vocabulary = np.bincount(known, minlength=names) / len(known)
    return Lens(share, parts, text / text.sum(1, keepdims=True), vocabulary, int(text.sum(1).min()))


def _fitted(owner: np.ndarray, rows: int, unseen: int) -> np.ndarray:
    """`owner` of each of the head's `rows`: rows that no token has are unseen; tokens beyond them cannot be predicted."""
    return np.pad(owner[:rows], (0, max(0, rows - len(owner))), constant_values=unseen)


def _states(live: Live, ids: np.ndarray, at: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
    """States [n, D] at positions `at` of every depth, and the model's own logits [n, vocabulary] there."""
    import torch

    found: dict[int, torch.Tensor] = {}

    def passing(p: Passing) -> None:
        depth = p.layer + (p.point == "residual")
        if depth not in found:
            found[depth] = p.value[0, at]

    place = live.model.get_input_embeddings().weight.device
    with torch.inference_mode(), Taps(live.model, live.anatomy, passing, points=("input.layer", "residual")):
        out = live.model(input_ids=torch.as_tensor(ids[None], device=place), use_cache=False, logits_to_keep=at.tolist())
    return [found[d] for d in range(live.anatomy.layers + 1)], out.logits[0].float()


def _check(head: Head, last: torch.Tensor, own: torch.Tensor, live: Live) -> None:
    import torch

    with torch.inference_mode():
        off = float((head(last).to(own.device) - own).abs().max() / own.abs().max().clamp(min=1e-9))
    if not off <= AGREE:
        raise InputError("the lens of the last layer is not the model's own prediction", where=live.anatomy.where,
                         found=f"logits apart by {off:.2g} of the largest", expected=f"at most {AGREE:g}",
                         fix="leave the lens out: --lens 0")


def _shares(head: Head, states: torch.Tensor, onto: torch.Tensor) -> np.ndarray:
    """float64 [K + 2]: mean probability on the tokens of each owner. `onto` float32 [vocabulary, K + 2] one-hot."""
    import torch

    total = torch.zeros(onto.shape[1], dtype=torch.float64)
    with torch.inference_mode():
        for block in states.split(ROWS):
            probability = head(block).softmax(-1)
            total += (probability @ onto.to(probability.device)).double().sum(0).cpu()
    return (total / len(states)).numpy()
