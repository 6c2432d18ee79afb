"""Where language and skill live in a model."""

__all__ = ["change", "delta", "steps"]
