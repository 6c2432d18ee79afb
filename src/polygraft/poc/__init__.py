"""From methods to a decision: a proof of concept over the methods that apply, each at equal budget, and one decision report."""
