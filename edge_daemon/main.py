"""`dragon-edge`: the daemon's command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_daemon import commands

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def edge() -> None:
    """DRAGON on a device: answers from private documents on the device and public documents in the cloud."""


@app.command()
def run(
    settings: Annotated[Path | None, typer.Option(help="Settings file (YAML); default: DRAGON_CONFIG.")] = None,
    device: Annotated[str | None, typer.Option(help="Name of this device.")] = None,
    data_folder: Annotated[Path | None, typer.Option(help="Folder for documents and models.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the daemon until SIGTERM. docs/settings.md lists the settings for the file and the environment."""
    # Before numpy is loaded: its threads spin while they wait, which takes a core from the language model.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dragon_runtime.process.daemon import run_daemon
    from edge_daemon import daemon
    from edge_daemon.settings import EdgeSettings

    overrides = {
        "device": device,
        "data_folder": data_folder,
        "api.host": host,
        "api.port": port,
        "log.level": log_level,
    }
    raise typer.Exit(
        run_daemon(
            "dragon-edge",
            EdgeSettings,
            daemon.run,
            settings_path=settings,
            overrides=overrides,
            log_of=lambda loaded: loaded.log,
        )
    )


commands.register(app)


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
