"""How much of a stranger's input this worker takes in: every limit on downloads and images.

Sources: imgproxy, camo, smokescreen and vLLM for downloads; imgproxy for pixels; the rest was measured on one
core, so that no image that is accepted holds a thread for more than about a second.
"""

from __future__ import annotations

from dataclasses import dataclass


MEBIBYTE = 1 << 20
# Pillow warns above this (1 GiB of RGB samples) and a warning would go to the log, not to the caller.
PILLOW_MAX_PIXELS = 89_478_485


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one download may cost, and which URLs may be asked for at all."""

    max_bytes: int = 10 * MEBIBYTE
    # Everything: lookup, connecting, redirects, retries, pauses and body.
    timeout_s: float = 10.0
    # One address: connecting, and the TLS handshake.
    connect_timeout_s: float = 3.0
    # Silence between two bytes.
    read_timeout_s: float = 5.0
    dns_timeout_s: float = 2.0
    # Everything around a body: heads, interim answers, sizes of chunks, trailers. Chrome's limit for a head.
    max_overhead_bytes: int = 256 * 1024
    max_redirects: int = 3
    max_attempts: int = 3
    # Pauses between attempts: full jitter, doubling up to the cap; Retry-After is honoured up to its limit.
    backoff_base_s: float = 0.2
    backoff_cap_s: float = 2.0
    max_retry_after_s: float = 5.0
    # Retries of the whole process: botocore's bucket of 500, and Google SRE's tenth, since a retry costs what
    # ten successes bring.
    retry_tokens: int = 500
    retry_cost: int = 10
    # Connections kept for another request to their place: for each as many as one job opens at once, and no
    # longer than aiohttp keeps them. Servers close theirs after 5 (Apache, Node) to 75 seconds (nginx).
    max_idle_connections: int = 64
    max_idle_per_host: int = 16
    max_idle_s: float = 15.0
    max_url_length: int = 2048
    allow_http: bool = False
    # Empty: any public host. Otherwise these and the names below them.
    allowed_domains: tuple[str, ...] = ()
    # Other ports speak other protocols.
    ports: frozenset[int] = frozenset({443, 80})


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may cost to decode; all but the bytes are read from its header."""

    max_bytes: int = 10 * MEBIBYTE
    max_pixels: int = 50_000_000
    # libwebp takes 17 to 60 ms for a megapixel, the other decoders 2 to 12 for one of 8 bits.
    max_webp_pixels: int = 16_000_000
    # Pixels times the bytes of one: 50 megapixels of RGB, 37.5 with transparency, half of that in 16 bits.
    max_decoded_bytes: int = 150_000_000
    # Longer side to shorter: what resizing needs grows with it.
    max_aspect: int = 100
    # A progressive JPEG may repeat a scan of 75 bytes, at up to 50 ms for each component and 50 megapixels.
    # Encoders write ten scans of 14 components in all, so that a progressive picture may have 25 megapixels,
    # one of a single scan all of 50.
    max_jpeg_scans: int = 100
    max_jpeg_scan_pixels: int = 350_000_000
    # Decoding and resizing at their peak, for one picture and for all threads together (see `memory`).
    max_memory_bytes: int = 450_000_000
    # Of one core, until all of a file is read; resizing may take 0.4 s more. What no header tells, such as
    # unused deflate codes at 0.1 s for a megabyte, ends here. The largest sound pictures take 0.45 s.
    max_reading_s: float = 0.6

    def __post_init__(self) -> None:
        if self.max_pixels > PILLOW_MAX_PIXELS:
            raise ValueError(f"max_pixels is {self.max_pixels}; it must not exceed {PILLOW_MAX_PIXELS}")
