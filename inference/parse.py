"""Text as it grows → what may be shown: cut at stop strings, nothing shown that could still become one."""

from __future__ import annotations

from collections.abc import Sequence


class Cutter:
    """Holds back the longest end of the text that could begin a stop string; cuts where the first one is complete.

    What `feed` and `rest` give is together the same text, however it was cut into pieces.
    """

    def __init__(self, stops: Sequence[str] = ()):
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        """True once a stop string was found; what comes later is ignored."""

    def feed(self, piece: str) -> str:
        """Take a piece of text and give what is certain to be shown."""
        if self.stopped:
            return ""
        text = self._held + piece
        if not self._stops:
            return text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        certain = len(text) - self._begun(text)
        self._held = text[certain:]
        return text[:certain]

    def rest(self) -> str:
        """Give what was held back, when the text ends and no stop string came of it."""
        text, self._held = self._held, ""
        return text

    def _begun(self, text: str) -> int:
        """Say how many characters at the end could begin a stop string."""
        longest = min(len(text), max(len(stop) for stop in self._stops) - 1)
        for size in range(longest, 0, -1):
            tail = text[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0
