"""Polygraft: make an open decoder LLM good at another language, cheaply, and prove what it cost."""

__version__ = "0.1.0"
