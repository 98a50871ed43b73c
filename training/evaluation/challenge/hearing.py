"""Clips of a tree embedded by bundles, each once: what was heard is kept by content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, decode
from training.data.channels import UnreadableError, read_clip
from training.evaluation.cells import Cells
from training.evaluation.threads import in_threads
from training.evaluation.tree import JudgedClip
from training.evaluation.views import BundleView, Embedded

_VERSION = 1  # of how a clip is heard: what is kept on disk is of one version


@dataclass(frozen=True)
class Hearing:
    """Embeds clips as the service does, and has them at hand afterwards."""

    views: Mapping[str, BundleView]
    channel: int | None  # None: the mean of all, as the service hears
    cells: Cells

    def embed(self, clips: Sequence[JudgedClip], workers: int, progress: Progress) -> dict[Path, str]:
        """Embed what is not there yet, clip by clip. Whoever ends the process loses the clips in work, no others.

        Args:
            clips: to be heard.
            workers: threads, each with one CPU thread of the model runtime; 0 is one per core.
            progress: where to draw it.

        Returns:
            The clips that one of the bundles could not hear, with the reason.
        """
        task = progress.add_task("hearing clips", total=len(clips))
        refused = {}
        for clip, reason in in_threads(self._hear, clips, workers):
            progress.advance(task)
            if reason is not None:
                refused[clip.path] = reason
        return refused

    def embedded(self, name: str, clips: Sequence[JudgedClip]) -> Embedded:
        """Windows of clips that `hear` has embedded. Raises `DataError` if what is kept is damaged."""
        view = self.views[name]
        return Embedded.join(self.cells.load(_key(view), self._sound(clip)).vectors for clip in clips)

    def _hear(self, clip: JudgedClip) -> str | None:
        try:
            missing = [view for view in self.views.values() if not self.cells.has(_key(view), self._sound(clip))]
            if not missing:
                return None
            limits = AudioLimits()
            data = read_clip(clip.path, self.channel, limits)
            for view in missing:
                samples = decode(data, sample_rate=view.encoder.sample_rate, limits=limits).samples
                self.cells.save(_key(view), self._sound(clip), Embedded.join([view.embed(samples)]))
        except OffkeyError as error:
            return error.detail
        except UnreadableError as error:
            return str(error)
        return None

    def _sound(self, clip: JudgedClip) -> str:
        try:
            return f"clip {_VERSION} {clip.sha256} channel {self.channel}"
        except OSError as error:
            raise UnreadableError(f"The file cannot be read ({error.strerror}).") from error


def _key(view: BundleView) -> str:
    """What the windows hang on: the graph, and how it is fed."""
    manifest = view.encoder.manifest
    return f"{view.key} {manifest.input.sample_rate} {manifest.window.model_dump_json()}"
