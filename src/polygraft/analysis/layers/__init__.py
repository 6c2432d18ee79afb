"""Which layers deal with languages: where neurons fire at other rates from language to language."""

__all__ = ["choose", "decide", "deviation", "final", "measure", "noise", "tables"]
