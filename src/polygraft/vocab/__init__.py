"""Vocabularies: tokenizers that fit a language, rows for their tokens, and the way of those rows to other models."""
