"""What `scalselect plan` says of a plan and the stages that are not up to date."""

from flows.plan import describe
from tasks.extraction import Plan

PULLED = Plan(rows=1500, cached={"attended": 0}, missing={"attended": 1500}, seconds=90.0)


def test_rows_and_time_of_what_is_to_be_extracted():
    said = describe(PULLED, {"extract"})
    assert "  validate  up to date\n  extract   to run\n  score     depends on those before" in said
    assert "  attended             0 in the store       1,500 to extract" in said
    assert said.endswith("estimated extraction time: 1 min 30 s")


def test_features_that_were_pulled_are_not_extracted_again_though_the_store_is_empty():
    said = describe(PULLED, set())
    assert "to run" not in said
    assert said.endswith("nothing will be extracted now")
