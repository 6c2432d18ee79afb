"""Training: what a selection says and nothing else, full or by adapter, resumable to the byte."""

from polygraft.tune.settings import Settings
from polygraft.tune.training import Trained, Work, train

__all__ = ["Settings", "Trained", "Work", "train"]
