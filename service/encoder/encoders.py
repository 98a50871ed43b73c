"""Served encoders: the current one, and the old one of banks that are not yet re-embedded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from offkey.errors import ErrorKind, OffkeyError
from service.encoder.encoder import Encoder
from service.encoder.threads import ThreadCounts
from service.settings import Settings


@dataclass(frozen=True)
class Encoders:
    """One encoder, or two while banks are re-embedded."""

    current: Encoder
    old: Encoder | None = None

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Load the bundles of the settings. Raises as `Encoder` does."""
        current = _encoder(settings.bundle, settings, "current")
        return cls(current, None if settings.old_bundle is None else _encoder(settings.old_bundle, settings, "old"))

    def __iter__(self) -> Iterator[Encoder]:
        yield self.current
        if self.old is not None:
            yield self.old

    def of(self, embedding_space_id: str | None) -> Encoder:
        """Return the encoder of an embedding space, or the current one for None (an empty bank).

        Raises:
            OffkeyError: no served bundle has this embedding space.
        """
        for encoder in self:
            if embedding_space_id in (None, encoder.embedding_space_id):
                return encoder
        raise OffkeyError(
            ErrorKind.EMBEDDING_SPACE_MISMATCH,
            f"The bank was embedded by {embedding_space_id}, the service runs "
            f"{' and '.join(encoder.embedding_space_id for encoder in self)}; their embeddings cannot be compared. "
            "Serve the bank's bundle as OFFKEY_OLD_BUNDLE, or move the bank to the new one: offkey reembed.",
            bank=str(embedding_space_id),
            service=self.current.embedding_space_id,
        )


def _encoder(bundle: Path, settings: Settings, role: str) -> Encoder:
    runtime = settings.data_dir / "runtime"
    thread_counts: ThreadCounts | Path = runtime / f"threads-{role}.json"
    if threads := settings.limits.run_threads:
        thread_counts = ThreadCounts(threads, threads)
    return Encoder(bundle, settings.device, thread_counts=thread_counts, engines=runtime / "tensorrt")
