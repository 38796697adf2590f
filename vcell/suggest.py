"""Suggest the word a user may have meant. Standard library only, loaded by every command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like `word`, if one does."""
    import difflib  # 3 ms, and only needed after a mistake

    by_folded = {name.casefold(): name for name in known}
    hits = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[hits[0]] if hits else None


def few(names: Sequence[str], most: int = 8) -> str:
    """List names briefly: the first ones, and the number of others."""
    shown = (name.replace("\n", " ") for name in names[:most])
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean X?)``, or "" if no known word is similar."""
    near = closest(word, known)
    return "" if near is None else f" (did you mean {near}?)"
