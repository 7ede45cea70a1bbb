"""How long after its commit a task starts: in the process that committed it, and in another one, beside two peers."""
