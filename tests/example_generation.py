"""Mask generation with the model of shapes: settings that suit it, and a picture for it."""

from example_models import shapes_photo

OPTIONS = {"points_per_side": 12, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7}
PHOTO = shapes_photo(128, 128, seed=5002)[0]
