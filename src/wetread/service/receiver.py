"""The DICOM receiver beside the server: started and watched like the worker, asked how it stands.

Decided here: it is a process of its own, because it speaks with whoever is in the network and waits for disks, which
must neither stop the server nor wait for it; what it has acknowledged lies in its own folder, so that both may end at
any time.
"""

from __future__ import annotations

from wetread.pacs.node import require_remotes
from wetread.pacs.standing import Standing, standing_of
from wetread.service.catalog import Catalog
from wetread.service.companion import Companion
from wetread.settings import Settings

__all__ = ["Receiver"]


class Receiver(Companion):
    """A process that receives studies and puts them into the worklist, as the settings of ``node`` say.

    Raises:
        UsageError: settings that do not fit each other.
        Problem: a rule with a reader or segmenter that is not there: told now, not when the first study comes.
    """

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        require_remotes(settings.node)
        for rule in settings.node.rules:
            catalog.reader(rule.reader)
            if rule.segmenter:
                catalog.segmenter(rule.segmenter)
        super().__init__("receiver", settings)
        self._settings = settings.node

    def words(self) -> list[str]:
        """Studies go into the worklist; it ends with the server."""
        return ["node", "--service", "--with-parent"]

    def standing(self) -> Standing:
        """How it stands."""
        return standing_of(self._settings)
