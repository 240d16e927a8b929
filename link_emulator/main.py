"""`link-emulator`: a slow link as a command. SIGUSR1 cuts it, SIGUSR2 restores it, SIGHUP closes its connections."""

import asyncio
import signal
from typing import Annotated

import typer

from link_emulator.relay import Link, LinkEmulator

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise typer.BadParameter(f"{text!r} is no HOST:PORT")
    return host, int(port)


@app.command()
def run(
    listen: Annotated[str, typer.Option(help="Where to accept connections, HOST:PORT; port 0 takes a free one.")],
    target: Annotated[str, typer.Option(help="Where they lead, HOST:PORT.")],
    rtt_ms: Annotated[float, typer.Option(min=0, max=60_000, help="Round trip in milliseconds.")] = 100.0,
    jitter_ms: Annotated[float, typer.Option(min=0, max=60_000, help="Most it varies, each way.")] = 0.0,
) -> None:
    """Relay TCP connections over a link that is slow. SIGUSR1 cuts it, SIGUSR2 restores it, SIGHUP resets it."""
    asyncio.run(_run(_address(listen), _address(target), Link(rtt_ms / 1000, jitter_ms / 1000)))


async def _run(listen: tuple[str, int], target: tuple[str, int], link: Link) -> None:
    emulator = LinkEmulator(target, link)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, act in {
        signal.SIGINT: stopped.set,
        signal.SIGTERM: stopped.set,
        signal.SIGUSR1: emulator.cut,
        signal.SIGUSR2: emulator.restore,
        signal.SIGHUP: emulator.reset,
    }.items():
        loop.add_signal_handler(number, act)
    try:
        async with emulator.serving(*listen) as port:
            typer.echo(
                f"{listen[0]}:{port} leads to {target[0]}:{target[1]}, {link.rtt_seconds * 1000:g} ms there and back"
            )
            await stopped.wait()
    except OSError as error:
        typer.echo(f"link-emulator: cannot listen on {listen[0]}:{listen[1]}: {error.strerror}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
