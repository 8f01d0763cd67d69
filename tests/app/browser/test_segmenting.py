"""Clicks, boxes and drawn shapes become masks, step by step."""

import pytest

pytestmark = pytest.mark.browser

HEAD = (225, 90)  # a pixel of the astronaut's face
BESIDE = (335, 60)  # of the wall behind her
BOX = ((150, 10), (300, 210))  # around her head


def test_a_click_gives_a_mask_on_the_photo(driver):
    assert not driver.is_painted(*HEAD)
    driver.click(*HEAD)
    answer = driver.answer()
    assert answer["steps"] == [{"points": [[*HEAD, 1]], "multimask": True, "chosen": answer["chosen"]}]
    assert driver.is_painted(*driver.pixel_of_mask())
    assert not driver.is_painted(505, 505)


def test_the_first_click_gives_three_masks_and_the_most_confident_is_chosen(driver):
    driver.click(*HEAD)
    assert driver.answer()["of"] == 3
    masks = driver.page.get_by_role("group", name="Which mask").get_by_role("button")
    scores = [float(text.split("score ")[1]) for text in (mask.get_attribute("aria-label") for mask in masks.all())]
    assert masks.nth(scores.index(max(scores))).get_attribute("aria-pressed") == "true"
    before = driver.answer()
    driver.press(".")
    after = driver.answer()
    assert after["chosen"] == (before["chosen"] + 1) % 3
    assert after["area"] != before["area"]
    masks.nth(before["chosen"]).click()
    assert driver.answer() == before


def test_further_clicks_refine_the_chosen_mask(driver):
    driver.click(*HEAD)
    driver.press(".")
    first = driver.answer()
    driver.click(*BESIDE, button="right")
    second = driver.answer()
    assert second["of"] == 1
    last = second["steps"][-1]
    assert (last["points"], last["refine"], last["multimask"]) == ([[*HEAD, 1], [*BESIDE, 0]], True, False)
    assert second["steps"][0]["chosen"] == first["chosen"]
    assert not driver.is_painted(BESIDE[0] - 8, BESIDE[1])
    driver.page.keyboard.down("Shift")
    driver.click(300, 300)
    driver.page.keyboard.up("Shift")
    assert driver.answer()["steps"][-1]["points"][-1] == [300, 300, 0]


def test_three_masks_can_be_asked_for_again(driver):
    driver.click(*HEAD)
    driver.click(220, 160)
    assert driver.answer()["of"] == 1
    driver.press("m")
    assert driver.answer()["of"] == 3
    driver.press("m")
    assert driver.answer()["of"] == 1


def test_a_switch_makes_clicks_fall_beside_the_object(driver):
    driver.click(*HEAD)
    driver.page.get_by_role("button", name="Background").click()
    driver.click(*BESIDE)
    assert driver.answer()["steps"][-1]["points"] == [[*HEAD, 1], [*BESIDE, 0]]
    driver.press("x")
    driver.click(220, 160)
    assert driver.answer()["steps"][-1]["points"][-1] == [220, 160, 1]


def test_a_point_beside_the_object_is_no_beginning(driver):
    driver.click(*BESIDE, button="right")
    driver.message("Begin with a point on the object")
    assert driver.answer() is None


def test_a_box_gives_one_mask_within_it(driver):
    driver.press("b")
    driver.drag(*BOX)
    answer = driver.answer()
    assert answer["steps"] == [{"box": [150, 10, 300, 210], "multimask": False, "chosen": 0}]
    x0, y0, x1, y1 = answer["box"]
    assert x0 > 130
    assert y0 > 0
    assert x1 < 320
    assert y1 < 230
    assert driver.is_painted(*HEAD)
    driver.press("p")
    driver.click(220, 160)
    last = driver.answer()["steps"][-1]
    assert (last["box"], last["points"], last["refine"]) == ([150, 10, 300, 210], [[220, 160, 1]], True)


def test_undo_and_redo_go_through_the_clicks(driver):
    driver.click(*HEAD)
    one = driver.answer()
    driver.click(*BESIDE, button="right")
    two = driver.answer()
    driver.press("Control+z")
    assert driver.answer() == one
    driver.press("Control+z")
    assert driver.answer() is None
    assert not driver.is_painted(*HEAD)
    driver.press("Control+y", "Control+Shift+z")
    assert driver.answer() == two


def test_escape_cancels_and_undo_brings_the_mask_back(driver):
    driver.click(*HEAD)
    before = driver.answer()
    driver.press("Escape")
    assert driver.answer() is None
    driver.page.locator("#undo").click()
    assert driver.answer() == before


def test_a_lasso_becomes_a_mask_prompt(driver):
    driver.press("l")
    driver.drag((225, 15), (165, 80), (170, 160), (225, 205), (285, 160), (295, 80), (230, 15))
    answer = driver.answer()
    (step,) = answer["steps"]
    (outline,) = step["mask"]["outlines"]
    assert len(outline) > 10
    assert step["box"][0] == pytest.approx(165, abs=2)
    assert driver.is_painted(*HEAD)


def test_a_lasso_of_corners_is_closed_by_enter(driver):
    driver.press("l")
    for corner in ((225, 15), (165, 80), (225, 205), (295, 80)):
        driver.click(*corner)
    driver.press("Enter")
    (step,) = driver.answer()["steps"]
    assert step["mask"]["outlines"] == [[[225.5, 15.5], [165.5, 80.5], [225.5, 205.5], [295.5, 80.5]]]


def test_the_brush_adds_and_erases(driver):
    driver.press("d", "]", "]")
    driver.drag((200, 50), (240, 60), (225, 180))
    painted = driver.answer()
    (step,) = painted["steps"]
    (stroke,) = step["mask"]["strokes"]
    assert stroke["radius"] > 12
    assert "erase" not in stroke
    count = len(step["points"])
    assert 1 <= count <= 5
    assert all(label == 1 and 190 < x < 250 and 40 < y < 190 for x, y, label in step["points"])
    assert driver.is_painted(*HEAD)
    driver.press("x")
    driver.drag((180, 60), (280, 60))
    erased = driver.answer()
    mask = erased["steps"][-1]["mask"]
    assert mask["strokes"][0]["erase"] is True
    assert mask["rle"]["size"] == [512, 512]
    assert {label for *_, label in erased["steps"][-1]["points"][count:]} == {0}
    assert erased["area"] != painted["area"]
    driver.press("Control+z")
    assert driver.answer() == painted


def test_a_mask_is_previewed_below_a_pointer_that_rests(driver):
    asked = []
    driver.page.on("request", lambda request: "predict" in request.url and asked.append(request.post_data_json))
    place = driver.place(*HEAD)
    driver.page.mouse.move(place[0] - 200, place[1], steps=2)
    driver.page.mouse.move(*place, steps=30)
    with driver.page.expect_response(lambda response: "predict" in response.url and response.ok):
        pass
    driver.page.wait_for_timeout(200)
    assert driver.is_painted(*HEAD)  # no mark is there, but the mask
    assert len(asked) < 10, "one question for each place where the pointer rests, not for each movement"
    assert all(question["preview"] for question in asked)
    assert driver.answer() is None
    driver.press("w")
    assert not driver.is_painted(*HEAD)
    before = len(asked)
    driver.page.mouse.move(place[0] + 40, place[1], steps=3)
    driver.page.wait_for_timeout(300)
    assert len(asked) == before


def test_clicks_wait_for_the_photo_to_be_encoded(app, photo, opened):
    driver = opened(app, photo, load=False)
    states = [{"state": "encoding", "elapsed": 0.1, "expected": 0.4, "position": 0, "error": None}] * 3

    def embed(route):
        if states:
            return route.fulfill(status=202, json=states.pop())
        return route.continue_()

    early = []
    driver.page.route("**/segment/embed**", embed)
    driver.page.on("request", lambda request: "predict" in request.url and states and early.append(request.url))
    driver.page.goto(f"{app.address}/#{photo}")
    driver.page.locator("#encoding-text", has_text="Encoding the photo").wait_for()
    driver.click(*HEAD)
    driver.click(220, 160)
    driver.ready()
    assert driver.answer()["steps"][-1]["points"] == [[*HEAD, 1], [220, 160, 1]]
    assert early == [], "nothing is asked of a photo that is not encoded"


def test_what_the_server_refuses_is_told_in_its_words(driver):
    answer = {"error": "the drawn mask is empty"}
    driver.page.route("**/segment/predict", lambda route: route.fulfill(status=400, json=answer))
    driver.click(*HEAD)
    driver.message("the drawn mask is empty")
    driver.page.unroute("**/segment/predict")
    driver.page.locator(".message").get_by_role("button", name="Try again").click()
    assert driver.answer()["of"] == 3


def test_a_busy_server_is_asked_again(driver):
    left = [503, 503]

    def predict(route):
        if left:
            return route.fulfill(
                status=left.pop(), json={"error": "busy: 16 requests wait"}, headers={"Retry-After": "1"}
            )
        return route.continue_()

    driver.page.route("**/segment/predict", predict)
    driver.click(*HEAD)
    driver.message("busy: 16 requests wait")
    assert driver.answer()["of"] == 3
    assert driver.page.locator(".message").count() == 0
