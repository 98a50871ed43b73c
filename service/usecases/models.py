"""List the bundles that serve, and the embedding spaces of stored banks."""

from offkey.schemas import Model, ModelList
from service.usecases.service import Call


def list_models(call: Call) -> ModelList:
    """The bundles that serve, and what else banks are made of."""
    stored = {one.embedding_space_id: one for one in call.store.reembedding.spaces()}
    serving = {encoder.embedding_space_id: encoder for encoder in call.service.encoders}
    models = []
    for space in [*serving, *(other for other in stored if other not in serving)]:
        banks, encoder = stored.get(space), serving.get(space)
        models.append(
            Model(
                bundle=None if encoder is None else encoder.name,
                embedding_space_id=space,
                serves=encoder is not None,
                current=space == call.service.encoders.current.embedding_space_id,
                machines=0 if banks is None else banks.machines,
                clips=0 if banks is None else banks.clips,
                clips_without_audio=0 if banks is None else banks.clips_without_audio,
            )
        )
    return ModelList(models=models)
