"""The answer journal: what was answered is there again, whatever happened to the file's end."""

import errno
import hashlib
import os
import time
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from db3kd.storage.journal import Journal
from db3kd.storage.journal_format import read_journal
from db3kd.storage.lost_queries import add_lost, lost_file

RUN = "a run"


def accounts(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def write(file: Path, *batches: tuple[Tensor, Tensor], classes: int = 10) -> None:
    with Journal(file, classes, RUN) as journal:
        for asked, answers in batches:
            journal.ask(asked)
            journal.answer(answers)


def take(file: Path, *batches: Tensor, classes: int = 10) -> list[list[int]]:
    with Journal(file, classes, RUN) as journal:
        return [journal.take(asked).tolist() for asked in batches]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.journal"


@pytest.fixture
def two_calls(file: Path) -> Path:
    write(file, (accounts(0, 1, 2), accounts(7, 8, 9)), (accounts(3, 4), accounts(5, 6)))
    return file


@pytest.mark.parametrize("classes", [2, 256, 257, 65_536, 65_537])
def test_answers_of_any_class_are_given_back(file, classes):
    answers = accounts(0, classes - 1)
    write(file, (accounts(0, 0), answers), classes=classes)
    assert take(file, accounts(0, 0), classes=classes) == [answers.tolist()]


@pytest.mark.parametrize(("classes", "width"), [(10, 1), (300, 2), (70_000, 4)])
def test_the_file_is_a_header_and_two_records_a_call_whose_checks_continue(file, classes, width):
    write(file, (accounts(0, 1, 2), accounts(7, 8)), (accounts(2), accounts(9)), classes=classes)

    digest = hashlib.sha256(RUN.encode()).digest()[:8]
    parts = [b"db3kd journal 2\n" + bytes([width]) + digest]
    for asked, answers in (((0, 1, 2), (7, 8)), ((2,), (9,))):
        of_accounts = zlib.crc32(b"".join(each.to_bytes(8, "little") for each in asked))
        parts.append(len(asked).to_bytes(4, "little") + of_accounts.to_bytes(4, "little"))
        parts.append(len(answers).to_bytes(4, "little"))
        parts.append(b"".join(each.to_bytes(width, "little") for each in answers))
    expected, check = b"", 0
    for part in parts:
        check = zlib.crc32(part, check)
        expected += part + check.to_bytes(4, "little")
    assert file.read_bytes() == expected


def test_an_answer_takes_a_byte(file):
    write(file, (torch.arange(5000), torch.arange(5000) % 10))
    assert 5000 < file.stat().st_size < 5100


def test_a_journal_that_is_used_up_is_written_on(two_calls):
    with Journal(two_calls, 10, RUN) as journal:
        assert journal.take(accounts(0, 1, 2)).tolist() == [7, 8, 9]
        assert journal.take(accounts(3, 4)).tolist() == [5, 6]
        assert journal.take(accounts(9)).tolist() == []
        journal.ask(accounts(9))
        journal.answer(accounts(1))
    assert take(two_calls, accounts(0, 1, 2), accounts(3, 4), accounts(9))[-1] == [1]


def test_a_batch_may_take_several_calls(two_calls):
    assert take(two_calls, accounts(0, 1, 2, 3, 4, 5)) == [[7, 8, 9, 5, 6]]


def test_a_call_that_was_answered_in_part_is_completed(file):
    write(file, (accounts(0, 1, 2, 3), accounts(7, 8)))
    assert take(file, accounts(0, 1, 2, 3)) == [[7, 8]]
    with Journal(file, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2, 3))
        journal.ask(accounts(2, 3))
        journal.answer(accounts(9, 6))
    assert take(file, accounts(0, 1, 2, 3)) == [[7, 8, 9, 6]]


def test_a_call_that_brought_nothing_leaves_nothing(file, two_calls):
    size = two_calls.stat().st_size
    with Journal(two_calls, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2))
        journal.take(accounts(3, 4))
        journal.ask(accounts(5))
        assert two_calls.stat().st_size > size, "it is noted while it is asked"
        journal.answer(accounts())
    assert two_calls.stat().st_size == size
    other = file.with_name("b.journal")
    write(other, (accounts(1), accounts()), (accounts(), accounts()))
    assert not other.exists()


@pytest.mark.parametrize("taken_back", [1, 2, 3, 5])
def test_answers_are_taken_back_in_whole_records(two_calls, taken_back):
    size = two_calls.stat().st_size
    with Journal(two_calls, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2, 3, 4))
        journal.ask(accounts(5))
        journal.answer(accounts(1), accounts(6, 7, 8))
        journal.answer(accounts(2, 3, 4), accounts(9))
        journal.answer(accounts(5), accounts(10))
        journal.retract(taken_back)
        kept = 5 - taken_back if taken_back in (1, 5) else 1
        assert journal.written == kept
        again = accounts(*range(5 + kept, 12))
        journal.ask(again)
        journal.answer(again)
    found = read_journal(two_calls, RUN).calls
    answers = [answer for call in found for answer in call.answers.tolist()]
    assert answers == [7, 8, 9, 5, 6, *[1, 2, 3, 4][:kept], *again.tolist()]
    assert two_calls.stat().st_size > size


def test_a_journal_whose_answers_are_all_taken_back_leaves_no_file(file):
    with Journal(file, 10, RUN, begins_run=True) as journal:
        journal.ask(accounts(0))
        journal.answer(accounts(1), accounts(1))
        journal.retract(1)
        journal.answer(accounts())
        assert journal.begins_run
    assert not file.exists()


def test_a_call_is_noted_before_it_is_asked(two_calls):
    with Journal(two_calls, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2))
        journal.take(accounts(3, 4))
        journal.ask(accounts(7, 7, 7, 7))
    assert read_journal(two_calls, RUN).in_flight == 4
    assert take(two_calls, accounts(0, 1, 2), accounts(3, 4)) == [[7, 8, 9], [5, 6]]


def test_answers_are_on_disk_within_a_second_and_at_the_end(file, monkeypatch):
    synced, now = [], 100.0
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(file.stat().st_size))
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Journal(file, 10, RUN) as journal:
        for now in (100.0, 101.0, 101.5):
            journal.ask(accounts(1, 2))
            journal.answer(accounts(3, 4))
            synced.clear()
            journal.sync()
            assert synced == ([file.stat().st_size] if now == 101.0 else [])
    assert synced == [file.stat().st_size]


def test_a_file_cut_short_anywhere_loses_its_last_call_alone(two_calls):
    content = two_calls.read_bytes()
    held = []
    for length in range(len(content)):
        two_calls.write_bytes(content[:length])
        held.append(len(read_journal(two_calls, RUN).calls))
    assert held == sorted(held) and set(held) == {0, 1}


def test_what_a_cut_left_over_is_overwritten(two_calls):
    content = two_calls.read_bytes()
    for length in range(len(content)):
        two_calls.write_bytes(content[:length])
        with Journal(two_calls, 10, RUN) as journal:
            for asked, answers in [
                (accounts(0, 1, 2), accounts(7, 8, 9)),
                (accounts(3, 4), accounts(5, 6)),
            ]:
                if not len(journal.take(asked)):
                    journal.ask(asked)
                    journal.answer(answers)
        assert two_calls.read_bytes() == content


@pytest.mark.parametrize("zeros", [1, 8, 12, 500])
def test_zeros_that_a_power_cut_left_at_the_end_are_cut_off(two_calls, zeros):
    with open(two_calls, "ab") as end:
        end.write(bytes(zeros))
    assert take(two_calls, accounts(0, 1, 2), accounts(3, 4)) == [[7, 8, 9], [5, 6]]


@given(data=st.data())
def test_a_changed_byte_is_an_error_or_costs_the_last_call(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("journal") / "a.journal"
    batches = [(torch.full((4,), number), torch.arange(4)) for number in range(5)]
    write(file, *batches)
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        taken = take(file, *[asked for asked, _ in batches])
    except ValueError as error:
        assert "a.journal: " in str(error)
    else:
        assert taken == [[0, 1, 2, 3]] * 4 + [[]], "only a change in the last call passes"


def records(content: bytes) -> tuple[bytes, list[bytes]]:
    """The head of a journal, and its records, for calls whose answers take a byte each."""
    head, place, found = 29, 29, []
    while place < len(content):
        answers = int.from_bytes(content[place + 12 : place + 16], "little")
        for size in (12, 8, answers + 4):  # what was asked, how many answers came, the answers
            found.append(content[place : place + size])
            place += size
    return content[:head], found


def a_journal(folder: Path, name: str, answers: Tensor, run: str = RUN) -> bytes:
    """Five calls for the same accounts with the same answers, so that records look alike."""
    file = folder / name
    with Journal(file, 10, run) as journal:
        for _ in range(5):
            journal.ask(torch.zeros(4, dtype=torch.int64))
            journal.answer(answers)
    return file.read_bytes()


@given(data=st.data())
def test_a_record_that_is_removed_moved_repeated_or_foreign_never_gives_another_answer(
    tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("journals")
    content = a_journal(folder, "a.journal", torch.arange(4))
    foreign = a_journal(folder, "b.journal", torch.arange(4) + 5, "another run")
    head, own = records(content)
    _, other = records(foreign)
    assert head + b"".join(own) == content
    whole = data.draw(st.sampled_from([1, 3]), label="records that are handled as one")
    groups = [b"".join(own[i : i + whole]) for i in range(0, len(own), whole)]
    strange = [b"".join(other[i : i + whole]) for i in range(0, len(other), whole)]
    before = list(groups)
    places = st.integers(0, len(groups) - 1)
    first, second = data.draw(places), data.draw(places)
    match data.draw(st.sampled_from(["remove", "swap", "repeat", "splice", "cut"])):
        case "remove":
            del groups[first]
        case "swap":
            groups[first], groups[second] = groups[second], groups[first]
        case "repeat":
            groups.insert(first, groups[second])
        case "splice":
            groups[first] = strange[second]
        case "cut":
            groups = groups[:first] + groups[second + 1 :] if first < second else groups[:first]
    file = folder / "a.journal"
    file.write_bytes(head + b"".join(groups))
    unchanged = 0
    while unchanged < min(len(groups), len(before)) and groups[unchanged] == before[unchanged]:
        unchanged += 1
    try:
        calls = read_journal(file, RUN).calls
    except ValueError as error:
        assert "a.journal: damaged at byte" in str(error)
    else:
        assert len(calls) <= unchanged * whole // 3, "what comes after the first change is not read"
        assert all(call.answers.tolist() == [0, 1, 2, 3] for call in calls)
        behind = b"".join(groups[unchanged:])
        assert len(behind) <= len(b"".join(own[:3])), "a change before the last call is an error"


def test_a_journal_without_its_first_call_is_an_error(two_calls):
    content = two_calls.read_bytes()
    head, own = records(content)
    for kept in (own[3:], [*own[3:], *own[:3]], [*own[:3], *own[:3], *own[3:]]):
        two_calls.write_bytes(head + b"".join(kept))
        with pytest.raises(ValueError, match="damaged at byte"):
            read_journal(two_calls, RUN)


def test_a_journal_of_another_search_is_noticed(two_calls):
    with pytest.raises(
        ValueError, match="continues with 3 other queries than the 3 of this search"
    ):
        take(two_calls, accounts(0, 1, 3))
    with pytest.raises(
        ValueError, match="continues with 3 other queries than the 2 of this search"
    ):
        take(two_calls, accounts(0, 1))


def test_a_journal_of_another_run_or_teacher_is_noticed(two_calls):
    with pytest.raises(ValueError, match="the journal of another run"):
        Journal(two_calls, 10, "another run")
    with pytest.raises(ValueError, match="those of a teacher with a different number of classes"):
        Journal(two_calls, 1000, RUN)
    two_calls.write_text("notes of mine, and more than a head of them")
    with pytest.raises(ValueError, match=r"db3kd journal 2.*got another file"):
        Journal(two_calls, 10, RUN)


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_in_a_write_leaves_whole_records(two_calls, monkeypatch, after):
    write = os.write

    def interrupted(descriptor: int, content: bytes) -> int:
        write(descriptor, content if after else content[: len(content) // 2])
        raise KeyboardInterrupt

    with Journal(two_calls, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2, 3, 4))
        journal.ask(accounts(5, 5))
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.answer(accounts(1, 1))
        monkeypatch.undo()
        assert journal.written == 0
        journal.answer(accounts(1, 1))
        assert journal.written == 2
    assert take(two_calls, accounts(0, 1, 2, 3, 4, 5, 5))[-1][-2:] == [1, 1]


def test_an_interrupt_before_a_call_is_taken_back_leaves_nothing_of_it(two_calls, monkeypatch):
    def interrupted(descriptor: int, length: int) -> None:
        raise KeyboardInterrupt

    with Journal(two_calls, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2, 3, 4))
        journal.ask(accounts(5, 5))
        monkeypatch.setattr(os, "ftruncate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.answer(accounts())
        monkeypatch.undo()
        journal.ask(accounts(6))
        journal.answer(accounts(2))
    assert take(two_calls, accounts(0, 1, 2, 3, 4), accounts(6))[-1] == [2]


def test_what_is_asked_next_is_noted_with_the_answers_before_it(file):
    with Journal(file, 10, RUN) as journal:
        journal.ask(accounts(0, 1, 2))
        journal.answer(accounts(7), accounts(1, 2, 3))
        assert read_journal(file, RUN).in_flight == 3
        journal.answer(accounts(8, 9), accounts(3, 4))
        journal.answer(accounts())
    assert read_journal(file, RUN).in_flight == 0
    assert take(file, accounts(0, 1, 2, 3, 4)) == [[7, 8, 9]]


def test_a_failure_to_take_records_back_names_the_file(file, monkeypatch):
    def full(descriptor: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(file, 10, RUN) as journal:
        journal.ask(accounts(5, 5))
        monkeypatch.setattr(os, "ftruncate", full)
        with pytest.raises(OSError, match=r"No space left on device: .*a\.journal"):
            journal.answer(accounts())


def test_a_repeated_request_that_a_full_disk_cannot_count_is_a_named_error(file, monkeypatch):
    monkeypatch.setattr(os, "write", lambda descriptor, content: 0)

    with pytest.raises(OSError, match=r"No space left on device: .*a\.lost") as raised:
        add_lost(lost_file(file), 5)

    assert raised.value.errno == errno.ENOSPC


def test_a_full_disk_leaves_the_answers_before(two_calls, monkeypatch):
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(two_calls, 10, RUN) as journal:
        journal.take(accounts(0, 1, 2))
        journal.take(accounts(3, 4))
        journal.ask(accounts(5, 5))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*a\.journal"):
            journal.answer(accounts(1, 1))
    found = read_journal(two_calls, RUN)
    assert (len(found.calls), found.in_flight) == (2, 2)
