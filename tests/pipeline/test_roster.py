"""Weak references to things that come and go, in a list that stays short."""

import weakref

from pyresilience.pipeline._roster import FEW, Roster


class Thing:
    pass


def add(roster, thing):
    roster.make_room()
    roster.refs.append(weakref.ref(thing))
    return thing


def test_things_are_there_in_order_as_long_as_somebody_holds_them():
    roster = Roster()
    kept = [add(roster, Thing()) for _ in range(3)]
    add(roster, Thing())
    last = add(roster, Thing())
    assert list(roster) == [*kept, last]


def test_references_to_what_is_gone_are_dropped():
    roster = Roster()
    kept = [add(roster, Thing()) for _ in range(10)]
    for _ in range(5 * FEW):
        add(roster, Thing())
        assert len(roster.refs) <= FEW
    assert list(roster) == kept


def test_what_is_held_is_looked_through_only_when_it_has_doubled():
    looked = []

    class Watched:
        def __init__(self, thing):
            self.thing = thing

        def __call__(self):
            looked.append(self.thing)
            return self.thing

    roster = Roster()
    for number in range(20 * FEW):
        roster.make_room()
        roster.refs.append(Watched(number))
    assert len(looked) < 2 * 20 * FEW
    assert list(roster) == [*range(20 * FEW)]


def test_what_comes_while_room_is_made_stays():
    """From another thread, or from a signal handler."""

    class Late:
        """A reference that, when it is looked at, has something else come."""

        def __call__(self):
            late.append(add(roster, Thing()))

    roster, late = Roster(), []
    roster.refs += [Late()] * FEW
    kept = add(roster, Thing())
    assert list(roster) == [*late, kept] and len(late) == FEW
