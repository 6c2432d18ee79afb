"""Results in, one HTML page out: readable without JavaScript or a network, by an engineer and by a manager."""

from polygraft.report.html import render
from polygraft.report.views import Meta
from polygraft.report.write import write

__all__ = ["Meta", "render", "write"]
