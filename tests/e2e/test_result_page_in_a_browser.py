"""The result page as a person sees it: in a real Chromium, wide and as narrow as a phone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import LocalSystem, make_shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")


@pytest.fixture(scope="module")
def result_page(
    local_system: LocalSystem, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """The page of one search, and the objects that the search answered."""
    folder = tmp_path_factory.mktemp("page")
    shop = make_shop(folder, 6)
    local_system.json("index", shop.catalogue, "--customer", "browser")
    page = folder / "page.html"
    photo = shop.photo(shop.products[0])
    found = local_system.json(
        "search", photo, "--customer", "browser", "-k", "3", "--explain", "--html", page
    )
    return page, found["objects"]


@pytest.mark.parametrize("width", [1100, 360])
def test_boxes_and_pictures_are_seen(result_page: tuple[Path, list[dict[str, Any]]], width: int) -> None:
    path, objects = result_page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(path.as_uri())
        assert page.locator(".photo .box").count() == len(objects)
        assert page.locator(".hits img").count() == sum(len(object_["hits"]) for object_ in objects)
        assert _loaded(page) == page.locator("img").count()
        photo = page.locator(".photo").bounding_box()
        box = page.locator(".photo .box").first.bounding_box()
        assert photo is not None
        assert box is not None
        x0, y0, x1, y1 = objects[0]["box"]
        drawn = [
            (box["x"] - photo["x"]) / photo["width"],
            (box["y"] - photo["y"]) / photo["height"],
            (box["x"] + box["width"] - photo["x"]) / photo["width"],
            (box["y"] + box["height"] - photo["y"]) / photo["height"],
        ]
        assert drawn == pytest.approx([x0, y0, x1, y1], abs=0.02)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not [url for url in requested if not url.startswith(("file:", "data:"))]
        browser.close()


def _loaded(page: Page) -> int:
    """How many pictures have really been drawn."""
    count: int = page.evaluate("[...document.images].filter(i => i.complete && i.naturalWidth > 0).length")
    return count
