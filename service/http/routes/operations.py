"""What operators and their tools ask: probes, limits, metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST

from offkey.schemas import MAX_DESCRIPTION_CHARACTERS, Health, Info
from service import __version__
from service.audio.decode import FORMATS
from service.audio.processes import OVERHEAD_BYTES
from service.http.auth import SCORE, AuthenticatedRoute
from service.http.clip_form import FORM_LIMITS
from service.http.dependencies import MAX_PAGE_ENTRIES, ContextOf, LightPool, ServiceOf, problems
from service.store.audit import MAX_AUDIT_ENTRIES
from service.store.noise import MAX_NOISE_WINDOWS
from service.store.scores import RECENT_SCORES
from service.telemetry.metrics import MAX_DRIFT_MACHINES

open_router = APIRouter(tags=["operations"])  # asks for no key: the probes, and the way to the pages
router = APIRouter(tags=["operations"], route_class=AuthenticatedRoute, dependencies=[SCORE])

_FIXED_LIMITS = {
    "max_decoder_bytes": OVERHEAD_BYTES,
    "max_page_entries": MAX_PAGE_ENTRIES,
    "max_description_characters": MAX_DESCRIPTION_CHARACTERS,
    "max_audit_entries": MAX_AUDIT_ENTRIES,
    "max_recent_scores": RECENT_SCORES,
    "max_drift_machines": MAX_DRIFT_MACHINES,
    "max_noise_windows": MAX_NOISE_WINDOWS,
}


@open_router.get("/", include_in_schema=False)
async def index() -> RedirectResponse:
    """Who types the address into a browser gets the API's pages."""
    return RedirectResponse("/docs")


@open_router.head("/livez", include_in_schema=False)
@open_router.get("/livez")
async def livez() -> Health:
    """Whether the process answers. If not, restart it."""
    return Health()


@open_router.head("/readyz", include_in_schema=False)
@open_router.get("/readyz", responses=problems(503))
async def readyz(context: ServiceOf, light_pool: LightPool) -> Health:
    """Whether requests can be served: the model is loaded (or nothing answers) and the store can be read."""
    await light_pool.run(context.store.ping)
    return Health()


@router.get("/info")
async def info(context: ContextOf) -> Info:
    """What runs here, and every limit."""
    encoder, old = context.encoders.current, context.encoders.old
    manifest = encoder.manifest
    return Info(
        version=__version__,
        bundle=encoder.name,
        old_bundle=None if old is None else old.name,
        embedding_space_id=manifest.embedding_space_id,
        sample_rate=manifest.input.sample_rate,
        window_seconds=manifest.window.seconds,
        hop_seconds=manifest.window.hop_seconds,
        min_clip_seconds=manifest.window.min_seconds,
        device=context.settings.device.value,
        provider=encoder.provider,
        backend=context.settings.backend,
        false_alarm_rate=context.settings.false_alarm_rate,
        formats=sorted(FORMATS),
        limits={
            **context.settings.limits(),
            "workers": context.workers,
            **context.audio_limits.fixed(),
            **FORM_LIMITS,
            **_FIXED_LIMITS,
        },
    )


@router.get("/metrics", response_class=Response)
async def metrics(context: ContextOf, light_pool: LightPool) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(await light_pool.run(context.metrics.exposition), media_type=CONTENT_TYPE_LATEST)
