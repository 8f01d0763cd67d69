"""What is accepted becomes an object, which is kept, changed, corrected and exported."""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from example_page import SHIPPED, RunningApp
from PIL import Image

pytestmark = pytest.mark.browser

HEAD, BESIDE, BOX = (225, 90), (335, 60), ((150, 10), (300, 210))
ROCKET = ((350, 0), (460, 285))


def keep_head(driver):
    """Saves the astronaut's head by a box; gives the object."""
    driver.press("b")
    driver.drag(*BOX)
    driver.settle()
    driver.press("Enter")
    return driver.saved(len(driver.objects()))[-1]


def test_enter_saves_the_mask_on_disk(driver):
    driver.click(*HEAD)
    driver.click(220, 160)
    shown = driver.answer()
    driver.press("Enter")
    (saved,) = driver.saved(1)
    assert driver.answer() is None
    assert (saved["source"], saved["clicks"], saved["area"]) == ("prompts", 2, shown["area"])
    full = driver.app.get(f"/api/photos/{driver.photo}/objects/{saved['id']}")
    assert full["steps"][-1]["points"] == [[*HEAD, 1], [220, 160, 1]]
    assert driver.is_painted(*HEAD)
    assert driver.page.locator("#objects li").count() == 1


def test_the_number_keys_give_classes(driver, classes):
    driver.open()
    driver.press("1")
    first = keep_head(driver)
    driver.drag(*ROCKET)
    driver.settle()
    driver.press("2", "Enter")
    second = driver.saved(2)[-1]
    assert [first["class"], second["class"]] == classes
    assert driver.paint(405, 150)[:3] != driver.paint(*HEAD)[:3]
    driver.press("v")
    driver.click(*HEAD)
    driver.press("2")
    driver.says_saved()
    assert [known["class"] for known in driver.saved(2)] == ["rocket", "rocket"]
    driver.press("0")
    driver.says_saved()
    assert driver.saved(2)[0]["class"] is None


def test_classes_are_added_renamed_recoloured_and_removed(app, driver, classes):
    driver.open()
    driver.press("1")
    keep_head(driver)
    page = driver.page
    page.get_by_role("button", name="Edit classes").or_(page.get_by_role("button", name="Edit", exact=True)).click()
    page.get_by_label("New class").fill("helmet <b>")
    page.keyboard.press("Enter")
    name = page.get_by_label("Name of class 1")
    name.fill("astronaut")
    name.press("Tab")
    page.get_by_label("Colour of rocket").evaluate(
        "picker => { picker.value = '#112233'; picker.dispatchEvent(new Event('change')); }"
    )
    page.keyboard.press("Escape")
    page.get_by_role("button", name="astronaut 1", exact=False).first.wait_for()
    driver.eventually(lambda: list(app.classes()), ["astronaut", "rocket", "helmet <b>"])
    driver.eventually(lambda: app.classes()["rocket"], "#112233")
    driver.eventually(lambda: driver.saved(1)[0]["class"], "astronaut")
    assert page.locator("#classes b").count() == 0, "a name is text, never markup"
    page.locator("[data-action=editClasses]").click()
    page.get_by_role("button", name="Remove rocket").click()
    page.keyboard.press("Escape")
    driver.eventually(lambda: list(app.classes()), ["astronaut", "helmet <b>"])


def test_an_object_is_renamed_recoloured_hidden_and_deleted(driver):
    keep_head(driver)
    page = driver.page
    driver.press("v")
    driver.click(*HEAD)
    driver.press("n")
    page.keyboard.type("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    page.locator("#objects").get_by_role("button", name="<img src=x onerror=alert(1)>").first.wait_for()
    page.get_by_label("Colour", exact=True).evaluate(
        "picker => { picker.value = '#ff0000'; picker.dispatchEvent(new Event('change')); }"
    )
    (saved,) = driver.saved(1)
    assert (saved["name"], saved["colour"]) == ("<img src=x onerror=alert(1)>", "#ff0000")
    assert driver.paint(*HEAD)[0] > 200
    page.locator("#surface").focus()
    driver.press("i")
    assert not driver.is_painted(*HEAD)
    assert driver.saved(1)[0]["hidden"]
    driver.press("i", "Delete")
    driver.saved(0)
    assert not driver.is_painted(*HEAD)
    driver.press("Control+z")
    assert driver.saved(1)[0]["name"] == saved["name"]
    assert driver.is_painted(*HEAD)
    driver.press("Control+y")
    driver.saved(0)


def test_undo_takes_back_what_was_saved_and_redo_saves_it_again(driver):
    kept = keep_head(driver)
    driver.press("Control+z")
    driver.saved(0)
    driver.press("Control+Shift+z")
    assert driver.saved(1)[0]["id"] == kept["id"]


def test_an_object_is_corrected_from_its_own_clicks(driver):
    kept = keep_head(driver)
    driver.page.locator("#objects").get_by_role("button", name="Object 1", exact=False).first.click()
    driver.page.get_by_role("button", name="Correct").click()
    driver.page.locator("#draft").wait_for()
    driver.press("p")
    driver.click(*BESIDE, button="right")
    corrected = driver.answer()
    assert corrected["steps"][0]["box"] == [150, 10, 300, 210]
    assert corrected["steps"][1]["points"] == [[*BESIDE, 0]]
    assert corrected["steps"][1]["refine"] is True
    driver.press("Enter")
    (saved,) = driver.saved(1)
    assert (saved["id"], saved["area"]) == (kept["id"], corrected["area"])
    driver.press("Control+z")
    assert driver.saved(1)[0]["area"] == kept["area"]


def test_the_list_and_the_photo_select_the_same_object(driver):
    keep_head(driver)
    driver.drag(*ROCKET)
    driver.settle()
    driver.press("Enter")
    driver.saved(2)
    driver.press("v")
    driver.click(405, 150)
    rows = driver.page.locator("#objects li")
    assert "selected" in rows.nth(1).get_attribute("class")
    driver.press("k")
    assert "selected" in rows.nth(0).get_attribute("class")
    assert driver.page.get_by_label("Name", exact=True).is_visible()


def test_an_export_has_the_masks_that_the_library_gives_for_the_same_clicks(driver, classes, tmp_path):
    import samjax
    from samjax.ops.rle import decode_rle

    driver.open()
    driver.click(*HEAD)
    chosen = driver.answer()["chosen"]
    driver.click(*BESIDE, button="right")
    driver.answer()
    driver.press("1", "Enter")
    driver.saved(1)
    driver.press("Control+e")
    page = driver.page
    page.get_by_label("Format").select_option("coco")
    page.get_by_label("Photos").last.select_option("this")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Export", exact=True).last.click()
    target = tmp_path / "coco.zip"
    downloading.value.save_as(target)
    with zipfile.ZipFile(target) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".json"))
        coco = json.loads(archive.read(name))
    (annotation,) = coco["annotations"]
    named = {category["id"]: category["name"] for category in coco["categories"]}
    assert named[annotation["category_id"]] == "person"

    sam = samjax.load()
    embedding = sam.encode(samjax.read_image(SHIPPED / "astronaut.jpg"))
    first = sam.predict(embedding, samjax.Prompts.of([[HEAD]], [[1]]), multimask=True)
    logits = np.asarray(first.logits)[0, chosen]
    assert chosen == np.asarray(first.iou)[0].argmax()
    second = sam.predict(embedding, samjax.Prompts.of([[HEAD, BESIDE]], [[1, 0]], None, [logits]), multimask=False)
    expected = np.asarray(sam.masks(second, embedding))[0, 0]
    np.testing.assert_array_equal(decode_rle(annotation["segmentation"]), expected)


@pytest.mark.parametrize("format", ["png", "labelmap", "yolo", "labelme", "overlay"])
def test_other_formats_are_exported(driver, format):
    keep_head(driver)
    driver.press("Control+e")
    page = driver.page
    assert set(page.get_by_label("Format").locator("option").evaluate_all("all => all.map(one => one.value)")) >= {
        format
    }
    page.get_by_label("Format").select_option(format)
    page.get_by_label("Photos").last.select_option("this")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Export", exact=True).last.click()
    archive = zipfile.ZipFile(io.BytesIO(Path(downloading.value.path()).read_bytes()))
    assert archive.testzip() is None
    assert archive.namelist()
    page.get_by_text(re.compile("1 photo exported")).first.wait_for()


def test_existing_annotations_are_shown_and_corrected(opened, tmp_path):
    folder, maps = tmp_path / "photos", tmp_path / "maps"
    folder.mkdir()
    maps.mkdir()
    labels = np.zeros((512, 512), np.uint8)
    labels[30:180, 170:280] = 1
    labels[20:280, 360:450] = 2
    Image.fromarray(labels).save(maps / "one.png")
    (maps / "one.json").write_text('{"1": {"class": "head"}, "2": {"class": "shuttle"}}')
    shutil.copy(SHIPPED / "astronaut.jpg", folder / "one.jpg")
    app = RunningApp(folder, "--annotations", f"labelmap={folder},{maps}")
    try:
        driver = opened(app, app.photo("one.jpg"))
        first, second = driver.objects()
        assert (first["source"], first["area"]) == ("import", 150 * 110)
        assert driver.is_painted(*HEAD)
        chips = driver.page.locator("#classes")
        chips.get_by_role("button", name="shuttle").wait_for()
        driver.press("v")
        driver.click(*HEAD)
        driver.press("c")
        driver.page.locator("#draft").wait_for()
        chips.get_by_role("button", name="shuttle").click()
        driver.press("Enter")
        assert [known["class"] for known in driver.saved(2)] == ["shuttle", "shuttle"]
        driver.press("Control+z")
        assert [known["class"] for known in driver.saved(2)] == ["head", "shuttle"]
        driver.press("v")
        driver.click(*HEAD)
        driver.press("c")
        driver.page.locator("#draft").wait_for()
        driver.click(225, 30)
        (step,) = driver.answer()["steps"]
        assert step["mask"]["rle"]["size"] == [512, 512]
        driver.press("Enter")
        kept = driver.saved(2)
        assert {known["source"] for known in kept} == {"import", "prompts"}
        assert second["id"] in {known["id"] for known in kept}
        driver.press("Control+z")
        assert {known["id"] for known in driver.saved(2)} == {first["id"], second["id"]}
    finally:
        app.stop()


def test_redo_is_in_the_order_in_which_things_were_done(driver):
    kept = keep_head(driver)
    driver.press("p")
    driver.click(405, 120)
    clicked = driver.answer()
    driver.press("Control+z", "Control+z")
    driver.saved(0)
    driver.press("Control+y")
    assert driver.saved(1)[0]["id"] == kept["id"]
    assert driver.answer() is None
    driver.press("Control+y")
    assert driver.answer() == clicked
    driver.press("Control+z", "Control+z", "Control+y", "Control+y")
    assert driver.answer() == clicked
    driver.press("Enter")
    driver.saved(2)


def test_changes_between_clicks_are_undone_and_redone_in_their_order(driver):
    keep_head(driver)
    driver.press("p")
    driver.click(405, 120)
    one = driver.answer()
    driver.page.get_by_role("button", name="Hide Object 1").click()
    driver.page.locator("#surface").focus()
    driver.click(405, 200)
    two = driver.answer()
    driver.press("Control+z", "Control+z")
    assert driver.answer() == one
    assert not driver.saved(1)[0]["hidden"]
    driver.press("Control+y")
    driver.says_saved()
    driver.eventually(lambda: driver.saved(1)[0]["hidden"], True)
    assert driver.answer() == one
    driver.press("Control+y")
    assert driver.answer() == two


def test_a_correction_that_was_undone_can_be_redone(driver):
    keep_head(driver)
    driver.press("v")
    driver.click(*HEAD)
    driver.press("c")
    driver.page.locator("#draft").wait_for()
    driver.press("p")
    driver.click(*BESIDE, button="right")
    corrected = driver.answer()
    driver.press("Control+z", "Control+z")
    assert driver.answer() is None
    driver.press("Control+y", "Control+y")
    assert driver.answer() == corrected


def test_classes_that_are_not_saved_yet_are_not_said_to_be_saved(app, driver, classes):
    driver.open()
    driver.page.route("**/api/classes", lambda route: route.fulfill(status=503, json={"error": "busy"}))
    add = "const {addClass} = await at('classes'); addClass(given)"
    driver.evaluate(add, "late")
    driver.page.locator("#saving", has_text="Saving").wait_for()
    driver.page.wait_for_timeout(200)
    assert "All saved" not in driver.page.locator("#saving").inner_text()
    driver.page.unroute("**/api/classes")
    driver.says_saved()
    assert list(app.classes()) == [*classes, "late"]
    refused = {"error": "there are too many"}
    driver.page.route("**/api/classes", lambda route: route.fulfill(status=400, json=refused))
    driver.evaluate(add, "never")
    driver.message("there are too many")
    driver.says_saved()
    assert driver.evaluate("return app.classes.map(({name}) => name)") == [*classes, "late"]


def test_undo_after_a_class_was_renamed_brings_back_its_new_name(app, driver, classes):
    driver.open()
    driver.press("1")
    keep_head(driver)
    driver.press("v")
    driver.click(*HEAD)
    driver.press("2")
    driver.eventually(lambda: driver.saved(1)[0]["class"], "rocket")
    driver.page.locator("[data-action=editClasses]").click()
    driver.page.get_by_label("Name of class 1").fill("pilot")
    driver.page.keyboard.press("Tab")
    driver.page.keyboard.press("Escape")
    driver.eventually(lambda: list(app.classes()), ["pilot", "rocket"])
    driver.page.locator("#surface").focus()
    driver.press("Control+z")
    driver.eventually(lambda: driver.saved(1)[0]["class"], "pilot")
