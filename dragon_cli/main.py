"""`dragonctl`: run a local stack, ask a device, manage its documents, and check what this machine lacks."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dragon_cli import doctor as machine
from dragon_cli import documents
from dragon_cli.api_client import ApiClient
from dragon_cli.asking import as_json, show_legend, show_summary
from dragon_cli.asking import ask as ask_device
from dragon_cli.command import ApiKey, ApiUrl, Folder, Json, connect, fail, run
from dragon_cli.logs import follow, last_lines
from dragon_cli.stack import DEFAULT_FOLDER, PARTS, EngineChoice, Stack, StackOptions
from dragon_cli.starting import start, wait_until_ready, with_fetched_model
from dragon_core.errors import DragonError, SettingsError, shown
from dragon_core.types import WeightingRule
from dragon_runtime.settings.groups import PlacementChoice

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(documents.app, name="documents")


MAX_LINE_CHARACTERS = 20_000
EngineOption = Annotated[
    EngineChoice, typer.Option(help="Where the cloud peer runs its models: in its own process, or on a Triton server.")
]


@app.callback()
def dragonctl() -> None:
    """DRAGON: a device and a cloud write one answer together without showing each other their documents."""


@app.command()
def up(
    folder: Folder = DEFAULT_FOLDER,
    api_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Port of the device's API.")] = None,
    rtt_ms: Annotated[float | None, typer.Option(min=0, help="Emulate a slow link with this round-trip time.")] = None,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Maximum jitter of the slow link, each way.")] = 0.0,
    public_documents: Annotated[
        Path | None, typer.Option(help="Folder of public documents for the cloud peer.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="GGUF file or its address, for both ends; default: the bundled model.")
    ] = None,
    model_sha256: Annotated[str | None, typer.Option(help="Digest of the model; required for an address.")] = None,
    weighting: Annotated[WeightingRule | None, typer.Option(help="Weighting rule.")] = None,
    placement: Annotated[PlacementChoice | None, typer.Option(help="End that aggregates.")] = None,
    engine: EngineOption = EngineChoice.LLAMA,
) -> None:
    """Start a broker, a cloud peer and an edge daemon on this machine, and wait until they are ready."""
    protocol: dict[str, Any] = {}
    if weighting is not None:
        protocol["weighting"] = {"rule": weighting.value}
    if placement is not None:
        protocol["placement"] = placement.value
    options = StackOptions(
        api_port=api_port,
        rtt_ms=rtt_ms,
        jitter_ms=jitter_ms,
        public_documents=public_documents,
        model=model,
        model_sha256=model_sha256,
        protocol=protocol,
        engine=engine,
    )
    stack, console = Stack(folder), Console(stderr=True)

    async def bring_up() -> None:
        start(stack, await with_fetched_model(options, stack.folder / "models", console))
        try:
            await wait_until_ready(stack, console)
        except BaseException:
            await asyncio.to_thread(stack.stop)
            raise

    run(bring_up())
    typer.echo(f"ready: {stack.plan()['api_url']}/v1 (OpenAI API); `dragonctl ask`, `dragonctl down`")


@app.command()
def down(folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop the stack. Documents and settings are kept."""
    try:
        with Console(stderr=True).status("stopping"):
            was_running = Stack(folder).stop()
    except (DragonError, OSError) as error:
        fail(error)
    typer.echo("stopped" if was_running else "nothing was running")


@app.command()
def status(folder: Folder = DEFAULT_FOLDER, is_json: Json = False) -> None:
    """Show the parts of the stack and whether they are ready. Exit code 1 if they are not."""
    stack = Stack(folder)

    async def look() -> tuple[dict[str, Any], dict[str, Any] | None]:
        plan = stack.plan()
        async with ApiClient(plan["api_url"]) as client:
            return plan, await client.readiness()

    plan, readiness = run(look())
    is_running = stack.is_running
    parts = [part for part in stack.parts() if is_running]
    found = {
        "running": is_running,
        "api_url": plan["api_url"],
        "rtt_ms": plan["rtt_ms"],
        "parts": [
            {"name": p.name, "pid": p.pid, "running": p.is_running, "restarts": p.num_restarts, "problem": p.problem}
            for p in parts
        ],
        "readiness": readiness if is_running else None,
    }
    if is_json:
        typer.echo(json.dumps(found))
    else:
        _show_status(found, {part.name: part.since for part in parts})
    if not is_running or readiness is None or readiness["status"] == "not_ready":
        raise typer.Exit(1)


def _show_status(found: dict[str, Any], since: dict[str, float]) -> None:
    console = Console()
    if not found["running"]:
        console.print("not running; `dragonctl up` starts it")
        return
    table = Table("part", "state", "pid", "restarts", "for", "problem")
    for part in found["parts"]:
        state = Text("running", "green") if part["running"] else Text("down", "red")
        seconds = f"{time.time() - since[part['name']]:.0f} s"
        problem = Text(shown(part["problem"]))
        table.add_row(part["name"], state, str(part["pid"] or ""), str(part["restarts"]), seconds, problem)
    console.print(table)
    for name, check in ((found["readiness"] or {}).get("checks") or {}).items():
        console.print(Text.assemble(f"{name:<8}", (shown(check["message"]), "green" if check["ready"] else "yellow")))
    console.print(f"API     {found['api_url']}/v1", highlight=False)


@app.command()
def logs(
    parts: Annotated[
        list[str] | None, typer.Argument(help=f"Any of {', '.join((*PARTS, 'supervisor'))}; default: all.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    num_lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Number of last lines of each part.")] = 20,
    is_following: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
) -> None:
    """Print the logs of the stack's parts."""
    stack = Stack(folder)
    known = (*PARTS, "supervisor")
    for part in parts or ():
        if part not in known:
            fail(SettingsError(f"there is no part {part!r}; there are {', '.join(known)}"))
    paths = {part: stack.log_path(part) for part in parts or known if stack.log_path(part).exists()}
    if not paths:
        fail(SettingsError(f"there are no logs in {stack.folder}; `dragonctl up` starts a stack"))
    for part, path in paths.items():
        for line in last_lines(path, num_lines):
            typer.echo(f"{part:<11}{shown(line, max_characters=MAX_LINE_CHARACTERS)}")
    if is_following:
        try:
            for part, line in follow(paths):
                typer.echo(f"{part:<11}{shown(line, max_characters=MAX_LINE_CHARACTERS)}")
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    url: ApiUrl = None,
    api_key_file: ApiKey = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 always takes the most likely token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed; the same seed gives the same answer.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of the answer in tokens.")] = 128,
    is_edge_only: Annotated[bool, typer.Option("--edge-only", help="Ask the device alone.")] = False,
    is_json: Json = False,
) -> None:
    """Ask the device. Each token has the colour of the end that contributed most to it."""
    content = sys.stdin.read() if question == "-" else question
    console = Console(highlight=False, soft_wrap=True)
    request: dict[str, Any] = {
        "messages": [{"role": "user", "content": content}],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "dragon": {"mode": "edge_only" if is_edge_only else "both"},
    }
    if seed is not None:
        request["seed"] = seed

    def on_text(piece: Text) -> None:
        if not is_json:
            console.print(piece, end="")

    async def answer() -> None:
        async with connect(url, api_key_file) as client:
            given = await ask_device(client, {**request, "model": await client.model()}, on_text=on_text)
        if is_json:
            typer.echo(as_json(given))
            return
        console.print()
        if console.is_terminal:
            show_legend(console)
        show_summary(Console(stderr=True, highlight=False), given.dragon)

    run(answer())


@app.command()
def doctor(folder: Folder = DEFAULT_FOLDER, is_json: Json = False) -> None:
    """Check what DRAGON needs on this machine, and say how to get what is missing."""
    findings = machine.examine(folder)
    if is_json:
        typer.echo(json.dumps([finding.to_dict() for finding in findings]))
    else:
        machine.show(findings, Console())
    if not all(finding.is_good for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Folder for the demo's stack, kept afterwards; default: a temporary folder.")
    ] = None,
    output: Annotated[Path, typer.Option(help="File for the results.")] = Path("build/demo.json"),
    rtt_ms: Annotated[float, typer.Option(min=0, help="Round-trip time of the link between the ends.")] = 100.0,
    model: Annotated[
        str | None, typer.Option(help="GGUF file or its address, for both ends; default: the bundled model.")
    ] = None,
    model_sha256: Annotated[str | None, typer.Option(help="Digest of the model; required for an address.")] = None,
    engine: EngineOption = EngineChoice.LLAMA,
) -> None:
    """Start both ends here, ask questions that need both, compare with one end alone, and stop everything."""
    from dragon_cli.demo import run_demo

    console = Console(highlight=False, soft_wrap=True)

    async def play() -> None:
        asked = StackOptions(rtt_ms=rtt_ms, model=model, model_sha256=model_sha256, engine=engine)
        options = await with_fetched_model(asked, DEFAULT_FOLDER / "models", console)
        await run_demo(options, folder=folder, output=output, console=console)

    run(play())


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
