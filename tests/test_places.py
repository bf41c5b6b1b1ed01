"""The place of a live panel in HTML: written and found by the same rule."""

import pytest

from course_utils.places import Place, find_places


def test_what_is_written_is_found() -> None:
    places = [Place("flow", "chapter/flow"), Place("dot", "a_b-c")]
    page = "<p>text</p>".join(
        place.html("<p>wait</p>", failed='no "luck"') for place in places
    )
    assert find_places(page) == places
    assert find_places(places[0].html()) == places[:1]


def test_pages_without_a_panel_have_no_place() -> None:
    assert find_places('<div class="live-words" data-live="x">not one</div>') == []


@pytest.mark.parametrize("name", ["../out", "/root", "a b", ""])
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="data-state made of words"):
        find_places(Place("dot", name).html())
    with pytest.raises(ValueError, match="data-live made of words"):
        find_places(Place(name, "dot").html())
