"""Probes, `/info` and `/metrics`."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST

from offkey.schemas import MAX_DESCRIPTION_CHARACTERS, Health, Info
from service import __version__
from service.audio.decode import FORMATS
from service.audio.processes import OVERHEAD_BYTES
from service.http.auth import SCORE, AuthenticatedRoute
from service.http.clip_form import FORM_LIMITS
from service.http.dependencies import MAX_PAGE_ENTRIES, CallOf, ServiceOf, problems
from service.store.audit import MAX_AUDIT_ENTRIES
from service.store.noise import MAX_NOISE_WINDOWS
from service.store.scores import RECENT_SCORES
from service.telemetry.metrics import MAX_DRIFT_MACHINES

open_router = APIRouter(tags=["operations"])  # needs no key
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
    """Redirect a browser to the API pages."""
    return RedirectResponse("/docs")


@open_router.head("/livez", include_in_schema=False)
@open_router.get("/livez")
async def livez() -> Health:
    """Report that the process answers. Restart it if it does not."""
    return Health()


@open_router.head("/readyz", include_in_schema=False)
@open_router.get("/readyz", responses=problems(503))
async def readyz(service: ServiceOf) -> Health:
    """Report whether requests can be served: the model is loaded and the store can be read."""
    await service.admission.light_pool.run(service.store.ping)
    return Health()


@router.get("/info")
async def info(call: CallOf) -> Info:
    """Show the version, the model and every limit."""
    encoder, old = call.service.encoders.current, call.service.encoders.old
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
        device=call.service.settings.device.value,
        provider=encoder.provider,
        backend=call.service.settings.backend,
        false_alarm_rate=call.service.settings.false_alarm_rate,
        formats=sorted(FORMATS),
        limits={
            **call.service.settings.reported_limits(),
            "workers": call.service.workers,
            **call.service.audio_limits.fixed(),
            **FORM_LIMITS,
            **_FIXED_LIMITS,
        },
    )


@router.get("/metrics", response_class=Response)
async def metrics(call: CallOf) -> Response:
    """Return the metrics in the Prometheus text format."""
    return Response(
        await call.service.admission.light_pool.run(call.service.metrics.exposition), media_type=CONTENT_TYPE_LATEST
    )
