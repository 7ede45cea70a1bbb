"""Verification: campaigns that try to break hookware's promises, one checker for all of them, and their ledger.

`python -m verification --help` lists the commands. Each runs a campaign, prints what it did, and ends with status 1 if
a promise was broken.

    history.py     what happened, as lines of JSON: one format for all campaigns
    checker.py     reads a history and names every broken invariant
    crash/         real server processes that are killed, frozen and restarted
    __main__.py    the commands
"""
