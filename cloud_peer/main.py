"""`dragon-cloud`: the cloud peer's command."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def cloud() -> None:
    """DRAGON's other end: answers sessions of devices from public documents."""


@app.command()
def run(
    settings: Annotated[Path | None, typer.Option(help="Settings file (YAML); else DRAGON_CONFIG.")] = None,
    replica: Annotated[str | None, typer.Option(help="Name of this replica.")] = None,
    documents: Annotated[Path | None, typer.Option(help="Folder of public documents to add at start.")] = None,
    data_folder: Annotated[Path | None, typer.Option(help="Where an embedded store and models are kept.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve sessions until SIGTERM, then drain. Every setting of docs/settings.md can stand in the file."""
    # Before numpy is loaded: its threads spin while they wait, which takes a core from the language model.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from cloud_peer import peer
    from cloud_peer.settings import CloudSettings
    from dragon_runtime.processes import run_daemon

    overrides = {"replica": replica, "documents": documents, "data_folder": data_folder, "log.level": log_level}
    raise typer.Exit(
        run_daemon(
            "dragon-cloud",
            CloudSettings,
            peer.run,
            settings_path=settings,
            overrides=overrides,
            log_of=lambda loaded: loaded.log,
        )
    )


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
