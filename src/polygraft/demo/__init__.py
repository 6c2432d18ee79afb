"""The demo: a shipped recipe over the embedded small model and two shipped expert adapters."""

from pathlib import Path

RECIPE = Path(__file__).parent / "demo.yaml"
