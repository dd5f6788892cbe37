"""Changes of the service's tables, in order, as Alembic runs them."""
