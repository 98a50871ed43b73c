"""`/keys` and `/audit`: who may do what, and who did what."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from offkey.schemas import AuditList, KeyList, KeySettings, NewKey
from offkey.vocabulary import KEY_ID_PATTERN
from service.http.auth import ADMIN, AuthenticatedRoute
from service.http.dependencies import MAX_KEY, ContextOf, LightPool, PageSize, WorkPoolOf, problems
from service.usecases import keys as usecase

router = APIRouter(tags=["access"], route_class=AuthenticatedRoute, dependencies=[ADMIN])


@router.post("/keys", status_code=status.HTTP_201_CREATED, responses=problems(422, 507))
async def create_key(context: ContextOf, workers: WorkPoolOf, settings: KeySettings) -> NewKey:
    """Make a key. This answer alone has its secret; what is kept is a hash."""
    return await workers.run(usecase.create_key, context.store, settings)


@router.get("/keys", responses=problems(422))
async def list_keys(
    context: ContextOf,
    light_pool: LightPool,
    after: Annotated[str, Query(max_length=12, description="key id behind which the page begins")] = "",
    limit: PageSize = 100,
) -> KeyList:
    """List keys by id, without their secrets, revoked ones too."""
    return await light_pool.run(usecase.list_keys, context.store, after, limit)


@router.delete("/keys/{key_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404, 422, 507))
async def revoke_key(
    context: ContextOf, workers: WorkPoolOf, key_id: Annotated[str, Path(pattern=KEY_ID_PATTERN)]
) -> None:
    """Revoke a key: it opens nothing from the next request on."""
    await workers.run(usecase.revoke_key, context.store, key_id)


@router.get("/audit", responses=problems(422))
async def list_audit(
    context: ContextOf,
    light_pool: LightPool,
    before: Annotated[int, Query(ge=1, le=MAX_KEY, description="entry id before which the page begins")] = MAX_KEY,
    limit: PageSize = 100,
) -> AuditList:
    """List who changed what, the newest first."""
    return await light_pool.run(usecase.list_audit, context.store, before, limit)
