import filelock
import pytest

from flows import direct
from tasks.errors import BusyError, InputError, ParamsError

NAMED = {"dataset.path": "a.json", "model.path": "m"}


@pytest.mark.parametrize(
    ("text", "budget"), [("5000", 5000), ("0", 0), ("0.16", 0.16), ("1.0", 1.0), (".5", 0.5), ("1", 1)]
)
def test_a_budget_is_a_count_or_with_a_point_a_share(text, budget):
    read = direct.parse_budget(text)
    assert (type(read), read) == (type(budget), budget)


@pytest.mark.parametrize("text", ["", "many", "-1", "-0.5", "1.5", "0.0", "16%", "1e3", "5,000"])
def test_any_other_budget_is_refused(text):
    with pytest.raises(ParamsError, match="--budget"):
        direct.parse_budget(text)


def test_options_not_given_leave_the_default():
    settings = direct.settings_of({**NAMED, "select.budget": None, "extract.preset": None}, {})
    assert settings.select.budget == 0.16
    assert settings.extract.signals == ("attended",)


@pytest.mark.parametrize(
    ("method", "assigned", "signals"),
    [
        ("scalselect", {}, ("attended",)),
        ("prism", {}, ("pooled",)),
        ("d2", {}, ("answers", "pooled")),
        ("combined", {"methods.combined.members": {"prism": {}, "el2n": {}}}, ("pooled", "answers")),
        ("prism", {"extract.signals": ["attended", "pooled"]}, ("attended", "pooled")),
    ],
)
def test_signals_follow_the_method_unless_set(method, assigned, signals):
    assert direct.settings_of({**NAMED, "score.method": method}, assigned).extract.signals == signals


def test_set_wins_over_options():
    assert direct.settings_of({**NAMED, "select.budget": 5}, {"select.budget": 6}).select.budget == 6


@pytest.mark.parametrize(
    ("assigned", "said"),
    [
        ({"selct.budget": 5}, "did you mean `select`"),
        ({"score.method": "magic"}, "no method `magic`"),
        ({"methods.scalselect.enrgy": 1}, "enrgy"),
        ({"model.dtype": "float8"}, "model.dtype"),
    ],
)
def test_a_wrong_setting_is_named(assigned, said):
    with pytest.raises(ParamsError, match=said):
        direct.settings_of(NAMED, assigned)


def test_files_are_pairs():
    assert {name: str(path) for name, path in direct.parse_files(["answers.nll=a=b.npy"]).items()} == {
        "answers.nll": "a=b.npy"
    }
    with pytest.raises(ParamsError, match="expected NAME=PATH"):
        direct.parse_files(["answers.nll"])


def test_an_output_that_cannot_be_a_folder_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file: cannot be made a folder"):
        direct.select(direct.settings_of(NAMED, {}), tmp_path / "file")


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    (tmp_path / "store").mkdir()
    with filelock.FileLock(tmp_path / "store/select.lock"), pytest.raises(BusyError, match="another run"):
        direct.select(direct.settings_of(NAMED, {}), tmp_path)
