"""Runs the Python blocks of a page one after the other in one interpreter, as a reader would.

Each line of standard input is a file and the page's name, with a tab between; each block that ends well is answered
with one line on standard output. What blocks print goes to standard error, in order with everything else.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    """Until standard input ends; an exception ends it too, with its traceback."""
    answers = os.dup(1)
    os.dup2(2, 1)
    names: dict[str, object] = {"__name__": "__main__"}
    for line in sys.stdin:
        path, page = line.rstrip("\n").split("\t")
        exec(compile(Path(path).read_text(encoding="utf-8"), page, "exec"), names)  # noqa: S102 - our own pages
        sys.stdout.flush()
        os.write(answers, b"done\n")


if __name__ == "__main__":
    main()
