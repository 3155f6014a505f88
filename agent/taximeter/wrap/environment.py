"""An environment that no dict can hold: a name is there twice, and keeps its places, or begins with `=`.

Loaded only for one. Owns what posix_spawn asks of a mapping. Refuses to know what any variable means.
"""


class Environment:
    """Names and values as posix_spawn reads them.

    An entry without a name or without `=` cannot be told to Python's posix_spawn, and is left out: getenv finds none.
    """

    def __init__(self, entries: list[bytes], changes: dict[str, str | None]) -> None:
        """`changes` are set at the end, or taken away where they are None."""
        changed = {name.encode() for name in changes}
        self._names: list[bytes] = []
        self._values: list[bytes] = []
        for entry in entries:
            name, equals, value = entry.partition(b"=")
            if not name:  # the first character is of the name in any case
                name, equals, value = entry[1:].partition(b"=")
                name = b"=" + name
            if equals and name not in changed:
                self._names.append(name)
                self._values.append(value)
        for key, text in changes.items():
            if text is not None:
                self._names.append(key.encode())
                self._values.append(text.encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: bytes) -> bytes:
        return self._values[self._names.index(name)]

    def keys(self) -> list[bytes]:
        """Names, in order."""
        return self._names

    def values(self) -> list[bytes]:
        """Values, in the same order."""
        return self._values
