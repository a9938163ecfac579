"""Text as it grows → what may be shown: cut at stop strings, nothing shown that could still become one."""

from __future__ import annotations

from collections.abc import Sequence


class _Stop:
    """One stop string, and how much of it the text's end spells; a character costs constant time on average.

    Source: Knuth, Morris, Pratt, "Fast pattern matching in strings", 1977.
    """

    __slots__ = ("_back", "matched", "text")

    def __init__(self, text: str):
        self.text = text
        self.matched = 0
        self._back = [0] * len(text)
        length = 0
        for at in range(1, len(text)):
            while length and text[at] != text[length]:
                length = self._back[length - 1]
            length += text[at] == text[length]
            self._back[at] = length

    def feed(self, character: str) -> bool:
        """Take a character; True if it completes the stop string."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._back[self.matched - 1]
        self.matched += self.text[self.matched] == character
        return self.matched == len(self.text)


class Cutter:
    """Holds back the longest end of the text that could begin a stop string; cuts where the first one is complete.

    What `feed` and `rest` give is together the same text, however it was cut into pieces.
    """

    def __init__(self, stops: Sequence[str] = ()):
        # The longest first: of several that end at the same character, it begins first.
        self._stops = [_Stop(stop) for stop in sorted(set(stops), key=len, reverse=True) if stop]
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
        for at, character in enumerate(piece, len(self._held) + 1):
            complete = [len(stop.text) for stop in self._stops if stop.feed(character)]
            if complete:
                self.stopped, self._held = True, ""
                return text[: at - complete[0]]
        certain = len(text) - max(stop.matched for stop in self._stops)
        self._held = text[certain:]
        return text[:certain]

    def rest(self) -> str:
        """Give what was held back, when the text ends and no stop string came of it."""
        text, self._held = self._held, ""
        return text
