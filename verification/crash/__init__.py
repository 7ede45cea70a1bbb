"""Real server processes on a real database, which are killed, frozen and terminated."""
