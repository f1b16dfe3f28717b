"""What networks chose is kept by round, whatever the name of the choice."""

import numpy as np

from db3kd.storage.choice_log import ChoiceLog


def test_later_rounds_are_removed_although_the_name_has_a_hyphen(tmp_path):
    log, other = ChoiceLog(tmp_path, "image-numbers"), ChoiceLog(tmp_path)
    for number in range(3):
        log.save(number, {"numbers": np.arange(number)})
        other.save(number, {"numbers": np.arange(number)})

    log.remove_from(1)

    assert [log.holds(number) for number in range(3)] == [True, False, False]
    assert all(other.holds(number) for number in range(3))
