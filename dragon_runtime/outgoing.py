"""The HTTP clients and gRPC options of this process: a proxy of the environment is for downloads, and for nothing else.

Documents, questions and keys go straight to where they belong: to a device's API, the store, Triton.
"""

import os
from collections.abc import Mapping
from urllib.request import getproxies

import httpx

from dragon_core.errors import SettingsError
from dragon_runtime.settings.groups import is_loopback

GRPC_WITHOUT_PROXY = ("grpc.enable_http_proxy", 0)
"""Option of a channel; without it gRPC asks http_proxy, https_proxy and grpc_proxy."""
MAX_PORT = 65_535
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def direct_client(
    *, timeout: httpx.Timeout | float, base_url: str = "", headers: Mapping[str, str] | None = None
) -> httpx.AsyncClient:
    """A client that takes no proxy.

    Raises:
        httpx.InvalidURL: of `base_url`.
    """
    # httpx takes proxies for transports that it makes itself only; SSL_CERT_FILE stays in force, as it should.
    return httpx.AsyncClient(
        base_url=base_url, headers=headers, timeout=timeout, transport=httpx.AsyncHTTPTransport(trust_env=True)
    )


def download_client(url: str, *, timeout: float) -> httpx.AsyncClient:
    """A client for the download of what is at `url`: through the environment's proxy, unless it is on this machine.

    Raises:
        SettingsError: a variable names no proxy that can be used. httpx.InvalidURL: of `url`.
    """
    if is_loopback(_with_valid_port(url).host):
        client = direct_client(timeout=timeout)
        client.follow_redirects = True
        return client
    try:
        for scheme in {"http", "https", "all"} & getproxies().keys():
            _with_valid_port(getproxies()[scheme])
        return httpx.AsyncClient(follow_redirects=True, timeout=timeout)
    except (ValueError, ImportError, httpx.InvalidURL):
        # Without its cause, which may repeat a password.
        raise SettingsError(
            f"{_set_variables()} cannot be used: write a proxy as http://HOST:PORT or https://HOST:PORT "
            "(none for SOCKS), and NO_PROXY as names and addresses with commas between"
        ) from None


def _with_valid_port(url: str) -> httpx.URL:
    """The address; httpx itself fails at a connect only, with an error of the operating system's calls."""
    parsed = httpx.URL(url)
    if (parsed.port or 0) > MAX_PORT:
        raise httpx.InvalidURL(f"its port is above {MAX_PORT}")
    return parsed


def proxy_advice(url: str) -> str:
    """What to say of a download that did not reach its server: that a proxy may be the reason, or nothing."""
    variables = _set_variables()
    return "" if not variables or is_loopback(httpx.URL(url).host) else f" ({variables} is set: is that proxy right?)"


def _set_variables() -> str:
    known = (*PROXY_VARIABLES, "no_proxy")
    return ", ".join(name for name in sorted(os.environ) if name.lower() in known and os.environ[name])
