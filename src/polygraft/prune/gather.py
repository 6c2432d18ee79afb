"""One layer's input statistics, in one pass over the calibration text: every site of the layer at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from polygraft.model import view
from polygraft.prune.sites import Site
from polygraft.prune.statistics import Moments
from polygraft.taps import Passing, Taps

if TYPE_CHECKING:
    import torch

    from polygraft.blocks import Block
    from polygraft.model import Live

SAMPLED = 256  # inputs of a site that its error is measured on, where products are not kept
Weighing = Sequence["torch.Tensor"]  # of every batch: float32 [rows, tokens], 0 where nothing counts (padding)


class Samples:
    """Some inputs of every site, evenly over all of its tokens, each times the root of its weight: what errors are measured on."""

    def __init__(self, weighing: Weighing):
        self.every = max(1, -(-sum(int((w > 0).sum()) for w in weighing) // SAMPLED))
        self.rows: dict[Site, list[torch.Tensor]] = {}
        self.seen: Counter[Site] = Counter()

    def take(self, site: Site, value: torch.Tensor, weights: torch.Tensor) -> None:
        """value [tokens, in], weights [tokens]: all above 0."""
        at = slice(-self.seen[site] % self.every, None, self.every)
        self.rows.setdefault(site, []).append(value[at].float() * weights[at].float().sqrt()[:, None])
        self.seen[site] += len(value)

    def of(self, site: Site) -> torch.Tensor | None:
        """float32 [samples, in]; None where no token came."""
        import torch

        return torch.cat(self.rows[site]) if self.seen[site] else None


class Gathering:
    """What passes the taps of one layer, summed by site. `begin(index, batch)` is told ahead of each batch."""

    def __init__(self, live: Live, found: Mapping[Site, Sequence[str]], widths: Mapping[Site, int], weighing: Weighing, gram: bool,
                 samples: Samples | None = None):  # fmt: skip
        self.live, self.sites, self.weighing, self.samples = live, found, weighing, samples
        self.moments = {site: Moments.empty(widths[site], gram) for site in found}
        self.mixture = any(site.expert >= 0 for site in found)
        # taken now: while a layer runs, others stand in the model's list
        self.ups: dict[int, Any] = {
            site.expert: view(live.model, live.anatomy, key) for site, keys in found.items() if site.expert >= 0
            for key in keys if live.anatomy.parts[key].role == "experts.up"}  # fmt: skip
        self.weights: Any = None
        self.plain = False  # every token counts once: nothing to leave out or to weigh
        self.entered: Any = None

    @property
    def points(self) -> tuple[str, ...]:
        """The taps that see all sites: a mixture's experts are followed from their activation."""
        plain = {site.point for site in self.sites if site.expert < 0}
        return tuple(sorted(plain | ({"input.ffn", "act"} if self.mixture else set())))

    def begin(self, index: int, _batch: Any) -> None:
        self.weights = self.weighing[index].reshape(-1).to(self.live.device)
        self.plain = bool((self.weights == 1).all())

    def seen(self, passing: Passing) -> None:
        value = passing.value.reshape(-1, passing.value.shape[-1])
        if passing.expert is not None:
            self._expert(passing.layer, passing.expert, value, passing.tokens)
            return
        if passing.point == "input.ffn" and self.mixture:
            self.entered = value
        site = Site(passing.layer, passing.point)
        if site in self.moments:
            self._add(site, value, self.weights)

    def _expert(self, layer: int, expert: int, gate: Any, tokens: Any) -> None:
        """The expert's input, and what its down projection reads: act(gate) * up, as the family's module computes it."""
        x, weights = self.entered[tokens], self.weights[tokens]
        self._add(Site(layer, "input.ffn", expert), x, weights)
        self._add(Site(layer, "down", expert), gate * (x @ self.ups[expert].T), weights)

    def _add(self, site: Site, value: Any, weights: Any) -> None:
        if not self.plain:
            counted = weights > 0
            value, weights = value[counted], weights[counted]
        self.moments[site].add(value, None if self.plain else weights)
        if self.samples is not None:
            self.samples.take(site, value, weights)


class ByLanguage(Gathering):
    """A gathering that adds each batch to the moments of its language, `of[index]`."""

    def __init__(self, live: Live, found: Mapping[Site, Sequence[str]], widths: Mapping[Site, int], weighing: Weighing, gram: bool,
                 of: Sequence[str]):  # fmt: skip
        super().__init__(live, found, widths, weighing, gram=False)
        self.of = of
        self.every = {g: {site: Moments.empty(widths[site], gram) for site in found} for g in dict.fromkeys(of)}

    def begin(self, index: int, batch: Any) -> None:
        self.moments = self.every[self.of[index]]
        super().begin(index, batch)


def gather(block: Block, live: Live, found: Mapping[Site, Sequence[str]], widths: Mapping[Site, int], weighing: Weighing,
           gram: bool, samples: Samples | None = None, of: Sequence[str] | None = None) -> dict[Site, Moments]:  # fmt: skip
    """Moments of every site of a layer in memory; the layer may be run again on the same inputs. `samples` takes some of them;
    with `of`, the language of each batch, those of every language are kept too."""
    gathering = (Gathering(live, found, widths, weighing, gram, samples) if of is None
                 else ByLanguage(live, found, widths, weighing, gram, of))  # fmt: skip
    with Taps(live.model, live.anatomy, gathering.seen, points=gathering.points, layers=[block.layer]), unread(live, found):
        block.run(gathering.begin, keep=False)
    if isinstance(gathering, ByLanguage):
        return {site: Moments.together({g: by_site.pop(site) for g, by_site in gathering.every.items()}) for site in found}
    return gathering.moments


@contextmanager
def unread(live: Live, found: Mapping[Site, Sequence[str]]) -> Iterator[None]:
    """Within: what a layer gives is not computed to the end, since nobody reads it: the last matrix gives zeros."""
    keys = [key for site, keys in found.items() if site.point == "down" and site.expert < 0 for key in keys]
    names = [(live.anatomy.live_name(key) or "").rpartition(".")[0] for key in keys]
    modules = [(live.model.get_submodule(name), live.anatomy.sizes.hidden) for name in names]
    for module, width in modules:
        module.forward = lambda x, _width=width: x.new_zeros(*x.shape[:-1], _width)
    try:
        yield
    finally:
        for module, _ in modules:
            del module.forward
