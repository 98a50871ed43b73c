"""What is known to be stored, and was not read."""

from collections.abc import Collection, Iterator, Mapping
from typing import Never


class Unread(Mapping[int, Never]):
    """The keys alone: enough to tell one bank from another, and nothing can be learned from it by mistake."""

    def __init__(self, keys: Collection[int]) -> None:
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, key: int) -> Never:
        """Raise RuntimeError, always."""
        raise RuntimeError(f"what is stored of {key} was not read")
