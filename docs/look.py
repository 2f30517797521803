"""Opens pages of the built site in chromium, in a narrow and a wide window, light and dark; keeps a screenshot each.

Fails at a message in the browser's console, at a request that fails or leaves this machine, and where a page is wider
than its window.

python docs/look.py docs/_build/html docs/_build/screenshots          # needs playwright, and chromium on PATH
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

PAGES = (
    "index.html",
    "install.html",
    "choosing.html",
    "gallery/index.html",
    "gallery/vamp_prior.html",
    "api/pyvae.elbo_loss.html",
    "api/pyvae.NegativeBinomial.html",
    "mathematics.html",
    "migrating.html",
    "recipes.html",
    "numerics.html",
    "performance.html",
)
WIDTHS = {"narrow": 390, "wide": 1280}
# The page's width beyond its window's.
OVERFLOW = "() => document.documentElement.scrollWidth - window.innerWidth"


def faults_of(browser: Any, site: Path, page_name: str, width: int, scheme: str, picture: Path) -> list[str]:
    found: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: found.append(f"console: {message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("requestfailed", lambda request: found.append(f"request failed: {request.url}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else found.append(f"network: {r.url}"))
    page.goto((site / page_name).resolve().as_uri())
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready")
    overflow = page.evaluate(OVERFLOW)
    if overflow > 0:
        found.append(f"{overflow} px wider than the window")
    page.screenshot(path=str(picture), full_page=True)
    page.close()
    return found


def main() -> None:
    site, out = map(Path, sys.argv[1:3])
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("look.py: there is no chromium on PATH (in Debian: apt-get install chromium)")
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for page_name in PAGES:
            for name, width in WIDTHS.items():
                for scheme in ("light", "dark"):
                    picture = out / f"{page_name.replace('/', '-')[:-5]}-{name}-{scheme}.png"
                    found = faults_of(browser, site, page_name, width, scheme, picture)
                    failed += len(found)
                    print(f"{page_name} {name} {scheme}: {'; '.join(found) or 'fine'}")
        browser.close()
    if failed:
        sys.exit(f"{failed} faults")


if __name__ == "__main__":
    main()
