"""Edits of a running model as experiments: ways of steering, answers with and without, the effect matrix, the verdict."""
