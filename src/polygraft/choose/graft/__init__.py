"""Grafting by reference: many merges of the same sources, evaluated together and never written.

`trie` (candidates as paths of layers), `variants` (where a tensor's numbers come from), `parameters` (held once, blended once),
`frame` (the family's own code around one layer at a time), `pieces` and `reading` (token trees, padded rows), `walk` (which states
go up next), `head` (what is read behind the last layer), `scores`. `Grafter` puts them together.
"""

from polygraft.choose.graft.grafter import Grafter
from polygraft.choose.graft.scores import Scores, Work

__all__ = ["Grafter", "Scores", "Work"]
