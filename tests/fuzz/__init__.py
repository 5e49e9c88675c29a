"""Readers of bytes and text from strangers under fuzz: with hypothesis in the suite, with atheris by hand."""
