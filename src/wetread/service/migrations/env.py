"""How Alembic runs the migrations: on the connection that :func:`wetread.service.database.migrate` holds."""

from __future__ import annotations

from alembic import context

from wetread.service.tables import Base

__all__: list[str] = []

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
