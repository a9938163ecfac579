"""What a check found wrong: one line, or one line of JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which check found it, of what kind the thing is, which one, and what to do."""

    check: str
    kind: str
    subject: str
    text: str

    def line(self) -> str:
        """Say it in one line."""
        return f"{self.check}: {self.kind} {self.subject}: {self.text}"

    def fields(self) -> dict[str, str]:
        """Say it by name."""
        return asdict(self)
