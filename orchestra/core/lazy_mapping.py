"""Mappings whose values are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class LazyMapping(Mapping[str, V]):
    """A mapping of known names. Each value is made once, when it is first read; `in` and iteration make none."""

    def __init__(self, names: Iterable[str], load: Callable[[str], V], values: Mapping[str, V] | None = None) -> None:
        """Creates the mapping.

        Args:
            names: The names, in the order of iteration.
            load: Makes the value of a name.
            values: Values that are known already. Their names are added at the end.
        """
        self._load = load
        self.loaded = dict(values or {})
        """The values so far. A caller that reads often looks here first, because this needs no call of Python code."""
        self._names = dict.fromkeys((*names, *self.loaded))

    def extend(self, values: Mapping[str, V]) -> LazyMapping[V]:
        """Returns a mapping with further values, which replace those of equal names."""
        return LazyMapping(self._names, self._load, {**self.loaded, **values})

    def __getitem__(self, name: str) -> V:
        if name not in self.loaded:
            if name not in self._names:
                raise KeyError(name)
            self.loaded[name] = self._load(name)
        return self.loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
