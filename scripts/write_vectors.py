"""Writes the test vectors of docs/protocol.md into docs/vectors/.

`--check` writes nothing and exits with 1 when a file is not what the code computes. Floats may differ by what the page
allows, because the last bit of an exponential differs between processors; a file that is right is never rewritten.
"""

import sys
from pathlib import Path

from vectors.files import write_all

VECTORS = Path(__file__).resolve().parent.parent / "docs" / "vectors"

if __name__ == "__main__":
    sys.exit(write_all(VECTORS, is_check="--check" in sys.argv[1:]))
