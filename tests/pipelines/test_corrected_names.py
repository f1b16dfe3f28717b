"""A service that answers with class names, and a list of names that is corrected during a run."""

import json

import pytest
import torch
from command_line import Result
from distill_cases import QUICK, SHAPE, images, weights
from served_doubles import Answer, Loopback

import db3kd
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import ModelOverrides, RequestSettings, TeacherError, load_teacher, rest_teacher

pytest.importorskip("aiohttp")
pytest.importorskip("pyarrow")

NAMES = ("cat", "dog", "bird")


class NamingService(Loopback):
    """Answers with the name of the class of each image; few are birds."""

    def __init__(self) -> None:
        super().__init__(self._names)
        self.decided = 0

    def _names(self, asked):
        images = torch.tensor(json.loads(asked.body)["images"]).flatten(1)
        self.decided += len(images)
        classes = (images[:, 0] > 0.5).long()
        classes[images[:, 1] > 0.97] = 2
        return Answer.of({"names": [NAMES[number] for number in classes]})


def test_a_corrected_name_loses_no_answer(tmp_path):
    requests = RequestSettings(batch=4, in_flight=1)

    def run(names, out, **options):
        said = ModelOverrides(image_shape=SHAPE, class_names=names)
        teacher = rest_teacher(service.url, {"images": "$images"}, "names", said, requests=requests)
        try:
            return db3kd.distill(
                teacher, images(), budget=120, strategy="decisions", student="linear",
                settings=QUICK, out=tmp_path / out, **options,
            )  # fmt: skip
        finally:
            teacher.close()

    with NamingService() as service:
        whole = run(NAMES, "whole")
        undisturbed, service.decided = service.decided, 0
        with pytest.raises(
            TeacherError, match=r"'bird' for image .* correct the label file.*misspelt"
        ):
            run(("cat", "dog", "brid"), "run")
        paid = service.decided
        message = 'was {"2": "brid"}, is {"2": "bird"}.*accept_changed_teacher=True'
        with pytest.raises(ValueError, match=message):
            run(NAMES, "run", resume=True)
        assert service.decided == paid > 4

        result = run(NAMES, "run", resume=True, accept_changed_teacher=True)

        # The request that had the unknown name is asked again.
        assert service.decided == undisturbed + 4
    assert weights(result.student).equal(weights(whole.student))
    assert load_teacher(tmp_path / "run").class_names == NAMES
    (note,) = read_manifest(tmp_path / "run")["changed_teachers"]
    assert tuple(note["class_names"]) == NAMES


@pytest.mark.parametrize("answered", [0, 2])
def test_the_hint_at_resuming_agrees_with_the_error(tmp_path, answered):
    asked = []

    def names(request):
        count = len(json.loads(request.body)["images"])
        asked.append(count)
        known = ["circle", "square"] if len(asked) <= answered else ["triangle", "triangle"]
        return Answer.of({"names": (known * count)[:count]})

    (tmp_path / "labels.txt").write_text("circle\nsquare\n")
    with Loopback(names) as service:
        (tmp_path / "t.toml").write_text(
            f'url = "{service.url}"\nimage_shape = [1, 8, 8]\nlabels = "labels.txt"\n'
            '[rest]\nrequest = {images = "$images"}\nanswer = "names"\n'
            "[requests]\nbatch = 10\nin_flight = 1\n"
        )
        spent = ("--budget", 200, "--strategy", "decisions", "--student", "linear")
        where = ("--data", "digits", "--limit", 100, "--out", tmp_path / "run")
        result = Result("distill", "--teacher", tmp_path / "t.toml", *where, *spent)

    assert result.code == 1
    assert "'triangle' for image 0" in result.err
    assert "if a class is missing from the list, start another run" in result.err
    then = "continue with --resume --accept-changed-teacher"
    hint = f"; if the class names can be corrected as below, {then}"
    assert (hint in result.err) is (answered > 0)
    assert "with the corrected list and --accept-changed-teacher; if a class is" in result.err
    assert (tmp_path / "run").exists() is (answered > 0)
