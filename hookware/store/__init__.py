"""Where tasks are kept: the protocol, the verified fake, and SQL."""
