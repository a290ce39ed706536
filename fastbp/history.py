"""The record of a training: what ``fit`` returns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._arrays import positive_int
from ._files import open_regular, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History"]

# Of a file that is read: three million steps, each with all digits of its loss.
MAX_BYTES = 1 << 26
# Lists, mappings and texts in it, the costly part of JSON; a record has some dozens.
MAX_MARKS = 100_000


@dataclass
class History:
    """Losses of all steps, and accuracies at the start, after each epoch and at the end.

    ``len(history)`` is the number of steps; ``str(history)`` the outcome in a line.

    Attributes
    ----------
    train_loss_list : list of float
        Loss of each step's batch before the update, in nats, weight decay included.
    steps : list of int
        Number of steps done at each measurement; the lists below have an element for each.
    train_acc_list : list of float
        Accuracy on the training data, in [0, 1].
    test_acc_list, test_loss_list : list of float
        On the validation data; empty without any.
    times : list of float
        Seconds since ``fit`` began.
    examples_per_second : list of float
        Training speed since the measurement before, evaluation not counted; 0 at the start.
    settings : dict
        What was trained, and how.
    """

    train_loss_list: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    train_acc_list: list[float] = field(default_factory=list)
    test_acc_list: list[float] = field(default_factory=list)
    test_loss_list: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    examples_per_second: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.train_loss_list)

    def __str__(self) -> str:
        parts = [f"{len(self):,} steps"]
        if self.times:
            parts.append(f"{self.times[-1]:.2f} s")
        if self.train_loss_list:
            parts.append(f"loss {self.train_loss_list[-1]:.4f}")
        if self.train_acc_list:
            parts.append(f"training accuracy {self.train_acc_list[-1]:.4f}")
        if self.test_acc_list:
            parts.append(f"test accuracy {self.test_acc_list[-1]:.4f}")
        return ", ".join(parts)

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain lists, numbers and strings.

        Returns
        -------
        dict
        """
        return asdict(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the record as JSON, whole or not at all.

        Parameters
        ----------
        path : path-like
            An existing file is replaced.

        Raises
        ------
        OSError
            As the operating system says.
        """
        text = json.dumps(self.to_dict())
        write_atomically(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | PathLike[str], *, max_bytes: int = MAX_BYTES) -> History:
        """Read a record that ``save`` wrote.

        Parameters
        ----------
        path : path-like
            A regular file.
        max_bytes : int, default 64 MiB
            A larger file is refused before it is read further: from a stranger it might fill the
            memory.  The default is enough for some three million steps.

        Returns
        -------
        History

        Raises
        ------
        OSError
            When the file cannot be read.
        ValueError
            When it is no such record, or a larger one; the message has the path.
        TypeError, ValueError
            For a ``max_bytes`` that is no positive number.
        """
        max_bytes = positive_int("History.load", "max_bytes", max_bytes)
        try:
            record = cls(**json.loads(_read(Path(path), max_bytes)))
            record._require_types()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a training history ({error})") from error
        return record

    def _require_types(self) -> None:
        if not isinstance(self.settings, dict):
            raise TypeError("settings are no mapping")
        for name, values in vars(self).items():
            if name == "settings":
                continue
            kinds = (int,) if name == "steps" else (int, float)
            # JSON has integers that no float can hold.
            if not isinstance(values, list) or not all(
                type(v) in kinds and (type(v) is float or abs(v) < 2**63) for v in values
            ):
                raise TypeError(f"{name} is no list of numbers")

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw the loss of every step and the accuracies; needs the extra ``plot``.

        Parameters
        ----------
        path : path-like, optional
            Also write the picture there, in the format its ending names.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib: ``pip install 'fastbp[plot]'``.
        OSError
            When the picture cannot be written.
        """
        from .plot import curves, write_figure

        figure = curves(self)
        if path is not None:
            write_figure(figure, path)
        return figure


def _read(path: Path, max_bytes: int) -> str:
    """Return the text of a record's file."""
    content = bytearray()
    with open_regular(path) as (file, _):
        while piece := file.read(max_bytes + 1 - len(content)):
            content += piece
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes} bytes; max_bytes= allows more")
    if sum(map(content.count, (b"[", b"{", b'"'))) > MAX_MARKS:
        raise ValueError("it has more lists, mappings and texts than a record")
    return content.decode()
