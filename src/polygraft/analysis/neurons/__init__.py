"""Language-specific neurons: which fire for a language and not for others, and how much of that is more than chance."""
