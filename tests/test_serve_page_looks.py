"""The page for everyone: accessibility, widths of the window, keys, text from elsewhere."""

from __future__ import annotations

import pytest
from browser import Watched
from PIL import Image
from serving import serving
from studio_page import browser, folder, page, server, watched  # noqa: F401

pytestmark = pytest.mark.slow


def test_a_checker_of_accessibility_finds_nothing_serious(watched, page):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core is not installed"
    ).Axe()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for tool in ("Edit", "Vary", "Between", "Surprise"):
            page.get_by_role("tab", name=tool).click()
            found = axe.run(page).response["violations"]
            bad = [(v["id"], [n["html"][:100] for n in v["nodes"]]) for v in found
                   if v["impact"] in ("serious", "critical")]  # fmt: skip
            assert not bad, (scheme, tool, bad)
    page.locator("#more summary").click()
    page.locator("#words summary").click()
    assert not [v["id"] for v in axe.run(page).response["violations"] if v["impact"] == "serious"]


@pytest.mark.parametrize("width", [1440, 800, 375])
def test_nothing_sticks_out_at_any_width(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for tool in ("Edit", "Vary", "Between", "Surprise"):
        page.get_by_role("tab", name=tool).click()
        wide = page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
                && e.getBoundingClientRect().right > innerWidth + 1
                && !e.closest("#strip")).map((e) => e.id || e.tagName)"""
        )
        assert not wide and page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_key_is_asked_for_and_kept(browser, folder, colours):
    with serving(colours, folder, api_key="secret") as locked:
        context = browser.new_context()
        page = context.new_page()
        page.goto(locked.url)
        page.wait_for_selector("#key-dialog[open]")
        page.get_by_label("This server asks for a key").fill("secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("html[data-ready]", state="attached")
        assert page.locator("#pictures img").first.evaluate(
            "i => i.decode().then(() => i.naturalWidth)"
        )
        context.close()


def test_hostile_settings_are_shown_as_text(browser, server, folder):
    """The settings of a picture from elsewhere may contain any text."""
    evil = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'
    from mlx_starflow.pictures.metadata import save_picture

    path = save_picture(
        Image.new("RGB", (8, 8)), folder / "evil.png",
        {"generator": "mlx-starflow", "prompt": evil, "seed": evil, "guidance": evil},
    )  # fmt: skip
    try:
        watched = Watched(browser, server.url)
        watched.page.locator("#pictures [role=option][data-name='evil.png']").click()
        assert evil in watched.page.locator("#facts").inner_text()
        watched.page.get_by_role("button", name="Reuse settings").click()
        assert watched.page.get_by_label("Prompt", exact=True).input_value() == evil
        assert watched.page.evaluate("window.hurt") is None
        watched.check()
        watched.context.close()
    finally:
        path.unlink()
