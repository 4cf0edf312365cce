"""Candidates to hits, by one customer's ranking config."""
