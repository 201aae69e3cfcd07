"""What Prefect shows of a run: tables that a person reads, made from the records of a run."""

from pathlib import Path

from flows.artifacts import summarise, tabulate_accounting, tabulate_validation
from flows.dvc import Outcome
from flows.record import Record

ACCOUNTING = {
    "rows_in": 10,
    "selected": 2,
    "not_selected": 4,
    "set_aside": 1,
    "rejected": 3,
    "exported": 2,
    "reasons": {"set_aside": {"text_only": 1}, "rejected": {"image_missing": 2, "no_turns": 1}},
}


def test_a_failed_gate_and_the_most_frequent_reason_are_seen_first():
    gates = [
        {"name": "minimum_rows", "limit": 1, "value": 7, "passed": True},
        {"name": "maximum_reject_share", "limit": 0.2, "value": 0.3, "passed": False},
    ]
    lines = tabulate_validation({"gates": gates, "reasons": {"image_missing": 1, "no_turns": 2}})
    assert [line["what"] for line in lines] == [
        "gate minimum_rows", "gate maximum_reject_share", "rejected: no_turns", "rejected: image_missing",
    ]  # fmt: skip
    assert [line["outcome"] for line in lines] == ["passed", "FAILED", "", ""]
    assert (lines[1]["found"], lines[1]["limit"], lines[2]["found"]) == (0.3, 0.2, 2)


def test_accounting_adds_up_and_reasons_stand_under_their_status():
    lines = tabulate_accounting(ACCOUNTING)
    whole = [line for line in lines if not line["reason"]]
    assert whole[0] == {"status": "rows in", "reason": "", "rows": 10}
    assert sum(line["rows"] for line in whole[1:]) == 10
    assert [(line["status"], line["reason"], line["rows"]) for line in lines[-3:]] == [
        ("rejected", "", 3), ("rejected", "image_missing", 2), ("rejected", "no_turns", 1),
    ]  # fmt: skip


def test_the_summary_tells_stages_rows_and_the_manifest():
    record = Record(Path("data/manifests/manifest.json"), "d" * 64, "local", None, None)
    text = summarise([Outcome("validate", "ran", 1.25)], ACCOUNTING, record)
    assert "| validate | ran | 1.2 |" in text
    assert text.index("| rows in | 10 |") < text.index("| not selected | 4 |") < text.index("| exported | 2 |")
    assert "d" * 64 in text
    assert "git tag" not in text
