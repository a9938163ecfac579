"""Log records → one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

ACCESS = "registry.access"


class JsonLines(logging.Formatter):
    """Writes time, level, room and message; a traceback if there is one. An access line keeps its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage()
        if record.name == ACCESS:
            return f'{{"at": "{at}", {message[1:]}'
        line = {"at": at, "level": record.levelname.lower(), "room": record.name, "message": message}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def to_stderr() -> None:
    """Send our rooms' records from INFO and everybody else's from WARNING to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    for room in ("registry", "lfs"):
        logging.getLogger(room).setLevel(logging.INFO)
