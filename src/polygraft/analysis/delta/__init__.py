"""What training changed: differences of weights, over layers and matrices."""

__all__ = ["change", "maps", "measure", "steps", "tables"]
