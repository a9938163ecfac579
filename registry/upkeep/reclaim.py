"""What a collection says and may do: graces, one line for each thing it takes a step further, and the step itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

Act = Literal["unlink", "link", "condemn", "delete", "close", "forget", "sweep", "keep", "skip"]
"""`keep`: planned, and then found in use. `skip`: left alone, and somebody should look."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Graces:
    """How long a thing rests before the next step. Whatever they are, nothing that is in use goes."""

    log: timedelta = timedelta(days=30)
    """What a ref pointed to within this time counts as pointed to."""
    link: timedelta = timedelta(days=14)
    """Since a link without root was made, or its object last asked for."""
    repo: timedelta = timedelta(days=14)
    """Since a repo was deleted."""
    object: timedelta = timedelta(days=7)
    """Since an object lost its last link."""
    trash: timedelta = timedelta(days=14)
    """Since an object was condemned."""
    pack: timedelta = timedelta(days=1)
    """Since a pack was condemned: the longest request."""
    key: timedelta = timedelta(days=7)
    """Since bytes were written that no row names."""
    upload: timedelta = timedelta(days=1)
    """Since an upload expired."""
    parts: timedelta = timedelta(days=8)
    """Since an unfinished write was touched."""
    row: timedelta = timedelta(days=30)
    """Since an upload began that is done or failed."""
    run: timedelta = timedelta(days=90)
    """Since a run that can be looked at."""
    xorb: timedelta = timedelta(days=1)
    """Since a xorb was condemned; the promise before it is of 28 days."""
    claim: timedelta = timedelta(hours=1)
    """Since a collection that died began to delete something."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing and what becomes of it: bytes, why, and what comes next if nothing changes."""

    act: Act
    kind: str
    subject: str
    size: int
    why: str
    then: str = ""

    def line(self) -> str:
        """Say it in one line."""
        said = f"{self.act:8}{human(self.size):>11}  {self.kind} {self.subject}: {self.why}"
        return f"{said}; {self.then}" if self.then else said

    def fields(self) -> dict[str, object]:
        """Say it by name."""
        return asdict(self)

    def kept(self, why: str) -> Line:
        """Say of a planned line that it was not done."""
        return replace(self, act="keep", why=why, then="")


@dataclass(frozen=True, slots=True)
class Step:
    """Some lines of the plan that are done together. `do` takes the run's id and gives the lines as they came true."""

    lines: tuple[Line, ...]
    do: Callable[[int], Sequence[Line]]


def human(size: int) -> str:
    """Write a number of bytes for people: three figures or so and a unit."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def day(moment: datetime) -> str:
    """Write a moment for people."""
    return f"{moment:%Y-%m-%d %H:%M}"


def came_true(lines: Sequence[Line], done: set[str], why: str) -> list[Line]:
    """Give planned lines as they are if their subject was done, else as kept."""
    return [line if line.subject in done else line.kept(why) for line in lines]
