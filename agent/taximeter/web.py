"""The way out to other machines' HTTP, for sinks and price lists alike: the one door to httpx.

Owns what any request has in common: one connection that no variable of the environment sends elsewhere, TLS that is
verified, redirects that are not followed, and answers that are read to a bound and never decoded. Refuses to know what
is asked.
"""

import ssl

import httpx

Url = httpx.URL
Client = httpx.AsyncClient
Response = httpx.Response
Error = httpx.HTTPError
TimedOut = httpx.TimeoutException


def url_of(text: str) -> Url:
    """Take a URL apart. Raises ValueError: it is none, has no host, or has a user or a password in it."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError("http://… or https://… with a host") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("http://… or https://… with a host")
    if url.userinfo:
        raise ValueError("no user or password in it")
    return url


def shown(url: Url) -> str:
    """A URL for people, without its query, which may hold a key."""
    return str(url.copy_with(query=None))


def open_client(timeout_s: float) -> Client:
    """Make a client with one connection; slow, for it reads the system's authorities: call it in a thread."""
    return httpx.AsyncClient(
        verify=_trust(),
        timeout=httpx.Timeout(timeout_s),
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=30.0),
        follow_redirects=False,
        trust_env=False,
    )


def _trust() -> ssl.SSLContext:
    """Trust the public authorities and those of the system (SSL_CERT_FILE and SSL_CERT_DIR included)."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


async def read_bounded(response: Response, most_bytes: int) -> bytes:
    """Read little more than `most_bytes` of the body, undecoded: neither a bomb nor an endless answer is swallowed."""
    body = bytearray()
    async for chunk in response.aiter_raw(8192):
        body += chunk
        if len(body) >= most_bytes:
            break
    return bytes(body)


def kind_of(error: Error) -> str:
    """Name a failed request by a bounded word."""
    return "tls" if _is_tls(error) else "connect" if isinstance(error, httpx.ConnectError) else "connection"


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
