from __future__ import annotations

import pytest

from benchmarks import page
from benchmarks.places import PAGE

BEGIN, END = page.FIGURES.begin, page.FIGURES.end
SECTIONS = (page.FIGURES, page.INSTRUCTIONS, page.SCALE, page.WHOLE_PATH, page.STABILITY)


def test_publishing_replaces_what_stands_between_the_marks(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    page.publish(path, "new")
    page.publish(path, "newer")

    assert path.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


@pytest.mark.parametrize("content", ["", BEGIN, END + BEGIN, BEGIN + END * 2])
def test_a_page_without_the_marks_is_left_alone(tmp_path, content):
    path = tmp_path / "page.md"
    path.write_text(content)

    with pytest.raises(ValueError, match=r"page\.md must contain"):
        page.publish(path, "new")

    assert path.read_text() == content


def test_each_command_writes_its_own_part(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("\n".join(f"{part.begin}\n{part.end}" for part in SECTIONS))

    for number, part in enumerate(SECTIONS):
        page.publish(path, f"content {number}", part)

    assert [path.read_text().count(f"content {number}") for number in range(len(SECTIONS))] == [1] * len(SECTIONS)


def test_the_documentation_has_a_place_for_each_command(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE.read_text())

    for part in SECTIONS:
        page.publish(path, "new", part)

    assert path.read_text().count("\nnew\n") == len(SECTIONS)
