"""Results of rows in one file of JSON lines, which outlives the folders in which artifacts and checkpoints lie."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.rows import Row, is_result_of, read_result

__all__ = ["Ledger"]


class Ledger:
    """The results of finished rows by name, a line each, in the order of names.

    Raises
    ------
    PruningError
        If a line of the file is no result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, dict[str, Any]] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise PruningError(f"The ledger '{path}' cannot be read: {error}") from None
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                result = json.loads(line)
                self._results[result["row"]] = result
            except (json.JSONDecodeError, KeyError, TypeError):
                raise PruningError(
                    f"Line {number} of the ledger '{path}' is no result of a row; delete it, or name another file"
                ) from None

    def read(self, row: Row) -> dict[str, Any] | None:
        """Return the result of a row, None where there is none of this very recipe."""
        result = self._results.get(row.name)
        return result if is_result_of(result, row) else None

    def take(self, rows: Iterable[Row], folder: Path) -> None:
        """Enter the results of the rows that are finished in ``folder`` and write the file."""
        found = {row.name: result for row in rows if (result := read_result(row, folder)) is not None}
        if found:
            self._results |= found
            lines = [json.dumps(self._results[name], sort_keys=True) + "\n" for name in sorted(self._results)]
            replace_bytes(self._path, "".join(lines).encode())
