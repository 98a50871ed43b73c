"""The encoders that serve: the one that new banks are made with, and the one that made those not yet moved to it."""

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
    """One encoder, or two while banks move from one to the other."""

    current: Encoder
    old: Encoder | None = None

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Load the bundles that the settings name. Raises as `Encoder` does."""
        current = _encoder(settings.bundle, settings, "current")
        return cls(current, None if settings.old_bundle is None else _encoder(settings.old_bundle, settings, "old"))

    def __iter__(self) -> Iterator[Encoder]:
        yield self.current
        if self.old is not None:
            yield self.old

    def of(self, embedding_space_id: str | None) -> Encoder:
        """The encoder of a bank, by the space of its embeddings; None: it is empty, and any will do.

        Raises:
            OffkeyError: no bundle at hand made it.
        """
        for encoder in self:
            if embedding_space_id in (None, encoder.embedding_space_id):
                return encoder
        raise OffkeyError(
            ErrorKind.EMBEDDING_SPACE_MISMATCH,
            f"The bank was made by {embedding_space_id}, the service runs "
            f"{' and '.join(encoder.embedding_space_id for encoder in self)}; their distances mean nothing to each "
            "other. Serve the bundle that made it as OFFKEY_OLD_BUNDLE, or move the bank to the new one: offkey "
            "reembed.",
            bank=str(embedding_space_id),
            service=self.current.embedding_space_id,
        )


def _encoder(bundle: Path, settings: Settings, role: str) -> Encoder:
    kept = settings.data_dir / "runtime"
    thread_counts: ThreadCounts | Path = kept / f"threads-{role}.json"
    if settings.run_threads is not None:
        thread_counts = ThreadCounts(settings.run_threads, settings.run_threads)
    return Encoder(bundle, settings.device, thread_counts=thread_counts, engines=kept / "tensorrt")
