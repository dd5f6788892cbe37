"""Insert unless it is there: the one statement that SQLite and PostgreSQL share under two names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from wetread.service.tables import Base

__all__ = ["insert_new"]


def insert_new(session: Session, table: type[Base], values: Mapping[str, Any], unique: Sequence[str]) -> bool:
    """Insert a row unless one with the same ``unique`` columns is there; return whether it was inserted."""
    statement = _statement(session.get_bind().dialect.name, table, tuple(unique))
    session.flush()
    # Not rowcount: drivers of PostgreSQL leave it open for inserts.
    return session.connection().execute(statement, values).first() is not None


@cache
def _statement(dialect: str, table: type[Base], unique: tuple[str, ...]) -> Any:
    """Made once for each table: building it takes longer than running it. The values come as its parameters."""
    insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    columns = table.__table__
    return insert(columns).on_conflict_do_nothing(index_elements=list(unique)).returning(columns.c[unique[0]])
