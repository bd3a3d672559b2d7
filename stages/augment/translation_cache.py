"""Translations that were made already, in one SQLite file: dear to make, cheap to keep."""

import sqlite3
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from stages.common.errors import AttuneError


class TranslationCache:
    """What one model with one set of settings made of texts; the file holds hashes of the texts, not the texts."""

    def __init__(self, folder: Path, model: str) -> None:
        """Open or make the file in `folder`; `model` names all that a translation depends on besides the text.

        Raises:
            AttuneError: if the file is damaged.
        """
        file = folder / "translations.sqlite"
        self._model = model
        self._database = sqlite3.connect(file)
        try:
            self._database.execute("CREATE TABLE IF NOT EXISTS made (key TEXT PRIMARY KEY, translation TEXT)")
        except sqlite3.DatabaseError as error:
            raise AttuneError(f"{file} is damaged ({error})", "delete it: the texts are translated again") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def get(self, texts: Iterable[str]) -> dict[str, str | None]:
        """Return what is known of these texts; None is known, too: it cannot be translated."""
        known = {}
        for text in texts:
            row = self._database.execute("SELECT translation FROM made WHERE key = ?", [self._key(text)]).fetchone()
            if row:
                known[text] = row[0]
        return known

    def put(self, translations: Mapping[str, str | None]) -> None:
        """Keep translations; they are on disk when this returns."""
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO made VALUES (?, ?)",
                [(self._key(text), translation) for text, translation in translations.items()],
            )

    def _key(self, text: str) -> str:
        return sha256(f"{self._model}\n{text}".encode()).hexdigest()
