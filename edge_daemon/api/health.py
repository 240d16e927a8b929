"""Liveness, readiness and metrics of the daemon."""

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from dragon_runtime.answering.metrics import CONTENT_TYPE, PeerMetrics
from edge_daemon.answers import AnswerService


def health_router(answers: AnswerService, metrics: PeerMetrics) -> APIRouter:
    """Routes /healthz, /readyz and /metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process serves requests."""
        return {"status": "alive"}

    @router.get("/readyz", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"description": "Not ready, with reasons."}})
    async def readyz() -> JSONResponse:
        """Ready when the model and the store are; without broker or cloud answers are degraded."""
        found = answers.is_ready()
        checks = {"model": found.model, "store": found.store, "broker": found.broker, "cloud": found.cloud}
        status = "ready" if found.can_mix else "degraded" if found.can_answer else "not_ready"
        body = {
            "status": status,
            "checks": {name: {"ready": check.is_ready, "message": check.message} for name, check in checks.items()},
        }
        return JSONResponse(body, status_code=HTTPStatus.OK if found.can_answer else HTTPStatus.SERVICE_UNAVAILABLE)

    @router.get("/metrics")
    async def scrape() -> Response:
        """Prometheus text."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return router
