"""Rows for the tokens of a new vocabulary, made of the rows that the model has."""
