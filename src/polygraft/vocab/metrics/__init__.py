"""What a tokenizer does to text, and what its vocabulary holds: totals over a sample, never means of ratios."""
