"""Writes the generated parts of the pages in docs/: `settings.md`, and the tables inside `api.md`.

`--check` writes nothing and exits with 1 when a page is not what the code says.
"""

import re
import sys
from pathlib import Path

from cloud_peer.settings import CloudSettings
from dragon_runtime.answer_schema import DragonSummary, field_rows
from dragon_runtime.settings import describe
from edge_daemon.settings import EdgeSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
SUMMARY = re.compile(r"(<!-- dragon object: written by scripts/write_reference.py -->\n).*?(<!-- end -->)", re.DOTALL)

INTRODUCTION = """\
# Settings

Both ends read their settings at start, each from four places: flags win over environment variables, which win over
the YAML file (`--config`, or the variable `DRAGON_CONFIG`), which wins over defaults. Dots in a key are nesting in the
file: `broker.host` is `host` below `broker`. Lists are `[a, b]` in the file and `a,b` in a variable.

An unknown key, an unknown variable that starts with `DRAGON_`, or a bad value stops the start with the full path of
the key. Secrets are read from files or kept out of logs. `weighting`, `max_published_tokens`, `nucleus` and `embedding`
must be the same at both ends; a session between ends that differ is refused with the field and both values.

In Kubernetes set `enableServiceLinks: false` on the pods: the variables it injects for services whose names begin with
`dragon-` would otherwise be taken for unknown settings.

This page is written by `scripts/write_reference.py`.
"""


def pages() -> dict[Path, str]:
    """Every generated page with the text it must have."""
    settings = (
        f"{INTRODUCTION}\n## Edge daemon (`dragon-edge`)\n\n{describe(EdgeSettings)}"
        f"\n## Cloud peer (`dragon-cloud`)\n\n{describe(CloudSettings)}"
    )
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *field_rows(DragonSummary)])
    api = DOCS / "api.md"
    text, num_tables = SUMMARY.subn(lambda found: f"{found[1]}{table}\n{found[2]}", api.read_text(encoding="utf-8"))
    if num_tables != 1:
        raise SystemExit(f"{api}: expected one table between the markers, found {num_tables}")
    return {DOCS / "settings.md": settings, api: text}


def main() -> int:
    """Write the pages, or check them."""
    is_check = "--check" in sys.argv[1:]
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if is_check:
            print(f"{path} is not what the code says: run scripts/write_reference.py", file=sys.stderr)
        else:
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
