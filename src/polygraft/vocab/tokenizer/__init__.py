"""Making tokenizers: counting, continued merges, training, trimming; no model is looked at."""
