"""Errors of a single file."""

from __future__ import annotations

from orchestra.core.errors import InputError


class DocumentError(InputError):
    """A file that cannot be read as a document. The others of a request are read nevertheless."""


def missing_package(package: str, kind: str) -> DocumentError:
    """Returns the error for a format whose library is not installed."""
    return DocumentError(
        "D002", f"reading {kind} needs the package {package}", hint="pip install 'orchestra-slm[office]'"
    )


def damaged_file(source: str, kind: str, reason: object = "") -> DocumentError:
    """Returns the error for a file that is not what its name says, or that is broken."""
    text = " ".join(str(reason).split())[:120]
    return DocumentError(
        "D003",
        f"{source} is not a readable {kind} file" + (f": {text}" if text else ""),
        hint="open it in the program that wrote it, and save it again",
    )
