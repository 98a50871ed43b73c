"""`/keys` and `/audit`: permissions, and the record of changes."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from offkey.schemas import AuditList, KeyList, KeySettings, NewKey
from offkey.vocabulary import KEY_ID_PATTERN
from service.http.auth import ADMIN, AuthenticatedRoute
from service.http.dependencies import MAX_KEY, CallOf, PageSize, problems
from service.usecases import keys as usecase

router = APIRouter(tags=["access"], route_class=AuthenticatedRoute, dependencies=[ADMIN])


@router.post("/keys", status_code=status.HTTP_201_CREATED, responses=problems(413, 422, 507))
async def create_key(call: CallOf, settings: KeySettings) -> NewKey:
    """Create a key. Only this answer has its secret; the service stores a hash."""
    return await call.service.admission.work_pool.run(usecase.create_key, call.store, settings)


@router.get("/keys", responses=problems(422))
async def list_keys(
    call: CallOf,
    after: Annotated[str, Query(max_length=12, description="key id after which the page begins")] = "",
    limit: PageSize = 100,
) -> KeyList:
    """List keys by id, without their secrets. Revoked keys are included."""
    return await call.service.admission.light_pool.run(usecase.list_keys, call.store, after, limit)


@router.delete("/keys/{key_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404, 422, 507))
async def revoke_key(call: CallOf, key_id: Annotated[str, Path(pattern=KEY_ID_PATTERN)]) -> None:
    """Revoke a key: it is refused from the next request on."""
    await call.service.admission.work_pool.run(usecase.revoke_key, call.store, key_id)


@router.get("/audit", responses=problems(422))
async def list_audit(
    call: CallOf,
    before: Annotated[int, Query(ge=1, le=MAX_KEY, description="entry id at which the page ends")] = MAX_KEY,
    limit: PageSize = 100,
) -> AuditList:
    """List changes and their authors, newest first."""
    return await call.service.admission.light_pool.run(usecase.list_audit, call.store, before, limit)
