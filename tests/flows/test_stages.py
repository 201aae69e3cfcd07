"""Which faults of a stage are tried again."""

import pytest
from prefect.states import Failed

from flows.stages import _transient
from tasks import errors


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.BusyError, True),
        (errors.EngineError, True),
        (errors.AwayError, True),
        (errors.StorageError, False),
        (errors.InputError, False),
        (errors.GateError, False),
    ],
)
def test_only_what_may_go_away_by_itself_is_tried_again(error, again):
    assert _transient(None, None, Failed(data=error("why"))) is again
