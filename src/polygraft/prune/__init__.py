"""Pruning with the right language in view: what each calibration text removes, and what every language loses by it."""
