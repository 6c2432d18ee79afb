"""Recipes: read, plan, run, resume."""

from polygraft.step import Context, DataRef, Detail, ModelRef, Plan, Step

__all__ = ["Context", "DataRef", "Detail", "ModelRef", "Plan", "Step"]
