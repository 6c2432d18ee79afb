"""Subspaces of the residual stream: which directions tell languages apart, how much of the stream lies in them, and where."""
