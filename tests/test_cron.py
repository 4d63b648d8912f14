"""Cron expressions: what is refused, and that all else is one to Dagster too."""

import pytest
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_string
from hypothesis import given
from hypothesis import strategies as st

from panacea_lib.cron import check_cron
from panacea_lib.problem_retrain import Retrain

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "JUN"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "Mon"]


def field(low: int, high: int, *names: str) -> st.SearchStrategy[str]:
    """Texts of one field, a few of them wrong."""
    number = st.integers(low - 1, high + 1).map(str)
    one = number | st.sampled_from(names) if names else number
    step = st.integers(0, high + 1).map(lambda n: f"/{n}") | st.just("")
    ranged = st.builds(lambda a, b, s: f"{a}-{b}{s}", one, one, step)
    item = one | ranged | step.map(lambda s: f"*{s}")
    return st.lists(item, min_size=1, max_size=3).map(",".join)


@given(
    st.tuples(
        field(0, 59), field(0, 23), field(1, 31), field(1, 12, *MONTHS), field(0, 7, *WEEKDAYS)
    ).map(" ".join)
)
def test_what_is_accepted_is_a_schedule_to_dagster_and_ticks(text):
    try:
        check_cron(text)
    except ValueError:
        return
    assert is_valid_cron_string(text)
    assert next(cron_string_iterator(0, text, "UTC")).timestamp() >= 0


@pytest.mark.parametrize(
    "text", ["0 3 * * 1", "*/5 * * * *", "0 3 1,15 * *", "0 9-17/2 * jan-jun MON-fri", "0 0 29 2 *"]
)
def test_common_ones_are_accepted(text):
    assert Retrain(cron=text).cron == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * *", "has 4 fields, not the five"),
        ("@weekly", "write for example '0 3"),
        ("0 0 3 * * 1", "has 6 fields"),
        ("60 3 * * *", "'60' is no minute; write a number from 0 to 59"),
        ("0 3 * * mo", "'mo' is no day of the week"),
        ("0 3 * jan-13 *", "'13' is no month"),
        ("0 3 L * *", "'L' is no day of the month"),
        ("0 ? * * *", "'\\?' is no hour; write \\*, a number from 0 to 23"),
        ("*/0 * * * *", "the step of '\\*/0'"),
        ("5/10 * * * *", "the step of '5/10'"),
        ("0 17-9 * * *", "the range '17-9' \\(in hour\\) runs backwards"),
        ("0 0 31 2,4 *", "names a day that no such month has"),
    ],
)
def test_what_is_none_is_refused_with_the_remedy(text, said):
    with pytest.raises(ValueError, match=f"cron: .*{said}"):
        Retrain(cron=text)


@pytest.mark.parametrize("name", ["Mars/Phobos", "europe/berlin", "America", "../UTC", ""])
def test_a_time_zone_is_one_of_the_database(name):
    assert Retrain(timezone="Europe/Berlin").timezone == "Europe/Berlin"
    with pytest.raises(ValueError, match=r"timezone: no time zone is named .* e\.g\. Europe"):
        Retrain(timezone=name)
