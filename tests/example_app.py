"""Requests to the server of the interactive page."""

from typing import Any


def id_of(name: str) -> str:
    """The id of a photo by its name."""
    from samjax.app.library import photo_id

    return photo_id(name)


def predict(client: Any, name: str, *steps: dict, **more: Any) -> list[dict]:
    """The answers to the steps of one object, which have to be given."""
    response = client.post("/segment/predict", json={"photo": id_of(name), "steps": list(steps), **more})
    assert response.status_code == 200, response.text
    (answered,) = response.json()["objects"]
    return answered["answers"]
