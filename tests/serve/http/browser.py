"""Chromium without a window, and pages in it that note whatever they should not do."""

from __future__ import annotations

import io
import shutil
from contextlib import contextmanager

import pytest

from scripts.demo_model.draw import Scene, draw


NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCENES = [("red", "circle", "white"), ("blue", "square", "grey"), ("yellow", "star", "navy")]
TEXTS = [f"a {colour} {shape}" for colour, shape, _ in SCENES]
RIGHT = {text: f"{text}.png" for text in TEXTS}
MISSING = "no Chromium is installed; on Debian: apt-get install chromium"


@contextmanager
def chromium(*arguments):
    """Yield a browser, started with *arguments*; end the run with a plain line where none is installed."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  0.3 s that few runs need

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.exit(MISSING, returncode=1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Tab:
    """The page of the service at *url*: `requests` are those it sent, `faults` what its console told."""

    def __init__(self, browser, url, **options) -> None:
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(15_000)
        self.requests, self.faults = [], []
        self.page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108  a builtin is refused
        self.page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        self.page.on("console", self._note)
        self.page.goto(url)

    def wait_ready(self):
        """Return when the page says that the worker is ready."""
        self.page.wait_for_selector("#status.ready")

    def type_texts(self, *texts):
        """Write *texts* into the field, one in each line."""
        self.page.fill("#texts", "\n".join(texts))

    def choose(self, *pictures):
        """Choose files of these names and bytes."""
        files = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in pictures]
        self.page.set_input_files("#files", files)

    def drop(self, *pictures):
        """Drop files of these names and bytes onto the page."""
        files = self.page.evaluate_handle(
            """(files) => files.reduce((transfer, [name, bytes]) => {
                transfer.items.add(new File([new Uint8Array(bytes)], name));
                return transfer;
            }, new DataTransfer())""",
            [[name, list(data)] for name, data in pictures],
        )
        for kind in ("dragover", "drop"):
            self.page.dispatch_event("body", kind, {"dataTransfer": files})

    def compare(self):
        """Press Compare and wait for the end of the run."""
        self.page.click("#compare")
        self.page.wait_for_selector("#stop", state="hidden")
        self.page.wait_for_selector("#compare:enabled")

    def rankings(self):
        """Return for each text the names of the pictures, best first, and their cosines."""
        rows = self.page.evaluate(
            """() => [...document.querySelectorAll("#results article")].map((card) => [
                card.querySelector("h2").textContent,
                [...card.querySelectorAll(".rank")].map((row) => [
                    row.querySelector(".name").textContent, row.querySelector(".value").textContent])])"""
        )
        return {
            text: [(name, float(value.replace("\u2212", "-"))) for name, value in ranked]
            for text, ranked in rows
        }

    def bodies(self):
        """Return the bodies of the embedding requests."""
        return [request.post_data_json for request in self.requests if request.method == "POST"]

    def _note(self, message) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(message.text)


def pictures():
    """Return the name and the PNG of a drawing for each of the texts."""
    drawn = []
    for scene, text in zip(SCENES, TEXTS, strict=True):
        data = io.BytesIO()
        draw(Scene(*scene), (200, 160)).save(data, "PNG")
        drawn.append((f"{text}.png", data.getvalue()))
    return drawn


def best(tab):
    """Return the name of the picture that stands first for each text."""
    return {text: ranked[0][0] for text, ranked in tab.rankings().items() if ranked}
