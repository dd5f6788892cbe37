"""Where an index is: a folder, or a name in a PostgreSQL database. What can be done with it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wetread.retrieval.cases import CaseRows
from wetread.retrieval.index import CaseIndex, FolderIndex
from wetread.retrieval.where import Condition
from wetread.retrieval.write import Changed, add_rows, build_index, delete_rows

__all__ = ["DATABASE_PREFIXES", "add_to", "build_at", "delete_from", "is_database", "open_index", "without_password"]

DATABASE_PREFIXES = ("postgresql://", "postgres://")


def is_database(location: str) -> bool:
    """Whether ``location`` is the URL of a database; its part after # names the index."""
    return location.startswith(DATABASE_PREFIXES)


def without_password(location: str) -> str:
    """The location as it may be shown."""
    if not is_database(location):
        return location
    scheme, _, rest = location.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{user.split(':')[0]}{at}{host.partition('?')[0] if '#' not in host else _bare(host)}"


def _bare(host: str) -> str:
    """Host, database and name of the index without options, which may hold a password too."""
    address, _, name = host.partition("#")
    return f"{address.partition('?')[0]}#{name}"


def open_index(location: str, *, everything: bool = False) -> CaseIndex:
    """Open the index in a folder or a database; ``everything``: verify also large files that nobody touched.

    Raises:
        DatasetRefused: no index there, or a damaged one.
        PeerUnreachable: the database does not answer.
    """
    if is_database(location):
        from wetread.retrieval.pgvector import PostgresIndex

        return PostgresIndex(location)
    return FolderIndex(Path(location), everything=everything)


def build_at(location: str, cases: CaseRows, *, overwrite: bool = False) -> Changed:
    """Write a new index; see :func:`wetread.retrieval.write.build_index`."""
    if is_database(location):
        from wetread.retrieval import pgvector

        return pgvector.build_index(location, cases.head, cases.rows, cases.vectors, overwrite=overwrite)
    return build_index(Path(location), cases.head, cases.rows, cases.vectors, overwrite=overwrite)


def add_to(location: str, cases: CaseRows) -> Changed:
    """Add rows to an index; see :func:`wetread.retrieval.write.add_rows`."""
    if is_database(location):
        from wetread.retrieval import pgvector

        return pgvector.add_rows(location, cases.head, cases.rows, cases.vectors)
    return add_rows(Path(location), cases.head, cases.rows, cases.vectors)


def delete_from(
    location: str, where: Condition | None = None, paths: Sequence[str] = (), *, purge: bool = False
) -> Changed:
    """Delete rows of an index; see :func:`wetread.retrieval.write.delete_rows`. A database leaves nothing behind."""
    if is_database(location):
        from wetread.retrieval import pgvector

        return pgvector.delete_rows(location, where, paths)
    return delete_rows(Path(location), where, paths, purge=purge)
