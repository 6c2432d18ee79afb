"""Training: supervised fine-tuning, full or LoRA, resumable to the byte."""

from polygraft.tune.sft import Settings, Trained, train

__all__ = ["Settings", "Trained", "train"]
