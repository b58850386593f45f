"""Names of folders that are not there: what was meant, and what nobody can mean as a name on the hub."""

from __future__ import annotations

from pathlib import Path

from vtp.registry import did_you_mean

__all__ = ["is_path", "near"]


def is_path(name: str) -> bool:
    """Whether a name is of a folder even if there is none: ``./x``, ``~/x``, ``/x``, ``x/``, ``a/b/c`` or
    ``outputs/x``, where runs are. What else has a slash may be ``organisation/name`` of the hub."""
    return name.startswith((".", "/", "~", "outputs/")) or name.endswith("/") or name.count("/") > 1


def near(name: str) -> str:
    """``" Did you mean 'index'?"`` for ``outputs/indx``: what lies beside the first part of it that is not there, if
    something there has a name that is close."""
    path = Path(name).expanduser()
    if path.exists():
        return ""
    missing = next((part for part in (*reversed(path.parents), path) if not part.exists()), path)
    try:
        return did_you_mean(missing.name, (entry.name for entry in missing.parent.iterdir()))
    except OSError:
        return ""
