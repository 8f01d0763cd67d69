"""Nothing is lost: by a reload, a crash of the server, a full disk, or another tab."""

import re

import pytest
from example_page import RunningApp

pytestmark = pytest.mark.browser

HEAD, BOX, ROCKET = (225, 90), ((150, 10), (300, 210)), ((350, 0), (460, 285))


def keep(driver, box=BOX):
    driver.press("b")
    driver.drag(*box)
    driver.settle()
    driver.press("Enter")


def test_a_reload_brings_back_objects_and_the_mask_in_progress(driver):
    keep(driver)
    driver.saved(1)
    driver.press("p")
    driver.click(405, 120)
    driver.click(405, 200)
    before = driver.answer()
    driver.page.reload()
    driver.ready()
    assert driver.answer() == before
    assert len(driver.objects()) == 1
    assert driver.is_painted(*HEAD)
    driver.press("Control+z")
    assert driver.answer()["steps"] == before["steps"][:1]
    driver.press("Control+y", "Enter")
    driver.saved(2)


def test_a_closed_tab_leaves_its_mask_to_the_next(app, photo, opened):
    first = opened(app, photo)
    first.click(*HEAD)
    before = first.answer()
    context = first.page.context
    first.page.close()
    second = opened(app, photo, context=context)
    assert second.answer() == before


def test_each_photo_keeps_its_own_mask_in_progress(app, driver):
    other = app.copy("cat.jpg", "beside.jpg")
    driver.click(*HEAD)
    before = driver.answer()
    driver.evaluate(
        "const {openPhoto, loadPhotos} = await at('photos'); await loadPhotos(); await openPhoto(given)", other
    )
    assert driver.answer() is None
    driver.evaluate("const {openPhoto} = await at('photos'); await openPhoto(given)", driver.photo)
    assert driver.answer() == before


def test_a_server_that_crashed_and_starts_again_has_everything(chromium, opened, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    app = RunningApp(folder)
    try:
        driver = opened(app, app.copy("astronaut.jpg", "one.jpg"))
        keep(driver)
        driver.saved(1)
        driver.press("p")
        driver.click(405, 120)
        driver.answer()
        app.kill()
        driver.press("Enter")
        driver.message("Not saved yet: The server does not answer")
        driver.page.locator("#saving", has_text="1 not saved").wait_for()
        assert len(driver.objects()) == 2, "the object stays in the page"
        app.start()
        driver.page.get_by_role("button", name=re.compile("Try (now|again)")).first.click()
        driver.saved(2)
        driver.open()
        assert len(driver.objects()) == 2
    finally:
        app.stop()


def test_what_was_not_saved_when_the_page_closed_is_saved_by_the_next(app, photo, opened):
    first = opened(app, photo)
    context = first.page.context
    context.route("**/objects", lambda route: route.abort())
    keep(first)
    first.message("Not saved yet")
    first.page.close(run_before_unload=False)
    context.unroute("**/objects")
    second = opened(app, photo, context=context)
    second.says_saved()
    second.page.wait_for_timeout(300)
    second.saved(1)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (507, "the change is not saved, the disk is full (x.samjax.json): what was saved before is kept; make room"),
        (503, "busy: 64 requests wait for the model already; try again soon"),
    ],
)
def test_a_full_disk_or_a_busy_server_is_told_and_tried_again(driver, status, text):
    refusals = []

    def refuse(route):
        refusals.append(route.request.post_data_json)
        if len(refusals) < 4:
            return route.fulfill(status=status, json={"error": text}, headers={"Retry-After": "1"})
        return route.continue_()

    driver.page.route("**/objects", refuse)
    keep(driver)
    driver.message(text[:40])
    driver.page.locator("#saving", has_text="1 not saved").wait_for()
    assert len(driver.objects()) == 1
    assert driver.is_painted(*HEAD)
    driver.page.locator("#retry").click()
    driver.saved(1)
    assert driver.page.locator(".message.error").count() == 0
    assert len({refusal["objects"][0]["id"] for refusal in refusals}) == 1


def test_an_object_whose_acknowledgement_was_lost_is_not_saved_twice(driver):
    lost = []

    def lose(route):
        if lost:
            return route.continue_()
        lost.append(route.fetch())
        return route.abort()

    driver.page.route("**/objects", lose)
    keep(driver)
    driver.saved(1)
    assert len(driver.objects()) == 1


def test_what_can_never_be_saved_is_told_and_can_be_discarded(driver):
    answer = {"error": "the mask of these steps is empty: there is nothing to keep"}
    driver.page.route("**/objects", lambda route: route.fulfill(status=400, json=answer))
    keep(driver)
    driver.message(answer["error"])
    assert len(driver.objects()) == 1
    driver.page.get_by_role("button", name="Discard it").click()
    assert driver.objects() == []
    driver.saved(0)


def test_two_tabs_on_one_photo_lose_nothing(app, photo, opened):
    first = opened(app, photo)
    second = opened(app, photo, context=first.page.context)
    third = opened(app, photo)  # of another browser, which hears nothing of the others
    keep(first)
    first.saved(1)
    second.page.locator("#objects li").wait_for()
    third.click(405, 120)
    third.answer()
    third.press("Enter")
    third.message("Another tab has changed this photo")
    third.saved(2)
    assert len(third.objects()) == 2
    keep(second, ((0, 0), (110, 400)))
    second.saved(3)
    first.page.evaluate("window.dispatchEvent(new Event('focus'))")
    first.page.locator("#objects li").nth(2).wait_for()


def test_tabs_keep_their_masks_in_progress_apart(app, photo, opened):
    first = opened(app, photo)
    second = opened(app, photo, context=first.page.context)
    first.click(*HEAD)
    one = first.answer()
    second.click(405, 120)
    other = second.answer()
    for driver, before in ((first, one), (second, other)):
        driver.page.reload()
        driver.ready()
        assert driver.answer() == before


def test_what_is_kept_in_the_browser_is_not_taken_for_another_photo_of_the_same_name(app, driver):
    driver.click(*HEAD)
    driver.answer()

    def other_pixels(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "hash": "0" * 64})

    driver.page.route(f"**/api/photos/{driver.photo}", other_pixels)
    driver.open()
    assert driver.answer() is None


def test_after_a_click_on_a_tool_enter_accepts_the_mask(driver):
    driver.click(*HEAD)
    driver.answer()
    driver.page.get_by_role("group", name="Which mask").get_by_role("button").nth(2).click()
    driver.press("Enter")
    driver.saved(1)


def test_what_waits_is_kept_though_the_photo_is_not_there_at_the_start(app, photo, opened):
    first = opened(app, photo)
    context = first.page.context
    context.route("**/objects", lambda route: route.abort())
    keep(first)
    first.message("Not saved yet")
    first.page.close(run_before_unload=False)
    failing = [True]
    context.route(
        f"**/api/photos/{photo}", lambda route: route.abort() if failing and failing.pop() else route.continue_()
    )
    second = opened(app, photo, context=context)
    assert len(second.objects()) == 1
    keep(second, ROCKET)
    second.eventually(lambda: len(second.objects()), 2)
    context.unroute("**/objects")
    second.page.locator("#retry").click()
    second.saved(2)
    assert second.evaluate("return Object.keys(localStorage).filter((key) => key.includes('outbox'))") == []


def test_clicks_that_wait_for_an_answer_survive_a_reload(driver):
    places = [(225, 90), (220, 160), (235, 60), (250, 120)]
    driver.page.route("**/segment/predict", lambda route: None)
    for place in places:
        driver.click(*place)
    driver.page.unroute("**/segment/predict")
    driver.page.reload()
    driver.ready()
    assert driver.answer()["steps"][-1]["points"] == [[*place, 1] for place in places]
    driver.press("Control+z")
    assert driver.answer()["steps"][-1]["points"] == [[*place, 1] for place in places[:-1]]


def test_a_browser_that_can_keep_nothing_more_is_told(driver):
    driver.evaluate("""for (let size = 4e6; size >= 1; size = Math.floor(size / 2)) {
        try { for (let n = 0; ; n++) localStorage.setItem(`full ${size} ${n}`, "x".repeat(size)); } catch {} }""")
    driver.click(*HEAD)
    driver.message("This browser's storage is full")
    driver.evaluate(
        "for (const key of Object.keys(localStorage)) if (key.startsWith('full')) localStorage.removeItem(key)"
    )
    driver.click(220, 160)
    driver.answer()
    assert driver.page.locator(".message").count() == 0


def test_all_changes_that_are_refused_can_be_discarded(driver):
    driver.page.route("**/objects", lambda route: route.fulfill(status=400, json={"error": "the mask is empty"}))
    keep(driver)
    driver.message("Not saved: the mask is empty")
    keep(driver, ROCKET)
    driver.message("2 changes are not saved")
    driver.page.locator("#saving", has_text="2 not saved").wait_for()
    driver.page.get_by_role("button", name="Discard all").click()
    assert driver.objects() == []
    driver.saved(0)
