from tests.golden.io_coverage import names, uncovered


def test_the_list_of_uncovered_iterators_is_current() -> None:
    assert uncovered() == names("io_uncovered.txt")
