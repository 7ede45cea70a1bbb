"""The dashboard: pages about an installation, for people, with what they may do there.

app = Hookware(api, engine=engine, dashboard=True)      # /_hookware/, from this machine
app.mount("/tasks", Dashboard(auth=role_of))            # or wherever you like
"""

from hookware.dashboard.access import Given, Role
from hookware.dashboard.app import Dashboard

__all__ = ["Dashboard", "Given", "Role"]
