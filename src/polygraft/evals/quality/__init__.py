"""What can be said of a written answer without a gold one: its language and script, loops, refusals, whether it came to an end."""
