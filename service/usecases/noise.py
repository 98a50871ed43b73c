"""Store the background noise of a machine: how its place sounds while it stands still."""

from collections.abc import Sequence

from offkey.schemas import NoiseClip, NoiseEnrollment, NoiseList
from service.encoder.encoder import Encoder
from service.store.noise import NewNoise
from service.telemetry.stages import Stage
from service.usecases.clip import Clip, embed_clip
from service.usecases.service import Call


def add_noise(call: Call, machine_id: str, clips: Sequence[Clip]) -> NoiseEnrollment:
    """Decode, embed and store noise clips. If one clip cannot be used, none is stored.

    Raises:
        OffkeyError: the machine is unknown or has too much noise, or a clip cannot be used.
    """
    record = call.store.machine(machine_id)
    encoder = call.service.encoders.of(record.embedding_space_id)
    new = [_embed(call, encoder, clip) for clip in clips]
    with call.stages.during(Stage.STORE), call.store.begin(record) as tx:
        added = tx.add_noise(encoder.embedding_space_id, new)
    return NoiseEnrollment(
        machine_id=machine_id,
        added=sum(not known for _, known in added),
        noise=[NoiseClip.model_validate(one) for one, _ in added],
    )


def list_noise(call: Call, machine_id: str) -> NoiseList:
    """Return the noise clips of a machine. Raises `OffkeyError` (unknown machine)."""
    record = call.store.machine(machine_id)
    return NoiseList(noise=[NoiseClip.model_validate(one) for one in call.store.noise.list(record.machine_key)])


def delete_noise(call: Call, machine_id: str, noise_id: int) -> None:
    """Delete a noise clip. Raises `OffkeyError` (unknown machine or clip)."""
    with call.store.begin(machine_id) as tx:
        tx.delete_noise(noise_id)


def _embed(call: Call, encoder: Encoder, clip: Clip) -> NewNoise:
    embedded = embed_clip(call, encoder, clip)
    audio = clip.data if call.service.settings.keep_audio else None
    return NewNoise(clip.sha256, clip.name, embedded.seconds, embedded.vectors, audio)
