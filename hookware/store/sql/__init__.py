"""The store on SQL databases, through SQLAlchemy."""
