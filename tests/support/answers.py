"""Wrong answers of an HTTP server to a request for a file.

Each is a function of the handler and the file's bytes. A client that does not give up is stopped:
after LIMIT_REQUESTS requests a `Server` answers 404, and after LIMIT_BYTES it hangs up.
"""

import contextlib
import re
import threading

LIMIT_REQUESTS = 200
LIMIT_BYTES = 30_000_000  # a loopback buffers some MB
STALL = 0.3  # seconds; a test sets a shorter timeout


class Server:
    """The wrong answers in order, then the last one for ever, or right ones. Counts requests."""

    def __init__(self, names, recovers: bool):
        self.names, self.recovers = [*names], recovers
        self.requests = 0
        self.sent = 0

    @property
    def ran_away(self) -> bool:
        return self.requests >= LIMIT_REQUESTS or self.sent >= LIMIT_BYTES

    def __call__(self, handler, content: bytes) -> None:
        self.requests += 1
        handler.close_connection = True
        if self.ran_away:
            return reply(handler, b"", 404, length=0)
        if self.requests <= len(self.names):
            name = self.names[self.requests - 1]
        else:
            name = "right" if self.recovers else self.names[-1]
        with contextlib.suppress(OSError):
            before = handler.wfile
            handler.wfile = Counted(before, self)
            try:
                ANSWERS[name](handler, content)
            finally:
                handler.wfile = before
        return None


class Counted:
    """A file that counts what is written, and fails after LIMIT_BYTES."""

    def __init__(self, file, server: Server):
        self.file, self.server = file, server

    def write(self, data) -> None:
        self.server.sent += len(data)
        if self.server.sent >= LIMIT_BYTES:
            raise ConnectionError("enough")
        self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def reply(handler, body: bytes, status=200, length=None, **headers) -> None:
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)


def start_of(handler) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    return int(found[1]) if found else 0


def right(handler, content):
    start = start_of(handler)
    if start >= len(content):
        return reply(handler, b"", 416, 0)
    ranged = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    rest = content[start:]
    return reply(handler, rest, 206 if start else 200, len(rest), **(ranged if start else {}))


def cut(handler, content):
    rest = content[start_of(handler) :]
    if start_of(handler):
        ranged = f"bytes {start_of(handler)}-{len(content) - 1}/{len(content)}"
        reply(handler, rest[: len(rest) // 2], 206, len(rest), Content_Range=ranged)
    else:
        reply(handler, rest[: len(rest) // 2], 200, len(rest))


def endless(handler, content, **headers):
    reply(handler, content, **headers)
    while True:
        handler.wfile.write(bytes(50_000))


def chunked(handler, body: bytes, times=1):
    reply(handler, b"", Transfer_Encoding="chunked")
    for _ in range(times):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
    handler.wfile.write(b"0\r\n\r\n")


def stall(handler, content):
    reply(handler, content[:1000], length=len(content))
    handler.wfile.flush()
    threading.Event().wait(STALL)  # a test may have patched time.sleep


def flipped(handler, content):
    right(handler, bytes([content[0] ^ 1]) + content[1:])


def moved(place):
    return lambda handler, content: reply(handler, b"", 302, 0, Location=place)


def status(number, **headers):
    return lambda handler, content: reply(handler, b"no", number, 2, **headers)


def ranged(text):
    return lambda handler, content: reply(
        handler, content[len(content) // 2 :], 206, Content_Range=text, Connection="close"
    )


ANSWERS = {
    "right": right,
    "cut": cut,
    "flipped": flipped,
    "stall": stall,
    "longer": lambda h, c: reply(h, c + bytes(999), length=len(c) + 999),
    "longer, unannounced": lambda h, c: reply(h, c + bytes(999)),
    "longer than announced": lambda h, c: reply(h, c + bytes(999), length=len(c)),
    "shorter": lambda h, c: reply(h, c[:-7], length=len(c) - 7),
    "shorter, unannounced": lambda h, c: reply(h, c[:-7]),
    "much shorter": lambda h, c: reply(h, c[:3], length=3),
    "empty": lambda h, c: reply(h, b"", length=0),
    "empty, unannounced": lambda h, c: reply(h, b""),
    "no content": lambda h, c: reply(h, b"", 204),
    "endless": endless,
    "endless, announced": lambda h, c: endless(h, c, length=len(c)),
    "endless, 10**15 announced": lambda h, c: endless(h, c, length=10**15),
    "length of text": lambda h, c: reply(h, c, length="many"),
    "negative length": lambda h, c: reply(h, c, length=-5),
    "chunked, shorter": lambda h, c: chunked(h, c[:-7]),
    "chunked, endless": lambda h, c: chunked(h, c, times=10**6),
    "page": lambda h, c: reply(h, b"<html>log in</html>", length=19, Content_Type="text/html"),
    "gzip that is none": lambda h, c: reply(h, c, length=len(c), Content_Encoding="gzip"),
    "moved in a circle": lambda h, c: reply(h, b"", 302, 0, Location=h.path),
    "moved to nowhere": moved("http://127.0.0.1:1/x"),
    "moved to a file": moved("file:///etc/hostname"),
    "moved to no address": moved("http://[::bad"),
    "wrong range": ranged("bytes 5-9/10"),
    "range of text": ranged("everything"),
    "range of another file": ranged("bytes 0-99/100"),
    "nothing there": status(416),
    "busy": status(503, Retry_After=0),
    "busy for long": status(503, Retry_After=10**6),
    "busy for ever": status(429, Retry_After="9" * 5000),
    "busy, no number": status(429, Retry_After="\u00b2"),
    "busy till a date": status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "broken server": status(500),
    "forbidden": status(403),
    "no HTTP": lambda h, c: h.wfile.write(b"\x00\x01 not http\r\n\r\n"),
    "silence": lambda h, c: None,
}
