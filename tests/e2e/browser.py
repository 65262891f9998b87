"""Debian's Chromium through Playwright, a login, and axe."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Frame, FrameLocator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")  # the first takes half the CPU
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--js-flags=--no-opt --single-threaded",  # no page lives long enough to earn its optimized code: a fifth less CPU
]
expect.set_options(timeout=30_000)  # its five seconds are too few for the first page of a busy machine
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium-headless-shell")

# Without a GPU each frame of a spinner is drawn by the CPU: an open page took a fifth of a core, and takes a thirtieth.
STILL = """
const still = new CSSStyleSheet()
still.replaceSync("*, *::before, *::after { animation: none !important; transition: none !important }")
document.adoptedStyleSheets = [still]
"""

# A frame around the page can't be told its size, and is the shell's: only rules about the page's own content count.
SERIOUS = ("serious", "critical")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, url: str, username: str, password: str) -> None:
    """Shows Airflow's window to a user, with nothing in it that moves by itself."""
    page.add_init_script(STILL)
    page.goto(url)
    page.fill("input[name=username]", username)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(re.compile(re.escape(url) + "/?$"))


def parity(page: Page, url: str, route: str = "parity") -> FrameLocator:
    """The Parity page inside Airflow's window, loaded."""
    page.goto(f"{url}/plugin/{route}")
    frame = page.frame_locator("iframe[title=Parity]")
    frame.locator("main[aria-busy=false]").wait_for(timeout=60_000)
    return frame


def serious(page: Page | Frame) -> list[str]:
    """What axe calls serious or critical, one line each."""
    found: dict[str, Any] = Axe().run(page).response
    return [
        f"{v['id']}: {node['html'][:120]}" for v in found["violations"] if v["impact"] in SERIOUS for node in v["nodes"]
    ]


@contextlib.contextmanager
def elsewhere(html: str) -> Iterator[str]:
    """Another site with one page: `localhost` is none of the sites at 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(html.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
