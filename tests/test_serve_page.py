"""The page in a real browser: drawing, cancelling, reusing, editing, walking, measuring, keys."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from browser import Watched
from PIL import Image
from serving import serving
from studio_page import browser, folder, page, server, watched  # noqa: F401

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SCREENSHOT = ROOT / "docs" / "images" / "studio.webp"


def shown(page) -> str:
    return page.locator("#picture").get_attribute("src")


def names(page) -> list[str]:
    return page.locator("#pictures [role=option]").evaluate_all(
        "all => all.map(o => o.dataset.name)"
    )


def drop(page, path: Path) -> None:
    data = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: "image/png"}));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer,
                    bubbles: true, cancelable: true}));
            }
        }""",
        [data, path.name],
    )


def test_a_prompt_becomes_a_picture_with_partial_ones_on_the_way(watched, page):
    page.evaluate(
        """() => {
            window.seen = [];
            const shown = document.getElementById("picture");
            new MutationObserver(() => window.seen.push(shown.src))
                .observe(shown, {attributes: true, attributeFilter: ["src"]});
        }"""
    )
    before = len(names(page))
    page.get_by_label("Prompt", exact=True).fill("a fox in snow")
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("#picture.rough", timeout=60_000)
    assert page.locator("#phase").inner_text()
    watched.idle()
    seen = list(dict.fromkeys(page.evaluate("window.seen")))
    assert len([src for src in seen if src.startswith("data:image/webp")]) == 3  # one a block
    assert "/files/" in seen[-1] and shown(page) in seen[-1]
    assert "seed 11" in page.locator("#facts").inner_text()
    assert len(names(page)) == before + 1
    assert page.locator("#message").inner_text() == "The picture is drawn."


def test_words_that_the_model_does_not_know_are_marked_while_typing(page):
    page.get_by_label("Prompt", exact=True).press_sequentially("a dragon in snow")
    assert page.locator("#unknown").inner_text() == "Not known to this model: dragon"
    assert page.locator("#marks mark").all_inner_texts() == ["dragon"]
    page.get_by_label("Prompt", exact=True).fill("a fox in snow")
    assert page.locator("#marks mark").count() == 0


def test_escape_cancels(watched, page, server):
    before = names(page)
    page.locator("#more summary").click()
    page.get_by_label("Pictures", exact=True).fill("10")
    page.get_by_label("Prompt", exact=True).fill("a fox in snow")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#phase:not(:has-text('Starting'))")
    page.keyboard.press("Escape")
    watched.idle(30)
    assert page.locator("#message").inner_text() == "Cancelled."
    job = list(server.studio.scheduler._jobs.values())[-1]
    deadline = time.monotonic() + 10
    while job.state != "cancelled":
        assert time.monotonic() < deadline, job.state
        time.sleep(0.02)
    assert names(page) == before
    page.get_by_label("Pictures", exact=True).fill("1")


def test_dropping_a_picture_anywhere_reuses_its_settings(page, folder):
    drop(page, folder / "picture-3.png")
    page.wait_for_selector("#message:has-text('settings are in the form')")
    assert page.get_by_label("Prompt", exact=True).input_value() == "a cat on a beach"
    assert page.get_by_label("Seed", exact=True).input_value() == "2"
    assert page.get_by_label("Keep it").is_checked()


def test_a_picture_without_settings_can_still_be_worked_on(page, tmp_path):
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "plain.png")
    page.locator("#open").set_input_files(tmp_path / "plain.png")
    page.wait_for_selector("#message:has-text('has no settings')")
    assert page.get_by_role("tab", name="Surprise").is_visible()
    assert not page.get_by_role("button", name="Delete").is_visible()


def test_painting_a_mask_and_editing(watched, page, server):
    page.locator("#pictures [role=option]").last.click()
    before = names(page)
    page.get_by_role("tab", name="Edit").click()
    page.wait_for_selector("#paint", state="visible")
    box = page.locator("#paint").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.2, steps=4)
    page.mouse.up()
    page.get_by_label("Best of").last.fill("2")
    page.get_by_role("button", name="Redraw").click()
    page.wait_for_selector("#progress", state="visible")
    watched.idle()
    (new,) = set(names(page)) - set(before)
    row = server.get(f"/api/gallery/{new}").json()
    assert row["settings"]["command"] == "edit"
    assert len(row["settings"]["best_of"]["seeds"]) == 2
    folder = server.studio.gallery.folder
    old, made = (np.asarray(Image.open(folder / n).convert("RGB"), int) for n in (before[-1], new))
    assert (old[64:] == made[64:]).all() and (old[:, :64] == made[:, :64]).all()
    assert (old[:40, 80:] != made[:40, 80:]).any()


def test_the_slider_between_two_pictures(watched, page):
    page.locator("#pictures [role=option]").last.click()
    page.get_by_role("tab", name="Between").click()
    page.locator("#other").select_option("picture-4.png")
    page.get_by_role("button", name="Draw the pictures between").click()
    page.wait_for_selector("#progress", state="visible")
    watched.idle()
    slider = page.get_by_label("Position between the two")
    sources = set()
    for place in range(9):
        slider.fill(str(place))
        sources.add(shown(page))
        assert page.locator("#picture").get_attribute("alt") == f"Picture {place + 1} of 9"
    assert len(sources) == 9


def test_the_slider_around_one_picture(watched, page):
    page.locator("#pictures [role=option]").last.click()
    before, count = shown(page), len(names(page))
    page.get_by_role("tab", name="Vary").click()
    page.get_by_label("How far from this picture").fill("0.4")
    page.locator("#strength").dispatch_event("change")
    page.wait_for_selector("#vary-keep:not([disabled])", timeout=60_000)
    watched.idle()
    assert shown(page) != before and len(names(page)) == count
    page.get_by_role("button", name="Keep this one").click()
    page.wait_for_selector("#progress", state="visible")
    watched.idle()
    assert len(names(page)) == count + 1


def test_the_surprise_map_is_read_and_the_prompts_compared(watched, page):
    page.locator("#pictures [role=option][data-name='picture-4.png']").click()
    page.get_by_role("tab", name="Surprise").click()
    lines = page.get_by_label("Prompts to compare, one per line")
    assert lines.input_value().split("\n")[0] == "a fox in snow"
    page.get_by_role("button", name="Measure").click()
    page.wait_for_selector("#scores table", timeout=60_000)
    watched.idle()
    first = page.locator("#scores tbody tr").first.inner_text()
    assert first.startswith("a fox in snow") and "%" in first
    page.locator("#map").hover(position={"x": 30, "y": 30})
    assert page.locator("#reading").inner_text().startswith("Row 1, column 1: ")


def test_the_gallery_survives_reload_and_restart(watched, page, browser, folder):
    before = names(page)
    watched.open()
    assert names(page) == before
    with serving(None, folder) as other:
        again = Watched(browser, other.url)
        assert names(again.page) == before
        assert again.page.locator("#pictures img").first.evaluate(
            "i => i.decode().then(() => i.naturalWidth)"
        )
        again.check()
        again.context.close()


def test_everything_by_keyboard(watched, page):
    """Every step uses only keys, starting at the top of the page."""
    keys = page.keyboard

    def reach(selector: str) -> None:
        for _ in range(80):
            if page.evaluate("s => document.activeElement?.matches(s)", selector):
                return
            keys.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    def settled() -> None:
        page.wait_for_selector("#progress", state="visible")
        watched.idle()

    reach("#prompt")
    keys.type("a fox in snow")
    keys.press("Control+Enter")
    settled()
    drawn = shown(page)
    assert "/files/" in drawn
    reach("#pictures [role=option]")
    keys.press("ArrowRight")
    assert shown(page) != drawn
    keys.press("ArrowLeft")
    assert shown(page) == drawn
    keys.press("End")
    keys.press("Home")
    page.evaluate("document.activeElement.blur()")
    keys.press("ArrowRight")
    assert shown(page) != drawn
    page.evaluate("document.getElementById('reuse').focus()")
    keys.press("Enter")
    assert page.locator("#message").inner_text() == "Its settings are in the form."

    reach("[role=tab]")
    keys.press("Enter")  # edit
    page.wait_for_selector("#paint", state="visible")
    count = len(names(page))
    page.evaluate("document.activeElement.blur()")
    reach("#paint")
    for key in ("ArrowUp", "ArrowUp", "Space", "Shift+ArrowRight", "Space"):
        keys.press(key)
    reach("#edit-go")
    keys.press("Enter")
    settled()
    assert len(names(page)) == count + 1

    page.evaluate("document.querySelector('[role=tab][tabindex=\"0\"]').focus()")
    for _ in range(2):
        keys.press("ArrowRight")
    keys.press("Enter")  # between
    reach("#between-go")
    keys.press("Enter")
    settled()
    at_start = shown(page)
    reach("#place")
    keys.press("ArrowRight")
    assert shown(page) != at_start

    page.evaluate("document.querySelector('[role=tab][tabindex=\"0\"]').focus()")
    keys.press("ArrowRight")
    keys.press("Enter")  # surprise
    reach("#score-go")
    keys.press("Enter")
    settled()
    page.evaluate("document.activeElement.blur()")
    reach("#map")
    keys.press("ArrowRight")
    assert page.locator("#reading").inner_text().startswith("Row 1, column 2: ")


def test_the_screenshot_of_the_readme(watched, page, tmp_path):
    """Written to docs/images where MLX_STARFLOW_SCREENSHOT is set (make screenshot)."""
    page.set_viewport_size({"width": 1280, "height": 1180})
    page.locator("#pictures [role=option][data-name='picture-4.png']").click()
    page.get_by_role("button", name="Reuse settings").click()
    page.get_by_role("tab", name="Surprise").click()
    page.get_by_role("button", name="Measure").click()
    page.wait_for_selector("#scores table", timeout=60_000)
    watched.idle()
    page.locator("#opacity").fill("0.45")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.evaluate("document.getElementById('model').textContent = 'paintings'")  # not the machine
    page.screenshot(path=tmp_path / "studio.png")
    image = Image.open(tmp_path / "studio.png").convert("RGB")
    assert image.size == (1280, 1180) and len(image.getcolors(1 << 24)) > 1000
    if os.environ.get("MLX_STARFLOW_SCREENSHOT"):
        image.save(SCREENSHOT, quality=82, method=6)
        assert SCREENSHOT.stat().st_size < 300_000
    assert json.dumps(names(page))
