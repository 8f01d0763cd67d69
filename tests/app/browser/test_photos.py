"""The folder: photos one after the other, those that cannot be read, new ones, and large ones."""

import shutil

import numpy as np
import pytest
from example_page import SHIPPED, RunningApp
from PIL import Image

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder_app(chromium, tmp_path_factory):
    """A server on a folder with a damaged photo between two good ones."""
    folder = tmp_path_factory.mktemp("folder") / "photos"
    folder.mkdir()
    shutil.copy(SHIPPED / "astronaut.jpg", folder / "a.jpg")
    (folder / "b.jpg").write_bytes((SHIPPED / "cat.jpg").read_bytes()[:4000])
    shutil.copy(SHIPPED / "cat.jpg", folder / "c <i>cat<i>.jpg")
    app = RunningApp(folder)
    yield app
    app.stop()


def test_a_photo_that_cannot_be_read_is_told_and_the_others_go_on(folder_app, opened):
    driver = opened(folder_app, folder_app.photo("a.jpg"))
    driver.press("PageDown")
    notice = driver.page.locator("#notice")
    notice.get_by_role("heading", name="This photo cannot be shown").wait_for()
    assert "b.jpg" in notice.inner_text()
    assert "cannot be read" in notice.inner_text() or "damaged" in notice.inner_text()
    driver.page.locator("#tab-photos").click()
    assert "cannot be read" in driver.page.locator("#photos li").nth(1).inner_text()
    notice.get_by_role("button", name="Next photo").click()
    driver.ready()
    driver.click(200, 150)
    assert driver.answer()["of"] == 3
    assert driver.page.locator("#photo-name").inner_text() == "c <i>cat<i>.jpg"
    driver.press("Escape", "PageUp")
    notice.wait_for()


def test_a_photo_that_is_repaired_is_shown_with_its_picture(folder_app, opened):
    damaged = folder_app.folder / "b.jpg"
    content = damaged.read_bytes()
    driver = opened(folder_app, folder_app.photo("a.jpg"))
    page = driver.page
    page.locator("#tab-photos").click()
    row = page.locator("#photos li").nth(1)
    driver.press("PageDown")
    page.get_by_role("heading", name="This photo cannot be shown").wait_for()
    assert page.locator("#zoom").inner_text() == "–"
    assert row.locator("img").count() == 0
    try:
        shutil.copy(SHIPPED / "cat.jpg", damaged)
        page.locator("#notice").get_by_role("button", name="Try again").click()
        driver.ready()
        row.locator("img").wait_for()
        assert "cannot be read" not in row.inner_text()
        assert page.locator("#zoom").inner_text().endswith("%")
    finally:
        damaged.write_bytes(content)


def test_an_address_that_names_no_photo_opens_the_first(app, driver):
    page = driver.page
    page.goto("about:blank")
    page.goto(f"{app.address}/#%")
    driver.ready()
    page.evaluate("location.hash = '#%E0%A4%A'")
    page.wait_for_timeout(50)
    assert page.locator(".message").count() == 0


def test_photos_are_gone_through_and_marked_as_done(folder_app, opened):
    driver = opened(folder_app, folder_app.photo("a.jpg"))
    page = driver.page
    page.locator("#tab-photos").click()
    assert page.locator("#photos li").count() == 3
    assert page.locator("#previous").is_disabled()
    driver.press("g")
    driver.says_saved()
    page.get_by_text("1 of 3 done").wait_for()
    assert "done" in page.locator("#photos li").first.inner_text()
    page.locator("#photos").get_by_role("button", name="cat").click()
    driver.ready()
    assert page.locator("#next").is_disabled()
    page.reload()
    driver.ready()
    assert page.locator("#photo-name").inner_text() == "c <i>cat<i>.jpg", "a reload stays with the photo"
    assert folder_app.get("/api/photos")["photos"][0]["done"]
    page.locator("#previous").click()
    page.locator("#previous").click()
    driver.ready()
    page.locator("#done").click()
    driver.says_saved()
    assert not folder_app.get("/api/photos")["photos"][0]["done"]


def test_photos_are_added_by_a_button_and_by_dropping_them(app, driver):
    page = driver.page
    page.locator("#tab-photos").click()
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Add photos").click()
    choosing.value.set_files([SHIPPED / "rocket.jpg"])
    driver.page.locator("#photo-name", has_text="rocket").wait_for()
    driver.ready()
    driver.click(320, 220)
    assert driver.answer()["of"] == 3
    data = page.evaluate_handle(
        """async () => { const transfer = new DataTransfer();
        transfer.items.add(new File(['no picture'], 'bad.jpg', {type: 'image/jpeg'})); return transfer }"""
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    page.get_by_text("Drop photos to add them").wait_for()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    driver.message("bad.jpg is not added")


def test_the_wheel_keys_and_buttons_zoom_and_the_photo_is_moved(driver):
    page = driver.page
    scale = lambda: driver.evaluate("const {camera} = await at('camera'); return camera.scale")  # noqa: E731
    fitted = scale()
    place = driver.place(400, 100)
    page.mouse.move(*place)
    page.mouse.wheel(0, -500)
    assert scale() > fitted * 1.5
    assert driver.place(400, 100) == pytest.approx(place, abs=1), "the pixel below the pointer stays there"
    driver.press("Shift+F")
    assert scale() == 1
    assert page.locator("#zoom").inner_text() == "100 %"
    driver.press("+")
    assert scale() == 1.25
    page.get_by_role("button", name="Zoom out").click()
    assert scale() == 1
    before = driver.place(256, 256)
    page.locator("#surface").focus()
    page.keyboard.down("Space")
    driver.drag((256, 256), (300, 220))
    page.keyboard.up("Space")
    after = driver.place(256, 256)
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((44, -36), abs=2)
    assert driver.answer() is None, "a drag is no click"
    driver.press("f")
    assert scale() == fitted


def test_a_photo_of_50_megapixels_comes_in_tiles_of_what_is_seen(app, opened, tmp_path):
    y, x = np.mgrid[:5760, :8640]
    pixels = np.stack([x % 256, y % 256, (x // 34 + y // 23) % 256], -1).astype(np.uint8)
    pixels[2000:3500, 3000:5200] = (250, 40, 40)
    Image.fromarray(pixels).save(app.folder / "large.jpg")
    driver = opened(app, app.photo("large.jpg"), load=False)
    asked = []
    driver.page.on(
        "request", lambda request: "/tiles/" in request.url and asked.append(request.url.split("/tiles/")[1])
    )
    driver.open()
    driver.page.wait_for_timeout(1500)
    assert asked
    assert all(int(tile.split("/")[0]) >= 2 for tile in asked), "no tile of full size for a whole photo on a screen"
    assert len(asked) < 40
    sent = []
    driver.page.on("request", lambda request: "predict" in request.url and sent.append(request.post_data_json))
    driver.click(4100, 2700)
    answer = driver.answer()
    assert (sent[-1]["max_side"], "tolerance" in sent[-1]) == (1024, False)
    size = driver.evaluate(
        "const {shownAnswer} = await at('draft'); return JSON.stringify(shownAnswer().polygons).length"
    )
    assert answer["area"] > 0
    assert size < 500_000
    asked.clear()
    driver.press("Shift+F")
    driver.page.wait_for_timeout(1500)
    levels = [tile.split("/")[0] for tile in asked]
    assert levels.count("0") in range(4, 25)
    driver.click(4150, 2750)
    driver.answer()
    assert (sent[-1]["max_side"], "tolerance" in sent[-1]) == (2048, False)
    frames = driver.evaluate("""const {panBy} = await at('camera'); const times = [];
        for (let step = 0, before = performance.now(); step < 40; step++) {
            panBy(-15, -8); await new Promise(requestAnimationFrame);
            times.push(performance.now() - before); before = performance.now(); }
        return times""")
    assert sorted(frames)[20] < 100, "moving stays fluid"
    driver.press("Enter")
    driver.saved(1)


def test_a_folder_without_photos_asks_for_some(chromium, opened, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    app = RunningApp(folder)
    try:
        driver = opened(app, "", load=False)
        driver.page.goto(app.address)
        driver.page.get_by_role("heading", name="No photos yet").wait_for()
        with driver.page.expect_file_chooser() as choosing:
            driver.page.locator("#notice").get_by_role("button", name="Add photos").click()
        choosing.value.set_files([SHIPPED / "cat.jpg"])
        driver.ready()
    finally:
        app.stop()


def test_what_was_not_imported_is_told_and_stays_until_it_is_closed(app, photo, opened):
    driver = opened(app, photo, load=False)

    def with_notes(route):
        answer = route.fetch()
        content = answer.json()
        content["work"]["notes"] = ["2 annotations of this photo are not imported.", "<b>Void pixels</b> neither."]
        route.fulfill(response=answer, json=content)

    driver.page.route(f"**/api/photos/{photo}", with_notes)
    driver.open()
    message = driver.page.locator("#messages .message")
    message.get_by_text("2 annotations of this photo are not imported. <b>Void pixels</b> neither.").wait_for()
    driver.page.wait_for_timeout(5_500)
    assert message.count() == 1
    message.get_by_role("button", name="Dismiss").click()
    assert message.count() == 0
