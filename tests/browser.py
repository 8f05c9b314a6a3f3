"""Pages opened in the distribution's own Chromium, with all it complained about and asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Visit:
    """A page that was opened: what is on it, what it complained about, what it asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def barriers(self) -> list[str]:
        """What axe finds that shuts somebody out: its serious and critical findings."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{rule['id']}: {rule['nodes'][0]['html']}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]


@contextlib.contextmanager
def open_page(
    address: str | Path, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Visit]:
    """Open a file or an address headless; without a Chromium the test is skipped, with a word."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get("TOWERNET_BROWSER") == "required":
        pytest.fail("TOWERNET_BROWSER is 'required' and there is no Chromium")
    if found is None:
        pytest.skip("no Chromium here: install the distribution's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox needs privileges that containers do not give.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        visit = Visit(page)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning") and visit.errors.append(message.text)
            ),
        )
        page.on("request", lambda request: visit.requests.append(request.url))
        page.goto(address.as_uri() if isinstance(address, Path) else address)
        page.wait_for_load_state("load")
        yield visit
        browser.close()
