"""The commands of `dragon-edge` besides `run`: enrol, show the status, check, diagnose, reset."""

import asyncio
import json
import shutil
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from dragon_core.errors import DragonError

if TYPE_CHECKING:
    from edge_daemon.settings import EdgeSettings

Settings = Annotated[Path | None, typer.Option(help="Settings file (YAML); default: DRAGON_CONFIG.")]
DataFolder = Annotated[Path | None, typer.Option(help="Folder for the device's own data.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Result = TypeVar("Result")

STORED = ("store", "documents.sqlite", "documents.sqlite-wal", "documents.sqlite-shm")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (join, status, check, diagnose, reset):
        app.command()(command)


def join(
    token: Annotated[str, typer.Argument(help="The join token; `-` reads it from standard input.")],
    settings: Settings = None,
    data_folder: DataFolder = None,
    broker_host: Annotated[
        str | None,
        typer.Option(help="Broker host, if this device reaches the broker at another one than the token names."),
    ] = None,
    broker_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Broker port, if it differs from the token.")
    ] = None,
    enrolment_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Broker port for enrolment, if it differs from the token.")
    ] = None,
) -> None:
    """Enrol this device: create a key, get a certificate for it, and store the broker's address."""
    from edge_daemon.fleet.joining import Joining

    text = sys.stdin.read() if token == "-" else token  # noqa: S105 - no secret
    folder = _loaded(settings, data_folder, needs_device=False).data_folder
    given = {"broker_host": broker_host, "broker_port": broker_port, "enrolment_port": enrolment_port}
    instead = {name: value for name, value in given.items() if value is not None}
    joining = Joining(data_folder=folder, say=lambda line: typer.echo(f"  {line}", err=True), instead=instead)
    identity = _run(joining.join(text))
    typer.echo(f"enrolled as {identity.membership.device}; start the daemon with `dragon-edge run`")


def status(settings: Settings = None, data_folder: DataFolder = None, as_json: Json = False) -> None:
    """Show the device's identity, its configuration, and whether its daemon answers. Exit code 1 if it does not."""
    from edge_daemon.fleet.checking import status as find_status

    found = _run(find_status(_loaded(settings, data_folder)))
    daemon = found["daemon"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        raise typer.Exit(0 if daemon else 1)
    configuration = found["configuration"]
    typer.echo(f"device       {found['device']} of {found['namespace']}/{found['deployment']}")
    typer.echo(f"broker       {found['broker']}")
    typer.echo(f"certificate  {found.get('identity_problem') or found['certificate_expires'] or 'not enrolled'}")
    wanted = configuration["observed"] or "none from the operator"
    state = configuration["problem"] or ("in use" if configuration["applied"] else "not in use yet")
    typer.echo(f"configured   {wanted}" + (f", {state}" if configuration["observed"] else ""))
    typer.echo(f"daemon       {daemon['status'] if daemon else 'does not answer'}")
    for name, one in (daemon or {}).get("checks", {}).items():
        typer.echo(f"  {name:<10} {'ready' if one['ready'] else 'not ready'}: {one['message']}")
    raise typer.Exit(0 if daemon else 1)


def check(settings: Settings = None, data_folder: DataFolder = None) -> None:
    """Check everything a start needs: settings, model, certificate, broker. Exit code 1 if something is wrong."""
    from edge_daemon.fleet.checking import check as find

    findings = _run(find(_loaded(settings, data_folder)))
    for finding in findings:
        typer.echo(f"{'good ' if finding.is_good else 'WRONG'}  {finding.what:<12} {finding.message}")
    raise typer.Exit(0 if all(finding.is_good for finding in findings) else 1)


def diagnose(settings: Settings = None, data_folder: DataFolder = None) -> None:
    """Print a diagnostic bundle (JSON) for support. It contains no secrets, no documents and no questions."""
    from edge_daemon.fleet.checking import diagnosis

    typer.echo(json.dumps(_run(diagnosis(_loaded(settings, data_folder))), indent=2))


def reset(
    settings: Settings = None,
    data_folder: DataFolder = None,
    documents: Annotated[bool, typer.Option("--documents", help="Also remove the documents.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove the identity and the configuration from the operator. Keep documents, unless --documents, and models."""
    from edge_daemon.fleet.checking import is_running
    from edge_daemon.fleet.twin import FILE
    from edge_daemon.identity import IdentityStore

    loaded = _loaded(settings, data_folder, needs_device=False)
    if _run(is_running(loaded)):
        _fail("the daemon is running: stop it first")
    what = "the identity and all documents" if documents else "the identity"
    if not yes and not typer.confirm(f"Forget {what} in {loaded.data_folder}?"):
        raise typer.Exit(1)
    try:
        had_identity = IdentityStore(loaded.data_folder).forget()
        (loaded.data_folder / FILE).unlink(missing_ok=True)
        for name in STORED if documents else ():
            _remove(loaded.store_folder if name == "store" else loaded.data_folder / name)
    except OSError as error:
        _fail(f"{loaded.data_folder} cannot be cleared: {error}")
    typer.echo(f"forgot {what}" if had_identity or documents else "there was no identity")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _loaded(settings: Path | None, data_folder: Path | None, *, needs_device: bool = True) -> "EdgeSettings":
    """The daemon's settings; a command that needs no device name gets a placeholder."""
    from dragon_runtime.settings import load_settings
    from edge_daemon.settings import EdgeSettings

    overrides = {"data_folder": data_folder, **({} if needs_device else {"device": "none"})}
    try:
        return load_settings(EdgeSettings, settings, overrides)
    except DragonError as error:
        _fail(error)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except DragonError as error:
        _fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _fail(error: DragonError | str) -> NoReturn:
    from dragon_runtime.redaction import redacted

    typer.echo(f"dragon-edge: {redacted(str(error))}", err=True)
    raise typer.Exit(1)
