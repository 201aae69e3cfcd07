import logging

from tasks import progress


def test_speaks_now_and_then_and_at_the_end(caplog, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock) / 4)
    with caplog.at_level(logging.INFO), progress.track("work", 100) as tracked:
        for _ in range(10):
            tracked.advance(10)
    lines = caplog.messages
    assert lines[-1].startswith("work: 100/100 rows, ")
    assert lines[-1].endswith("0:00:00 left")
    assert 2 <= len(lines) < 10


def test_loading_does_not_count_against_the_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tracked = progress.Progress("work", 100)
    now[0] = 50.0
    tracked.advance(10)
    now[0] = 51.0
    tracked.advance(10)
    assert tracked.rate == 10.0


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.track("work", 4) as tracked:
        tracked.advance(4)
    assert "4/4" in capsys.readouterr().err
