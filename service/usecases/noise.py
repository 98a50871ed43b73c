"""The background of a machine: what its place sounds like while it stands still."""

from collections.abc import Sequence

from offkey.schemas import NoiseClip, NoiseEnrollment, NoiseList
from service.encoder.encoder import Encoder
from service.store.noise import NewNoise, NoiseRecord
from service.telemetry.stages import Stage
from service.usecases.clip import Clip, embed_clip
from service.usecases.service import Context


def add_noise(context: Context, machine_id: str, uploads: Sequence[Clip]) -> NoiseEnrollment:
    """Decode, embed, keep. If one clip cannot be used, none is kept.

    Raises:
        OffkeyError: the machine is unknown, has too much noise already, or a clip is not usable.
    """
    record = context.store.machine(machine_id)
    encoder = context.encoders.of(record.embedding_space_id)
    clips = [_embed(context, encoder, upload) for upload in uploads]
    with context.stages.during(Stage.STORE):
        added = context.store.noise.add(record.machine_key, encoder.embedding_space_id, clips)
    return NoiseEnrollment(
        machine_id=machine_id,
        added=sum(not known for _, known in added),
        noise=[_noise(one) for one, _ in added],
    )


def list_noise(context: Context, machine_id: str) -> NoiseList:
    """What is kept. Raises `OffkeyError` (unknown machine)."""
    record = context.store.machine(machine_id)
    return NoiseList(noise=[_noise(one) for one in context.store.noise.list(record.machine_key)])


def delete_noise(context: Context, machine_id: str, noise_id: int) -> None:
    """Forget one. Raises `OffkeyError` (unknown machine or clip)."""
    context.store.noise.delete(context.store.machine(machine_id).machine_key, noise_id)


def _embed(context: Context, encoder: Encoder, upload: Clip) -> NewNoise:
    clip = embed_clip(context, encoder, upload)
    return NewNoise(
        upload.sha256,
        upload.name,
        clip.waveform.seconds,
        clip.vectors,
        upload.data if context.settings.keep_audio else None,
    )


def _noise(record: NoiseRecord) -> NoiseClip:
    return NoiseClip.model_validate(record)
