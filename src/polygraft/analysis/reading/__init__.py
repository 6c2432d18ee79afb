"""Reading text once, and what of it is kept: corpora to windows of tokens, one pass, one folder."""
