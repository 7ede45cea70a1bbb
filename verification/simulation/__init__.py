"""Simulated worlds: nodes that run the real dispatcher, reaper and heartbeat, in virtual time, by a seed.

loop.py      an event loop in which nothing is left to chance
faults.py    what goes wrong in a world, and how often
world.py     time, history and fate of one world
node.py      one process of it: where the program under test is put together
handlers.py  the app: handlers that do everything that handlers do
wire.py      the line between a node and the store, which is slow and fails
watch.py     what happens to the rows, seen from outside
memory.py    the store in memory, as the database of a world
sqlite.py    SQLAlchemy and SQLite, as the database of a world
run.py       one seed from beginning to end
campaign.py  the command
"""
