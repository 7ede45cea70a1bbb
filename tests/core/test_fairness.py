"""Which of the due tasks with keys begin."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hookware.core.fairness import Candidate, choose

keys = st.sampled_from(["", "a", "b", "c"])
candidates = st.lists(st.tuples(keys, keys), max_size=30).map(
    lambda pairs: [Candidate(n, fair, limit) for n, (fair, limit) in enumerate(pairs)]
)
runs = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 4))


@given(candidates, st.integers(0, 12), st.integers(1, 3), runs, keys)
def test_no_limit_key_runs_too_often_and_no_slot_is_left_that_could_be_filled(
    waiting: list[Candidate], count: int, limit: int, running: dict[str, int], last_key: str
) -> None:
    choice = choose(waiting, count, limit=limit, running=running, last_key=last_key)
    assert len(set(choice.chosen)) == len(choice.chosen) <= count
    by_id = {one.task_id: one for one in waiting}
    begun = Counter(by_id[task_id].limit_key for task_id in choice.chosen)
    for key in begun.keys() - {""}:
        assert running.get(key, 0) + begun[key] <= limit
    left = [one for one in waiting if one.task_id not in choice.chosen]
    free = [one for one in left if not one.limit_key or running.get(one.limit_key, 0) + begun[one.limit_key] < limit]
    assert len(choice.chosen) == count or not free
    if len(choice.chosen) < count:
        assert choice.held_back is bool(left)


@given(candidates, st.integers(0, 12), keys)
def test_no_fair_key_gets_two_more_than_another_that_has_more_to_do(
    waiting: list[Candidate], count: int, last_key: str
) -> None:
    plain = [one._replace(limit_key="") for one in waiting]
    choice = choose(plain, count, limit=1, running={}, last_key=last_key)
    there = Counter(one.fair_key for one in plain)
    got = Counter(plain[task_id].fair_key for task_id in choice.chosen)
    for key in there:
        if got[key] < there[key]:
            assert all(got[other] <= got[key] + 1 for other in there)


@given(candidates, st.integers(1, 5))
def test_of_one_fair_key_the_oldest_begin_and_the_turn_goes_on_where_it_was(
    waiting: list[Candidate], count: int
) -> None:
    plain = [one._replace(limit_key="") for one in waiting]
    last_key, order = "", list[int]()
    while left := [one for one in plain if one.task_id not in order]:
        choice = choose(left, count, limit=1, running={}, last_key=last_key)
        assert choice.chosen
        order += choice.chosen
        last_key = choice.last_key
    for key in {one.fair_key for one in plain}:
        of_key = [task_id for task_id in order if plain[task_id].fair_key == key]
        assert of_key == sorted(of_key)
    at_once = choose(plain, len(plain), limit=1, running={}, last_key="")
    assert order == at_once.chosen
