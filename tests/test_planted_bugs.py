"""The planted bugs still fit the code: seen in a moment, not after half an hour of planting."""

import pytest
from planted_bugs import BUGS, ROOT, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.description)
def test_can_be_planted(bug: Bug) -> None:
    text = (ROOT / "fastbp" / bug.file).read_text(encoding="utf-8")
    assert text.count(bug.right) == 1, f"fastbp/{bug.file} changed: give the bug its new code"
    assert bug.wrong != bug.right


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.description)
def test_names_tests_that_are_there(bug: Bug) -> None:
    files = [name.partition("::")[0] for name in bug.tests.split()]
    assert not [file for file in files if not (ROOT / "tests" / file).exists()]
