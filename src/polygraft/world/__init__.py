"""A small world where the truth is known: made languages with shared meanings, texts, tasks and a model to train on them."""

from polygraft.world.grammar import Language, languages
from polygraft.world.meaning import Clause, Story

__all__ = ["Clause", "Language", "Story", "languages"]
