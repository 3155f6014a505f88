"""What is secret comes from a file of its own, and appears nowhere else.

Owns how such a file is read. Refuses to know what the secret opens.
"""

from pathlib import Path

TOKEN_MAX_BYTES = 8192


def secret_of(path: Path, key: str) -> str:
    """The secret in a file, read anew for each request, so that it can be rotated. Raises ValueError in words.

    The cause is not chained: a decoding error would carry the file's bytes into a traceback.
    """
    expected = "a readable file with one token in it"
    try:
        with path.open("rb") as file:
            raw = file.read(TOKEN_MAX_BYTES + 1)
        secret = raw.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {key} {path}: {type(error).__name__}: expected {expected}") from None
    if not secret or len(raw) > TOKEN_MAX_BYTES or not secret.isprintable() or " " in secret:
        raise ValueError(f"cannot use {key} {path}: expected {expected}")
    return secret
