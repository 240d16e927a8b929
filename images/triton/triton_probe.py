#!/usr/bin/env -S python3 -ISB
"""Ends with 0 when the language model on this machine's Triton decodes and the embedding model answers.

For a probe of Kubernetes: asks on loopback, with the standard library alone, and takes no time worth mentioning.
Triton's own readiness does not do: it stays true for a model whose process died.
"""

import json
import socket
import sys

PORT = 8000
SECONDS = 15.0
PROBE = 5
"""The operation of docs/triton.md."""
QUESTIONS = {
    "causal_lm/generate": {"REQUEST": [PROBE, 0]},
    "embedder/infer": {
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}],
        "outputs": [{"name": "NAME"}],
    },
}


def ask(port: int, path: str, body: object) -> str:
    """What is wrong, or nothing. By hand: the library's client costs more time to load than the question takes."""
    content = json.dumps(body).encode()
    head = f"POST /v2/models/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = b""
        while (piece := connection.recv(65536)) and len(answer) < 65536:
            answer += piece
    if answer.startswith(b"HTTP/1.1 200 "):
        return ""
    return " ".join(answer.decode(errors="replace").split())[-500:] or "the connection was closed"


def main() -> None:
    """Ask both models; the argument is the port, where it is another than Triton's usual one."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    for path, body in QUESTIONS.items():
        try:
            problem = ask(port, path, body)
        except OSError as error:
            problem = str(error)
        if problem:
            sys.exit(f"triton-probe: {path}: {problem}")


if __name__ == "__main__":
    main()
