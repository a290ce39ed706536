"""The one exception of the data loaders."""

from __future__ import annotations

import os


class DatasetError(ValueError):
    """A data file cannot be used.  The message names the file and the reason.

    Parameters
    ----------
    path : str or path-like
        The file, or the folder, that was looked at.
    reason : str
        What is wrong with it, and where there is one, the way out.

    Attributes
    ----------
    path, reason
        The two parameters.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        # Both go to ValueError as well: pickling an exception calls it again with its `args`.
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{os.fspath(self.path)}: {self.reason}"
