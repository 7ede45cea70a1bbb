"""Faults of the database, the network and the clock, on real processes that share a PostgreSQL server."""
