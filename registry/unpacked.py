"""Large files of git, laid out once in the store so that they are sent like any other object.

A pack holds a file compressed, perhaps as a delta; each reader of a range would inflate the whole of it in memory. What
lies under `derived/` may be lost at any time and is made again. The key follows from the content alone, so repos share
it; who may read it is decided by who asks here.
"""

from __future__ import annotations

import threading

from lfs.errors import Missing
from lfs.store import ObjectStore
from registry.git.tree import Entry
from registry.revisions import Resolved, Revisions


class Unpacked:
    """Lays files of git out in the store. Thread-safe; `together` bounds how many are inflated at one moment."""

    def __init__(self, *, revisions: Revisions, store: ObjectStore, together: int = 2) -> None:
        self._revisions = revisions
        self._store = store
        self._slots = threading.BoundedSemaphore(together)

    def key(self, at: Resolved, entry: Entry) -> str:
        """Name the key under which the content of a file lies, making it so if needed.

        Raises: what the store raises.
        """
        key = f"derived/{entry.sha}/blob"
        if self._lies(key, entry):
            return key
        with self._slots:
            if not self._lies(key, entry):
                content = self._revisions.blob(at, entry, entry.git_size)
                self._store.put(key, content, len(content))
        return key

    def _lies(self, key: str, entry: Entry) -> bool:
        try:
            found = self._store.stat(key)
        except Missing:
            return False
        return found.size == entry.git_size
