"""Fingerprints of functions and fitted models: equal for equal answers, different for others."""

import pickle
import sys

import numpy as np
import pytest
import torch

from db3kd.teachers.function_fingerprint import function_fingerprint


class Keywords:
    """A teacher that holds what pickle writes in no particular order."""

    def __init__(self, *words: str) -> None:
        self.words = set(words)
        self.itself = [self]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return np.zeros(len(array), int)


def stored_again(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize(
    "model", ["KNN", "ball tree", "sparse KNN", "forest", "pipeline", "boosted"]
)
def test_a_model_keeps_its_fingerprint_if_it_is_stored_or_asked(model):
    pytest.importorskip("sklearn")
    from scipy.sparse import csr_matrix
    from sklearn.datasets import load_digits
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    images, classes = load_digits(return_X_y=True)
    rows = csr_matrix(images) if model == "sparse KNN" else images
    make = {
        "KNN": KNeighborsClassifier,
        "ball tree": lambda: KNeighborsClassifier(algorithm="ball_tree"),
        "sparse KNN": KNeighborsClassifier,
        "forest": lambda: RandomForestClassifier(5, random_state=0),
        "pipeline": lambda: make_pipeline(
            FunctionTransformer(np.sqrt), StandardScaler(), KNeighborsClassifier()
        ),
        "boosted": lambda: HistGradientBoostingClassifier(max_iter=2),
    }[model]
    fitted = make().fit(rows[:200], classes[:200])
    before = function_fingerprint(fitted.predict)
    assert function_fingerprint(stored_again(fitted).predict) == before
    fitted.predict(rows[:3])
    assert function_fingerprint(fitted.predict) == before
    assert function_fingerprint(stored_again(stored_again(fitted)).predict) == before
    other = make().fit(rows[1:201], classes[1:201])
    assert function_fingerprint(other.predict) != before


def test_the_order_of_sets_is_not_in_a_fingerprint(interpreters):
    words = [f"word {number}" for number in range(20)]
    known = function_fingerprint(Keywords(*words))
    assert function_fingerprint(Keywords(*reversed(words))) == known
    assert function_fingerprint(Keywords(*words[1:])) != known
    code = (
        f"from {__name__} import Keywords, function_fingerprint\n"
        f"print(function_fingerprint(Keywords(*{words!r})))"
    )
    assert {each.run(code).strip() for each in interpreters} == {known}


def test_which_equal_values_are_one_object_is_not_in_a_fingerprint():
    name = "".join(["na", "me"])
    one, several = Keywords(), Keywords()
    one.pair, several.pair = [name, name], [name, "".join(["na", "me"])]
    assert function_fingerprint(one) == function_fingerprint(several)
    several.pair[1] = "other"
    assert function_fingerprint(one) != function_fingerprint(several)


def test_arrays_and_tensors_of_an_object_are_in_its_fingerprint():
    def teacher(values):
        made = Keywords()
        made.values = values
        return made

    values = np.arange(6.0).reshape(2, 3)
    padded = np.zeros(2, np.dtype([("leaf", "u1"), ("value", "f8")], align=True))
    different = [
        values,
        values.astype(np.float32),
        values.T,
        values + 1,
        torch.tensor(values),
        torch.tensor(values).bfloat16(),
        padded,
        np.array([["a", 1.0]], object),
        values.tolist(),
    ]
    prints = [function_fingerprint(teacher(each)) for each in different]
    assert len(set(prints)) == len(different)
    assert [function_fingerprint(stored_again(teacher(each))) for each in different] == prints
    dirty = padded.copy()
    dirty.view(np.uint8)[1] = 7  # between the fields
    assert function_fingerprint(teacher(dirty)) == prints[6]


def test_an_object_that_cannot_be_read_asks_for_a_fingerprint():
    teacher = Keywords()
    teacher.file = sys.stderr
    with pytest.raises(ValueError, match="pass fingerprint="):
        function_fingerprint(teacher)
