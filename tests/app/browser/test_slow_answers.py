"""What is done while an answer is awaited is neither lost nor taken for something else."""

import pytest

pytestmark = pytest.mark.browser

HEAD, ROCKET, BOX = (225, 90), (405, 120), ((150, 10), (300, 210))


class Held:
    """Requests to which the answers are kept back until they are let go."""

    def __init__(self, driver, url, answered=False):
        self.driver, self.answered, self.holds, self.routes = driver, answered, True, []
        driver.page.route(url, self.take)

    def take(self, route):
        if '"preview":true' in (route.request.post_data or ""):
            route.abort()
        elif not self.holds:
            route.continue_()
        else:
            self.routes.append((route, route.fetch() if self.answered else None))

    def wait(self, count=1):
        self.driver.eventually(lambda: len(self.routes) >= count, True)

    def let_go(self):
        self.holds = False
        for route, answer in self.routes:
            if answer:
                route.fulfill(response=answer)
            else:
                route.continue_()


def test_a_click_between_enter_and_the_answer_is_on_the_next_object(driver):
    held = Held(driver, "**/segment/predict")
    driver.click(*HEAD)
    driver.press("Enter")
    driver.click(*ROCKET)
    held.wait(2)
    assert "All saved" not in driver.page.locator("#saving").inner_text()
    held.let_go()
    (saved,) = driver.saved(1)
    full = driver.app.get(f"/api/photos/{driver.photo}/objects/{saved['id']}")
    assert full["steps"][-1]["points"] == [[*HEAD, 1]]
    assert driver.answer()["steps"][-1]["points"] == [[*ROCKET, 1]]
    driver.press("Enter")
    driver.saved(2)


def test_several_clicks_before_enter_are_all_of_the_object(driver):
    held = Held(driver, "**/segment/predict")
    driver.click(*HEAD)
    driver.click(220, 160)
    driver.press("Enter")
    held.wait()
    held.let_go()
    assert driver.saved(1)[0]["clicks"] == 2


def test_what_was_accepted_is_saved_though_another_photo_is_shown(app, driver):
    other = app.copy("cat.jpg", "shown-meanwhile.jpg")
    held = Held(driver, "**/segment/predict")
    driver.click(*HEAD)
    driver.press("Enter")
    held.wait()
    show = "const {openPhoto, loadPhotos} = await at('photos'); await loadPhotos(); await openPhoto(given)"
    driver.evaluate(show, other)
    driver.ready()
    held.let_go()
    driver.saved(1)
    assert app.objects(other) == []
    driver.evaluate(show, driver.photo)
    assert driver.answer() is None
    assert len(driver.objects()) == 1
    driver.press("Control+z")
    driver.saved(0)


def test_undo_before_the_answer_takes_back_that_the_mask_was_accepted(driver):
    held = Held(driver, "**/segment/predict")
    driver.click(*HEAD)
    driver.press("Enter")
    held.wait()
    driver.press("Control+z")
    held.let_go()
    assert driver.answer()["steps"][-1]["points"] == [[*HEAD, 1]]
    driver.says_saved()
    assert driver.objects() == []


def test_an_accepted_mask_that_is_refused_is_in_progress_again(driver):
    driver.page.route("**/segment/predict", lambda route: route.fulfill(status=400, json={"error": "it cannot be"}))
    driver.click(*HEAD)
    driver.press("Enter")
    driver.message("it cannot be")
    driver.page.unroute("**/segment/predict")
    driver.page.locator(".message").get_by_role("button", name="Try again").click()
    assert driver.answer()["of"] == 3
    driver.press("Enter")
    driver.saved(1)


def test_a_late_answer_about_the_photo_does_not_take_away_what_was_saved_since(driver):
    held = Held(driver, f"**/api/photos/{driver.photo}", answered=True)
    driver.page.evaluate("window.dispatchEvent(new Event('focus'))")
    held.wait()
    driver.click(*HEAD)
    driver.answer()
    driver.press("Enter")
    driver.saved(1)
    held.let_go()
    driver.page.wait_for_timeout(200)
    assert len(driver.objects()) == 1


def test_a_correction_that_comes_late_does_not_replace_clicks(driver):
    driver.press("b")
    driver.drag(*BOX)
    driver.settle()
    driver.press("Enter")
    driver.saved(1)
    driver.press("v")
    driver.click(*HEAD)
    held = Held(driver, "**/objects/*")
    driver.press("c")
    held.wait()
    driver.press("p")
    driver.click(*ROCKET)
    before = driver.answer()
    held.let_go()
    driver.page.wait_for_timeout(200)
    assert driver.answer() == before


def test_the_time_of_a_refinement_is_until_its_own_mask_is_drawn(driver):
    driver.click(*HEAD)
    driver.answer()
    held = Held(driver, "**/segment/predict")
    driver.click(220, 160)
    held.wait()
    driver.page.wait_for_timeout(400)
    held.let_go()
    driver.answer()
    driver.settle()
    assert driver.page.evaluate("performance.getEntriesByName('click').at(-1).duration") > 400


def test_a_class_that_is_saved_leaves_alone_what_is_typed_meanwhile(app, driver, classes):
    driver.open()
    driver.page.locator("[data-action=editClasses]").click()
    held = Held(driver, "**/api/classes", answered=True)
    driver.page.get_by_label("New class").fill("moon")
    driver.page.keyboard.press("Enter")
    held.wait()
    name = driver.page.get_by_label("Name of class 1")
    name.select_text()
    held.let_go()
    driver.says_saved()
    driver.page.keyboard.type("pilot")
    name.press("Tab")
    driver.eventually(lambda: list(app.classes()), ["pilot", "rocket", "moon"])
