"""Rates, limits, names and keys, held by real processes that share a database."""
