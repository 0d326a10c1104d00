"""One form for the URLs of one page, and the hosts that a domain list may name.

RFC 3986 section 6 (scheme and host in lower case, default port, percent-encoding, dot segments, empty
path), and beyond it what is safe for web pages though not for every URI: http and https are one and the
scheme is left out, as are user names, a leading `www.`, fragments, and parameters that only track visits.
Order and repetition of the other parameters, the case of paths, trailing and double slashes are kept.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_PORTS = {"http": "80", "https": "443", "ftp": "21"}
TRACKING = frozenset(
    (
        *("gclid", "gclsrc", "dclid", "gbraid", "wbraid", "fbclid", "msclkid", "yclid", "twclid", "ttclid"),
        *("igshid", "mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi", "mkt_tok", "oly_anon_id"),
        *("oly_enc_id", "vero_id", "s_cid"),
    )
)
"""Query parameters that are left out, besides those that begin with `utm_`; compared in lower case."""

_PLAIN = re.compile(
    r"https?://(?:www\.)?([a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,3}\.[a-z]{1,63})((?:/[\w~-][\w.~-]*)*/?)",
    re.ASCII,
)
_CLEAN = re.compile(r"[!$&'()*+,;=:@/?A-Za-z0-9._~-]*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]")
_IPV4 = re.compile(r"\d+(?:\.\d+){3}")
_IGNORED = str.maketrans("", "", "\t\r\n")
_EDGES = "".join(map(chr, range(33)))
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|(%)|([^!$&'()*+,;=:@/?A-Za-z0-9._~-])")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_WORD = re.compile(r"[^\W_]+")


def normalize_url(url: str) -> str | None:
    """`example.com/path?query` of a URL; None where it has no host (mailto:, data:) or is none.

    A URL without scheme is taken for http where its host has a dot. Hosts are IDNA names in ASCII (UTS 46).
    """
    parts = split_url(url)
    return None if parts is None else parts[0] + parts[1]


def split_url(url: str) -> tuple[str, str] | None:
    """(host, rest) whose sum is the normalised URL: the rest begins with `:port` or `/`. None as above."""
    plain = _PLAIN.fullmatch(url)
    if plain:  # most URLs of a crawl: nothing to change
        return plain[1], plain[2] or "/"
    url = url.translate(_IGNORED).strip(_EDGES)
    scheme, rest = _scheme(url)
    if scheme not in _PORTS:
        return None
    end = re.search(r"[/\\?#]|$", rest)
    at = end.start() if end else len(rest)
    authority, rest = rest[:at].rpartition("@")[2], rest[at:].partition("#")[0]
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", authority)
    host = normalize_host(match[1]) if match else None
    if match is None or host is None:
        return None
    port = (match[2] or "").lstrip("0")
    if port and int(port) > 65535:
        return None
    path, _, query = rest.partition("?")
    query = "&".join(item for item in query.split("&") if item and not _tracks(item))
    normal = _without_dots(_escaped(path)) or "/"
    if port and port != _PORTS[scheme]:
        normal = f":{port}{normal}"
    return host, f"{normal}?{_escaped(query)}" if query else normal


def _scheme(url: str) -> tuple[str, str]:
    """(scheme, what follows the slashes)."""
    match = _SCHEME.match(url)
    if match and match[2]:
        return match[1].lower(), url[match.end() :]
    if url.startswith("//"):
        return "http", url[2:]
    # host:port/path and host/path, not mailto:someone
    bare = re.match(r"[^/?#@\s]+\.[^/?#@\s:]+(?::\d+)?(?=[/?#]|$)", url)
    return ("http", url) if bare else ("", url)


def normalize_host(host: str) -> str | None:
    """Lower case, ASCII (IDNA), without `www.` and without a final dot; None where it is no host name."""
    if not host.isascii() or "%" in host:
        host = _idna(unquote(host))
    host = host.lower().removesuffix(".")
    if host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    return host if _HOST.fullmatch(host) and len(host) <= 253 else None


def _idna(host: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return host  # refused by _HOST where it is not ASCII


def host_and_parents(host: str) -> list[str]:
    """`a.b.com`, `b.com`, `com`: the names under which a list may hold it. An address has no parents."""
    if host.startswith("[") or _IPV4.fullmatch(host):
        return [host]
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]


def url_words(normalized: str) -> list[str]:
    """Runs of letters and digits of any script, percent-decoded, in lower case."""
    return _WORD.findall(unquote(normalized).lower())


def _tracks(item: str) -> bool:
    name = item.partition("=")[0].lower()
    return name.startswith("utm_") or name in TRACKING


def _escaped(text: str) -> str:
    """Percent-encoding in one form: only what needs it, as UTF-8, with capital digits."""
    if _CLEAN.fullmatch(text):
        return text

    def one(match: re.Match[str]) -> str:
        if match[1]:
            byte = int(match[1], 16)
            return chr(byte) if byte in _UNRESERVED else f"%{byte:02X}"
        if match[2]:
            return "%25"
        return "".join(f"%{byte:02X}" for byte in match[3].encode("utf-8", "surrogatepass"))

    return _ESCAPE.sub(one, text)


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4."""
    path = path.replace("%5C", "/") if path.startswith("%5C") else path
    if "/." not in path:
        return path
    out: list[str] = []
    segments = path.split("/")[1:]
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == "..":
            del out[-1:]
        elif segment != ".":
            out.append(segment)
        if last and segment in (".", ".."):
            out.append("")
    return "/" + "/".join(out)
