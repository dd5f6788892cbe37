"""What every part of the service needs: settings, database, stored files, readers, the bell; opened once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.service.blobs import BlobStore
from wetread.service.catalog import Catalog
from wetread.service.database import Database, migrate, open_database, start_lock
from wetread.service.queue import Bell
from wetread.service.unpack import Limits
from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.service.language import LanguageModel
    from wetread.service.openid import OpenIdConnect
    from wetread.service.receiver import Receiver

__all__ = ["Service", "database_url", "open_service"]


@dataclass(frozen=True, eq=False)
class Service:
    """One installation. ``root``: its folder; ``secure``: whether it is reached through TLS.

    ``language``: a model that may word answers anew; None, as usual, for none. ``openid``: who else may say who
    somebody is. ``receiver``: the DICOM receiver beside it, where one runs.
    """

    settings: Settings
    root: Path
    database: Database
    blobs: BlobStore
    catalog: Catalog
    bell: Bell
    secure: bool = False
    language: LanguageModel | None = None
    openid: OpenIdConnect | None = None
    receiver: Receiver | None = None

    @property
    def limits(self) -> Limits:
        """What an upload may be."""
        chosen = self.settings.service
        return Limits(chosen.upload_bytes, self.settings.imaging.budget_bytes, chosen.upload_files)

    def close(self) -> None:
        """Close the database and the queue."""
        self.bell.close()
        self.database.close()


def database_url(settings: Settings) -> str:
    """The URL of the database: as set, or SQLite in the root."""
    return settings.service.database_url or f"sqlite:///{settings.service.root.resolve() / 'wetread.db'}"


def open_service(
    settings: Settings,
    *,
    secure: bool = False,
    language: LanguageModel | None = None,
    openid: OpenIdConnect | None = None,
) -> Service:
    """Open an installation; its folder and tables are made or brought up to date.

    Raises:
        PeerUnreachable: the database does not answer.
        UsageError: no such kind of database.
    """
    root = settings.service.root.resolve()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(database_url(settings))
    migrate(database)
    chosen = settings.service
    rules = {name for rule in settings.node.rules for name in (rule.reader, rule.segmenter) if name}
    catalog = Catalog((settings.paths.readers,), (chosen.reader, chosen.segmenter), tuple(sorted(rules)))
    with start_lock(database):
        bell = Bell(database, root)  # its tables are made once, too
    return Service(settings, root, database, BlobStore(root), catalog, bell, secure, language, openid)
