"""Planted bugs: what would go wrong if a line were wrong, and the proof that somebody would notice.

A checker that complains of nothing may be blind. So small bugs are planted, one at a time, into a copy of the program,
and the check that is named for each must find it. A bug is a replacement of a text that must be there exactly once: a
test sees to it that none rots away.

    bugs.py      what a bug is, and what may catch it
    leases.py    bugs of leases, fences, clocks and loops
    stores.py    bugs of the stores
    delivery.py  bugs of answers, transactions and enqueue
    cron.py      bugs of cron
    plant.py     a copy of the tree, with a bug in it
    campaign.py  the command, and the table of the documentation
"""
