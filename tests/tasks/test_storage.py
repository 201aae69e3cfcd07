import errno

import pytest

from tasks.errors import StorageError
from tasks.storage import telling_storage_faults


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_fault_of_the_disk_is_said_with_the_path_and_what_to_do(number):
    with pytest.raises(StorageError, match=r"^/data/x: .*; .* and run again"), telling_storage_faults():
        raise OSError(number, "as the system says", "/data/x")


def test_other_faults_pass():
    with pytest.raises(FileNotFoundError), telling_storage_faults():
        raise FileNotFoundError(errno.ENOENT, "none", "/data/x")
