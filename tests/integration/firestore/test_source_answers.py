"""Single answers of Firestore's: asked for in parts, put together whole, and billed as Firestore bills them."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from dualwrite.firestore import long_read, wire
from dualwrite.firestore.budget import Budget
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.documents import UNASKED, Document
from dualwrite.model.errors import BudgetError, IncompleteRead, SourceError
from tests.integration.firestore.test_source import Broken, Call

T = datetime(2026, 2, 1, tzinfo=UTC)
COMMENTS = Scan("comments", ("content",))
PATHS = [f"boards/b/posts/p/comments/c{i:03}" for i in range(450)]


@pytest.fixture(scope="module")
def project(emulator):
    """450 comments of one post, each with its number; nothing here changes them."""
    import uuid

    from google.cloud import firestore as library

    client = library.Client(project=f"t{uuid.uuid4().hex[:12]}")
    batch = client.batch()
    for i, path in enumerate(PATHS):
        batch.set(client.document(path), {"content": f"x{i}", "kind": f"k{i % 150}", "createdAt": T})
    batch.commit()
    yield client.project
    client.close()


@pytest.fixture
def source(project, emulator):
    with Source(project, emulator_host=emulator) as opened:
        yield opened


@pytest.fixture
def capped(project, emulator):
    """Opens Sources of the same documents that may bill so many reads."""
    with ExitStack() as stack:
        yield lambda limit: stack.enter_context(Source(project, emulator_host=emulator, budget=Budget(limit)))


# --- by path --------------------------------------------------------------------------------------------------------


def test_of_many_documents_asked_for_in_parts_each_is_answered(source):
    """More than four calls of a hundred at once."""
    found = source.get([*PATHS, "boards/none", "boards"], ["content"])
    assert list(found) == [*PATHS, "boards/none", "boards"]
    contents = {path: d.fields["content"] for path, d in found.items() if isinstance(d, Document)}
    assert contents == {path: f"x{i}" for i, path in enumerate(PATHS)}
    assert (found["boards/none"], found["boards"]) == (None, UNASKED)
    assert source.billed_reads == 451, "what can't exist is not asked for"
    assert source.budget.spent == 451


def test_without_fields_only_existence_and_times_are_asked_for(source):
    document = source.get(PATHS[:1])[PATHS[0]]
    assert document is not None
    assert (document.fields, document.update_time is None) == ({}, False)


def test_an_answer_by_path_that_is_lost_is_an_incomplete_read(source, monkeypatch):
    original = source.wire.batch_get
    monkeypatch.setattr(source.wire, "batch_get", lambda *a, **k: Call(original(*a, **k), 1, None))
    with pytest.raises(IncompleteRead, match="Firestore answered for only 1 of 2"):
        source.get(PATHS[:2])


@pytest.mark.parametrize("after", [0, 1])
def test_a_read_by_path_that_breaks_is_asked_again(source, after, monkeypatch):
    faults = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]
    original = source.wire.batch_get

    def breaking(*args, **kwargs):
        call = original(*args, **kwargs)
        return Call(call, after, Broken(faults.pop())) if faults else call

    monkeypatch.setattr(source.wire, "batch_get", breaking)
    assert all(source.get(PATHS[:3]).values())
    assert not faults


def test_calls_are_routed_by_project_and_database():
    """Firestore finds a database of another name than (default) by this header; the emulator needs none."""
    with Source("p", database="other", emulator_host="127.0.0.1:1") as other:
        assert ("x-goog-request-params", "project_id=p&database_id=other") in other.wire.metadata


# --- below a document -----------------------------------------------------------------------------------------------


def test_each_of_many_questions_has_an_answer_of_its_own(source):
    """More than are asked at once; one of them about a document that can't be asked for. They ask for what is below
    documents."""
    post = "boards/b/posts/p"
    questions = [(post, {"kind": f"k{n}"}) for n in range(150)]
    questions[70] = ("boards", {"kind": "k70"})
    questions[71] = (post, {"kind": "of nobody"})
    found = source.children_where_each(questions, "comments", ("kind",))
    assert found.pop(70) is UNASKED
    assert [len(answer) for answer in found] == [*[3] * 70, 0, *[3] * 78]
    assert all(d.fields["kind"] == f"k{n + (n > 70)}" for n, answer in enumerate(found) for d in answer)
    assert source.billed_reads == 148 * 3 + 1 + 1, "an answer of nothing is billed as one read, and so is its count"


def test_a_question_that_breaks_is_asked_again(source, monkeypatch):
    faults = [grpc.StatusCode.UNAVAILABLE]
    original = source.wire.run_query

    def breaking(*args, **kwargs):
        call = original(*args, **kwargs)
        return Call(call, 1, Broken(faults.pop())) if faults else call

    monkeypatch.setattr(source.wire, "run_query", breaking)
    [found] = source.children_where_each([("boards/b/posts/p", {"kind": "k1"})], "comments", ("kind",))
    assert len(found) == 3
    assert not faults


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("question", ["k1", "of nobody"])
def test_an_answer_cut_short_with_ok_proves_nothing(source, after, question, monkeypatch):
    """An empty answer says that a row's document is gone: one that lost its tail must not look like one."""
    original = source.wire.run_query
    cuts = [after] * 2
    monkeypatch.setattr(
        source.wire,
        "run_query",
        lambda *a, **k: Call(original(*a, **k), cuts.pop(), None) if cuts else original(*a, **k),
    )
    [found] = source.children_where_each([("boards/b/posts/p", {"kind": question})], "comments", ("kind",))
    assert len(found) == (3 if question == "k1" else 0)
    cuts += [after] * 9
    if question == "k1" or after == 0:
        with pytest.raises(IncompleteRead, match="Nothing was concluded from them"):
            source.children_where_each([("boards/b/posts/p", {"kind": question})], "comments", ("kind",))


def test_an_answer_that_never_says_it_is_done_is_counted(source, monkeypatch):
    """Servers that leave the word out are believed by their count()."""
    original = source.wire.run_query

    def silent(*args, **kwargs):
        for size, answer in original(*args, **kwargs):
            answer.ClearField("done")
            yield size, answer

    monkeypatch.setattr(source.wire, "run_query", silent)
    [found] = source.children_where_each([("boards/b/posts/p", {"kind": "k1"})], "comments", ("kind",))
    assert len(found) == 3
    assert source.billed_reads == 4


def test_questions_share_what_a_cap_leaves(capped):
    """They stop where more might come."""
    questions = [("boards/b/posts/p", {"kind": f"k{n}"}) for n in range(2)]
    source = capped(10)
    assert [len(found) for found in source.children_where_each(questions, "comments", ("kind",))] == [3, 3]
    assert source.budget.spent == 6
    with pytest.raises(BudgetError, match="looking for more comments would cost 1 or more"):
        # three for each, and a count: nobody knows whether there is a fourth
        capped(9).children_where_each(questions, "comments", ("kind",))
    with pytest.raises(BudgetError, match="looking for comments below 2 documents would cost 4 "):
        capped(3).children_where_each(questions, "comments", ("kind",))


# --- counts ---------------------------------------------------------------------------------------------------------


def test_a_count_tells_its_instant_and_can_be_of_an_earlier_one(source, firestore, emulator):
    put = firestore.document("boards/b/posts/p/comments/c")
    put.set({"content": "x"})
    with Source(firestore.project, emulator_host=emulator) as changing:
        number, instant = changing.count(COMMENTS)
        put.delete()
        assert number == 1
        assert abs(datetime.now(UTC) - instant) < timedelta(minutes=1)
        assert changing.count(COMMENTS)[0] == 0
        assert changing.count(COMMENTS, instant) == (1, instant)
        assert changing.billed_reads == 3, "one read a count, also of nothing"


def test_a_count_bills_one_read_for_each_thousand_begun(firestore, emulator):
    for first, number in ((0, 500), (500, 500), (1000, 1)):
        batch = firestore.batch()
        for i in range(first, first + number):
            batch.set(firestore.document(f"boards/b/posts/p/comments/c{i}"), {"n": 1})
        batch.commit()
    with Source(firestore.project, emulator_host=emulator) as counted:
        assert counted.count(COMMENTS)[0] == 1001
        assert counted.billed_reads == 2
    with Source(firestore.project, emulator_host=emulator, budget=Budget(2)) as counted:
        assert counted.count(COMMENTS)[0] == 1001
        assert counted.budget.spent == 2
    with (
        Source(firestore.project, emulator_host=emulator, budget=Budget(1)) as counted,
        pytest.raises(BudgetError, match="more of count.. of comments would cost 1 or more"),
    ):
        counted.count(COMMENTS)  # it stops at a thousand, and nobody knows of how many
    firestore.document("boards/b/posts/p/comments/c0").delete()
    firestore.document("boards/b/posts/p/comments/c1").delete()
    with Source(firestore.project, emulator_host=emulator, budget=Budget(1)) as counted:
        assert counted.count(COMMENTS)[0] == 999
        with pytest.raises(BudgetError, match="count.. of comments would cost 1 "):
            counted.count(COMMENTS)


def test_a_count_without_an_answer_is_an_error(source, monkeypatch):
    original = source.wire.run_count
    monkeypatch.setattr(source.wire, "run_count", lambda *a, **k: Call(original(*a, **k), 0, None))
    with pytest.raises(SourceError, match="Firestore returned no count for comments"):
        source.count(COMMENTS)


# --- pages ----------------------------------------------------------------------------------------------------------


def test_a_page_has_its_number_of_documents_and_tells_the_total(source):
    pages = list(source.pages(COMMENTS, 200))
    assert [len(page.messages) for page in pages] == [200, 200, 50]
    assert {page.total for page in pages} == {450}
    assert source.billed_reads == source.budget.spent == 451


def test_a_page_of_large_documents_ends_with_its_bytes(source, monkeypatch):
    monkeypatch.setattr(long_read, "PAGE_BYTES", 1)
    assert [len(page.messages) for page in source.pages(COMMENTS, 200)] == [1] * 450
    [first, *_] = source.pages(COMMENTS, 1)
    size = wire.QueryResponse(document=first.messages[0]).ByteSize()
    monkeypatch.setattr(long_read, "PAGE_BYTES", 20 * size)
    assert 12 <= next(iter(source.pages(COMMENTS, 200))).messages.__len__() <= 20


def test_a_page_is_ended_by_the_document_that_reaches_its_bytes(source, monkeypatch):
    """Each answer is taken for a thousand bytes long: with the time of the read in it, its true length varies."""
    original, sizes = source.wire.run_query, []

    class Measured(Call):
        def __iter__(self):
            for size, answer in super().__iter__():
                sizes.append((size, len(answer.SerializeToString())))
                yield 1000, answer

    monkeypatch.setattr(source.wire, "run_query", lambda *a, **k: Measured(original(*a, **k), 10**6, None))
    assert len(list(source.pages(COMMENTS, 450))) == 1
    assert {size - own for size, own in sizes} == {0}, "measured as it came over the wire"
    for limit, documents in ((1000, 1), (1001, 2)):
        monkeypatch.setattr(long_read, "PAGE_BYTES", limit)
        pages = source.pages(COMMENTS, 450)
        assert len(next(pages).messages) == documents
        pages.close()


def test_a_part_that_breaks_at_its_beginning_is_billed_once(source, monkeypatch):
    """Before its first document, while the instant grows old."""
    original, calls = source.wire.run_query, []

    def breaking(*args, **kwargs):
        calls.append(1)
        call = original(*args, **kwargs)
        return Call(call, 0, Broken(grpc.StatusCode.UNAVAILABLE)) if len(calls) == 3 else call

    monkeypatch.setattr(source.wire, "run_query", breaking)
    monkeypatch.setattr(long_read, "PIN_SECONDS", 0)
    assert sum(len(page.messages) for page in source.pages(COMMENTS, 100)) == 450
    # Six parts, each with a count before it, and after it but for the last; the third read nothing.
    assert source.billed_reads == source.budget.spent == 450 + 6 + 5 + 1


def test_all_pages_of_a_read_over_several_pins_tell_one_total(source, monkeypatch):
    monkeypatch.setattr(long_read, "PIN_SECONDS", 0)
    pages = list(source.pages(COMMENTS, 100))
    assert [len(page.messages) for page in pages] == [100, 100, 100, 100, 50]
    assert {page.total for page in pages} == {450}
    # Each part is begun with a count of what is left, and proved by one up to its last document.
    assert source.billed_reads == source.budget.spent == 450 + 5 + 4


def test_a_scan_of_nothing_has_no_pages_and_is_billed_two_reads(source):
    """A count, and one read for the answer of nothing."""
    assert list(source.pages(Scan("nothing", ()), 10)) == []
    assert source.billed_reads == source.budget.spent == 2


def test_a_scan_that_is_given_up_gives_back_what_it_had_reserved(capped):
    source = capped(1000)
    pages = source.pages(COMMENTS, 10)
    next(pages)
    pages.close()
    assert 10 <= source.billed_reads <= 10 * 4 + 1, "three pages ahead at most, and the count"
    assert source.budget.spent == source.billed_reads
    source = capped(450)
    with pytest.raises(BudgetError, match="reading comments with 450 documents would cost 450 "):
        list(source.pages(COMMENTS, 10))
    assert source.budget.spent == 1, "the count alone"


def test_an_answer_without_a_document_is_passed_over(source, monkeypatch):
    """Firestore may send one while it finds nothing."""
    original = source.wire.run_query

    def with_news(*args, **kwargs):
        for number, (size, answer) in enumerate(original(*args, **kwargs)):
            if number == 100:
                yield 0, type(answer)(skipped_results=1)
            yield size, answer

    class News:
        def __init__(self, answers):
            self.answers = answers

        def __iter__(self):
            return self.answers

        def cancel(self):
            self.answers.close()

    monkeypatch.setattr(source.wire, "run_query", lambda *a, **k: News(with_news(*a, **k)))
    assert [len(page.messages) for page in source.pages(COMMENTS, 200)] == [200, 200, 50]


@pytest.mark.parametrize("size", [100, 450], ids=["pages of several instants", "an empty query after the last page"])
def test_a_read_over_several_instants_bills_each_document_once(capped, size, monkeypatch):
    """A cap that just suffices is not passed on the way, and what was reserved and not read is given back."""
    monkeypatch.setattr(long_read, "PIN_SECONDS", 0)
    source = capped(100_000)
    assert sum(len(page.messages) for page in source.pages(COMMENTS, size)) == 450
    needed = source.billed_reads
    assert source.budget.spent == needed
    counts = needed - 450 - 1  # the last query finds nothing, and is billed as one read
    assert counts > 0
    source = capped(needed)
    assert sum(len(page.messages) for page in source.pages(COMMENTS, size)) == 450
    assert source.budget.spent == needed
