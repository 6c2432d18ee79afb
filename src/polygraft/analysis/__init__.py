"""Where language and skill live in a model."""

__all__ = ["delta", "layers", "neurons", "reading", "steering", "subspace"]
