"""The same index in PostgreSQL with the extension pgvector: one place for cases, access rights and back-ups.

``postgresql://USER@HOST/DATABASE#NAME``; passwords belong into ``~/.pgpass`` or PGPASSWORD. Decided here: vectors are
kept in single precision. Up to :data:`EXACT_LIMIT` rows are all compared; above, an HNSW index over half-precision
copies gives candidates that are compared again. Every write is one transaction under a lock of that index, every
search reads one snapshot.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, PeerUnreachable, UsageError, WetreadError, expected
from wetread.retrieval.approximate import CANDIDATES
from wetread.retrieval.index import require_answerable
from wetread.retrieval.records import EXACT_LIMIT, Found, Hit, IndexCard, Query, SearchOptions
from wetread.retrieval.store import key_of
from wetread.retrieval.where import Condition, columns_of, refuse_unknown, sql_of
from wetread.retrieval.write import (
    Changed,
    Head,
    refuse_everything,
    refuse_other_embeddings,
    refuse_other_kind,
    refuse_unknown_paths,
)

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection
    from psycopg.sql import Composed, Identifier

    Link = Connection[tuple[Any, ...]]

__all__ = ["PostgresIndex", "add_rows", "build_index", "delete_rows"]

_WAIT_S = 60
_HALF_LIMIT = 4000
"""Dimensions that an HNSW index over halfvec can have."""
_EF_MOST = 1000
_TABLE = "wetread_index"
_SLACK = 4


class PostgresIndex:
    """An index in a database; every search reads its newest state."""

    def __init__(self, url: str) -> None:
        """Look the index up.

        Raises:
            PeerUnreachable: the database does not answer.
            DatasetRefused: it has no such index.
        """
        self.address, self.name = _parts(url)
        with _connected(self.address) as link:
            self.card = _card(link, self.name)

    @property
    def location(self) -> str:
        """The name in the database; the address may hold a password."""
        return f"postgresql#{self.name}"

    def search(self, queries: Sequence[Query], k: int, options: SearchOptions | None = None) -> list[Found]:
        """Return the ``k`` nearest cases of each query; see :meth:`FolderIndex.search`."""
        asked = options or SearchOptions()
        with _connected(self.address) as link:
            self.card = _card(link, self.name)
            require_answerable(self.card, queries, k)
            scope = _Scope(link, self.card, asked.where)
            return [_nearest(link, scope, query, k, asked) for query in queries]

    def table(self, rows: Sequence[int]) -> pd.DataFrame:
        """Return what is known of rows, in their order."""
        import pandas as pd

        with _connected(self.address) as link:
            text = _sql("SELECT id, facts FROM {} WHERE id = ANY(%s)", _cases(self.name))
            known = dict(link.execute(text, [list(rows)]).fetchall())
        return pd.DataFrame([known[row] for row in rows], columns=list(self.card.columns))


class _Scope:
    """The condition of a search as SQL, and whether all that fit are compared."""

    def __init__(self, link: Link, card: IndexCard, where: Condition | None) -> None:
        self.card = card
        self.text, self.values, self.count = "TRUE", list[object](), card.count
        if where is not None:
            self.text, self.values = _condition(card, where)
            text = _sql("SELECT count(*) FROM {} WHERE ", _cases(card.name)) + _raw(self.text)
            self.count = int(_one(link.execute(text, self.values))[0])
            if not self.count:
                names = ", ".join(columns_of(where))
                raise DatasetRefused(
                    expected("cases that fit --where", f"none of {card.count}", f"look at the columns {names}")
                )
        self.exact = self.count <= EXACT_LIMIT or card.dimension > _HALF_LIMIT


def build_index(
    url: str, head: Head, rows: pd.DataFrame, vectors: NDArray[np.generic], *, overwrite: bool = False
) -> Changed:
    """Write a new index into a database; see :func:`wetread.retrieval.write.build_index`."""
    address, name = _parts(url)
    if head.kind != "pooled":
        raise UsageError(expected("an index of whole images in a database", "--local", "use a folder for that"))
    with _writing(address, name) as link:
        old = _found(link, name)
        if old is not None and not overwrite:
            raise UsageError(expected("a new name for the index", f"{name}, which exists", "add --overwrite"))
        dimension, now = int(vectors.shape[2]), _now()
        link.execute(_sql("DROP TABLE IF EXISTS {}", _cases(name)))
        link.execute(
            _sql(
                "CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person text NOT NULL, ",
                _cases(name),
            )
            + _raw("sha256 text[] NOT NULL, path text NOT NULL, root text NOT NULL, facts jsonb NOT NULL, ")
            + _raw(f"embedding vector({dimension}) NOT NULL)")
        )
        for column in ("person", "path"):
            link.execute(_sql("CREATE INDEX ON {} ({})", _cases(name), _identifier(column)))
        link.execute(_sql("CREATE INDEX ON {} USING gin (sha256)", _cases(name)))
        card = IndexCard(
            name=name,
            reader=head.reader,
            input=head.input,
            level=head.level,
            dimension=dimension,
            task=head.task,
            classes=head.classes,
            datasets=(head.dataset,),
            generation=old.generation if old else 0,
            created=now,
            changed=now,
            wetread=importlib.metadata.version("wetread"),
        )
        _insert(link, name, rows, vectors)
        return Changed(_commit(link, card, rows), added=len(rows))


def add_rows(url: str, head: Head, rows: pd.DataFrame, vectors: NDArray[np.generic]) -> Changed:
    """Add rows to an index in a database; see :func:`wetread.retrieval.write.add_rows`."""
    address, name = _parts(url)
    with _writing(address, name) as link:
        card = _card(link, name)
        refuse_other_embeddings(card, head.reader)
        refuse_other_kind(card, head)
        text = _sql("SELECT DISTINCT array_to_string(sha256, ' ') FROM {} WHERE sha256 && %s", _cases(name))
        hashes = [one for cell in rows["sha256"] for one in str(cell).split()]
        known = {row[0] for row in link.execute(text, [hashes])}
        new = ~rows["sha256"].isin(known).to_numpy()
        text = _sql("DELETE FROM {} WHERE (root, path) IN (SELECT * FROM unnest(%s::text[], %s::text[]))", _cases(name))
        fresh = rows[new]
        replaced = link.execute(text, [fresh["root"].tolist(), fresh["path"].tolist()]).rowcount
        _insert(link, name, fresh, vectors[new])
        datasets = tuple(dict.fromkeys((*card.datasets, head.dataset)))
        card = _commit(link, card.model_copy(update={"datasets": datasets}), rows)
        return Changed(card, added=int(new.sum()) - replaced, replaced=replaced, known=int((~new).sum()))


def delete_rows(url: str, where: Condition | None = None, paths: Sequence[str] = ()) -> Changed:
    """Delete rows of an index in a database; see :func:`wetread.retrieval.write.delete_rows`."""
    import pandas as pd

    refuse_everything(where, paths)
    address, name = _parts(url)
    with _writing(address, name) as link:
        card = _card(link, name)
        text, values = ("FALSE", list[object]()) if where is None else _condition(card, where)
        if paths:
            held = [row[0] for row in link.execute(_sql("SELECT path FROM {}", _cases(name)))]
            refuse_unknown_paths(paths, pd.Series(held, dtype="str"))
        statement = _sql("DELETE FROM {} WHERE (", _cases(name)) + _raw(f"{text}) OR path = ANY(%s)")
        gone = link.execute(statement, [*values, list(paths)]).rowcount
        if not gone:
            raise DatasetRefused(expected("cases that fit --where", f"none of {card.count}", "widen the condition"))
        return Changed(_commit(link, card, None), deleted=gone)


def _nearest(link: Link, scope: _Scope, query: Query, k: int, options: SearchOptions) -> Found:
    cases = _cases(scope.card.name)
    own = _own(link, cases, query)
    same = _raw("NOT (sha256 && %s)" if options.same_patient else "NOT (sha256 && %s OR person = ANY(%s))")
    hash_ = [query.sha256] if query.sha256 else []
    values = [*scope.values, hash_, *([] if options.same_patient else [own])]
    fitting = _raw(f"({scope.text}) AND ") + same
    left_out = 0
    if not options.same_patient:
        text = _sql("SELECT count(*) FROM {} WHERE ", cases) + _raw(
            f"({scope.text}) AND (sha256 && %s OR person = ANY(%s))"
        )
        left_out = int(_one(link.execute(text, values))[0])
    hits: list[Hit] = []
    fetch, most = k * (_SLACK if options.once_per_patient else 1), scope.count
    while True:
        ranked = _ranked(link, scope, query, fitting, values, min(fetch, most))
        hits = _picked(ranked, k, once=options.once_per_patient)
        if len(hits) == k or fetch >= most:
            return Found(tuple(hits), left_out)
        fetch *= _SLACK


def _ranked(
    link: Link, scope: _Scope, query: Query, fitting: Composed, values: list[object], n: int
) -> list[tuple[int, str, float]]:
    """(id, person, similarity) of the nearest rows, nearest first."""
    from pgvector import Vector

    cases, dimension = _cases(scope.card.name), scope.card.dimension
    asked = Vector(query.vectors[0])
    # The exact order is over an expression that no index has.
    exact = _sql("SELECT id, person, 1 - (embedding <=> %s) AS likeness FROM {} WHERE ", cases) + fitting
    if scope.exact or n > _EF_MOST:
        text = exact + _raw(" ORDER BY likeness DESC, id LIMIT %s")
        return list(link.execute(text, [asked, *values, n]))
    candidates = min(_EF_MOST, max(CANDIDATES, _SLACK * n))
    link.execute(_raw(f"SET LOCAL hnsw.ef_search = {candidates}; SET LOCAL hnsw.iterative_scan = strict_order"))
    half = f"embedding::halfvec({dimension}) <=> %s::halfvec({dimension})"
    inner = _sql("SELECT id, person, embedding FROM {} WHERE ", cases) + fitting + _raw(f" ORDER BY {half} LIMIT %s")
    text = _raw("SELECT id, person, 1 - (embedding <=> %s) AS likeness FROM (") + inner
    text += _raw(") AS near ORDER BY likeness DESC, id LIMIT %s")
    return list(link.execute(text, [asked, *values, asked, candidates, n]))


def _picked(ranked: list[tuple[int, str, float]], k: int, *, once: bool) -> list[Hit]:
    hits: list[Hit] = []
    seen: set[str] = set()
    for row, person, likeness in ranked:
        if once and person in seen:
            continue
        seen.add(person)
        hits.append(Hit(row, float(likeness)))
        if len(hits) == k:
            break
    return hits


def _own(link: Link, cases: Identifier, query: Query) -> list[str]:
    """Patients that the query is of, by name or by the hash of the file."""
    people = [query.patient] if query.patient is not None else []
    if query.sha256 is not None:
        text = _sql("SELECT DISTINCT person FROM {} WHERE sha256 && %s", cases)
        people += [row[0] for row in link.execute(text, [[query.sha256]])]
    return people


def _condition(card: IndexCard, where: Condition) -> tuple[str, list[object]]:
    refuse_unknown(where, card.columns)
    # Names come from the card alone: refuse_unknown let nothing else through. A quote in one is doubled.
    return sql_of(
        where, frozenset(card.numeric), lambda name: "facts->>'" + name.replace("'", "''").replace("%", "%%") + "'"
    )


def _insert(link: Link, name: str, rows: pd.DataFrame, vectors: NDArray[np.generic]) -> None:
    from pgvector import Vector
    from psycopg.types.json import Jsonb

    text = _sql("COPY {} (person, sha256, path, root, facts, embedding) FROM STDIN WITH (FORMAT BINARY)", _cases(name))
    people = rows["patient"].fillna(rows["path"]).astype(str)
    facts = json.loads(rows.to_json(orient="records", force_ascii=False))
    with link.cursor().copy(text) as copy:
        copy.set_types(["text", "text[]", "text", "text", "jsonb", "vector"])
        for fact, person, vector in zip(facts, people, vectors, strict=True):
            values = (person, str(fact["sha256"]).split(), fact["path"], fact["root"], Jsonb(fact))
            copy.write_row((*values, Vector(np.asarray(vector[0], np.float32))))


def _commit(link: Link, card: IndexCard, rows: pd.DataFrame | None) -> IndexCard:
    """Write the card of a new generation; make the HNSW index when there are enough rows."""
    name = card.name
    count, people = _one(link.execute(_sql("SELECT count(*), count(DISTINCT person) FROM {}", _cases(name))))
    update: dict[str, Any] = {"count": count, "patients": people, "changed": _now(), "generation": card.generation + 1}
    if rows is not None:
        from pandas.api.types import is_numeric_dtype

        names = [str(column) for column in rows.columns]
        numeric = [column for column in names if is_numeric_dtype(rows[column].dtype)]
        update["columns"] = tuple(dict.fromkeys((*card.columns, *names)))
        update["numeric"] = tuple(dict.fromkeys((*card.numeric, *numeric)))
    card = card.model_copy(update=update)
    link.execute(
        _sql(
            "INSERT INTO {} (name, card) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET card = EXCLUDED.card",
            _identifier(_TABLE),
        ),
        [name, card.model_dump_json()],
    )
    if count > EXACT_LIMIT and card.dimension <= _HALF_LIMIT:
        link.execute(
            _sql(
                "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw ",
                _identifier(_table_name(name) + "_near"),
                _cases(name),
            )
            + _raw(f"((embedding::halfvec({card.dimension})) halfvec_cosine_ops)")
        )
    return card


def _card(link: Link, name: str) -> IndexCard:
    card = _found(link, name)
    if card is None:
        there = ", ".join(
            row[0] for row in link.execute(_sql("SELECT name FROM {} ORDER BY name", _identifier(_TABLE)))
        )
        raise DatasetRefused(
            expected(f"an index called {name} in the database", there or "none", "make one: wetread index build")
        )
    return card


def _found(link: Link, name: str) -> IndexCard | None:
    row = link.execute(_sql("SELECT card FROM {} WHERE name = %s", _identifier(_TABLE)), [name]).fetchone()
    return None if row is None else IndexCard.model_validate(row[0])


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Link]:
    """A connection with pgvector's types and our table, in one snapshot; nothing of it shows a password."""
    try:
        import psycopg
        from pgvector.psycopg import register_vector
    except ImportError:
        cure = "pip install 'wetread[postgres]'"
        raise UsageError(expected("psycopg and pgvector for an index in a database", "neither", cure)) from None
    try:
        with psycopg.connect(address, connect_timeout=10) as link:
            link.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            _prepare(link)
            register_vector(link)
            yield link
    except psycopg.errors.LockNotAvailable:
        got = f"another one that did not finish within {_WAIT_S} s"
        raise WetreadError(expected("to be the only writer of the index", got, "try again later")) from None
    except psycopg.OperationalError as error:
        got = type(error).__name__
        raise PeerUnreachable(
            expected("a PostgreSQL server at that address", got, "check address, rights and password")
        ) from None
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege) as error:
        got = str(error).splitlines()[0]
        raise PeerUnreachable(
            expected("a database with the extension vector", got, "let an administrator run CREATE EXTENSION vector")
        ) from None


def _prepare(link: Link) -> None:
    """Make the extension and our table where they are missing."""
    ready = link.execute("SELECT to_regtype('vector'), to_regclass(%s)", [_TABLE]).fetchone()
    if ready is None or ready[0] is None or ready[1] is None:
        # Two that come first together: the second waits here.
        link.execute("SELECT pg_advisory_xact_lock(hashtext('wetread'))")
        link.execute("CREATE EXTENSION IF NOT EXISTS vector")
        link.execute(
            _sql("CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, card jsonb NOT NULL)", _identifier(_TABLE))
        )
    link.commit()


@contextlib.contextmanager
def _writing(address: str, name: str) -> Iterator[Link]:
    """A transaction that holds the index for one writer."""
    with _connected(address) as link:
        link.execute(_raw(f"SET LOCAL lock_timeout = '{_WAIT_S}s'"))
        # Read committed: what the writer before committed while we waited for the lock must be seen.
        link.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        link.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [_table_name(name)])
        yield link


def _parts(url: str) -> tuple[str, str]:
    address, _, name = url.partition("#")
    return address, name or "cases"


def _table_name(name: str) -> str:
    return f"wetread_cases_{key_of(name)[:16]}"


def _cases(name: str) -> Identifier:
    return _identifier(_table_name(name))


def _identifier(name: str) -> Identifier:
    from psycopg.sql import Identifier

    return Identifier(name)


def _sql(text: LiteralString, *names: Identifier) -> Composed:
    from psycopg.sql import SQL

    return SQL(text).format(*names)


def _raw(text: str) -> Composed:
    """SQL made of our own words and numbers; values always travel apart."""
    from psycopg.sql import SQL, Composed

    return Composed([SQL(text)])


def _one(cursor: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = cursor.fetchone()
    if row is None:
        raise WetreadError(expected("a row from the database", "none", "report this as a defect"))
    return row


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
