"""Insert unless it is there: the one statement that SQLite and PostgreSQL share under two names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from wetread.service.tables import Base

__all__ = ["insert_new"]


def insert_new(session: Session, table: type[Base], values: Mapping[str, Any], unique: Sequence[str]) -> bool:
    """Insert a row unless one with the same ``unique`` columns is there; return whether it was inserted."""
    insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(**values).on_conflict_do_nothing(index_elements=list(unique))
    session.flush()
    # Not rowcount: drivers of PostgreSQL leave it open for inserts.
    return session.execute(statement.returning(getattr(table, unique[0]))).first() is not None
