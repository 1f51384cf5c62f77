"""The table of hosts is what they say of themselves."""

from docs.make_hosts import PAGE, make_page


def test_the_page_is_up_to_date():
    """And has a model for every family."""
    assert PAGE.read_text(encoding='utf-8') == make_page()
