"""What protocols of objects share."""

from evaluation.example_evaluation import Silent, Squares

from samjax.evaluation.metrics.object_records import only_with_objects
from samjax.evaluation.protocol import Sample


def test_photos_without_objects_keep_their_place_and_are_not_judged():
    judged = []

    @only_with_objects
    def judge(protocol, segmenter, samples):
        judged.append([sample.name for sample in samples])
        return [{"objects": [sample.name]} for sample in samples]

    full = [Squares(3)[index] for index in range(3)]
    empty = Sample("empty", full[0].rgb, ())
    records = judge(None, Silent(), [empty, full[0], empty, full[1], full[2]])
    assert records == [{"objects": names} for names in ([], ["photo000"], [], ["photo001"], ["photo002"])]
    assert judge(None, Silent(), [empty, empty]) == [{"objects": []}] * 2
    assert judged == [["photo000", "photo001", "photo002"]]
