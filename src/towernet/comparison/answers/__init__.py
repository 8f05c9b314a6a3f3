"""Anybody's answers: a table of who named which image rightly, read, checked and judged."""
