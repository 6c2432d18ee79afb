"""Learned rows carried to another model (LEP, arXiv 2412.21140): a donor's new vocabulary, the body of an instruct model."""
