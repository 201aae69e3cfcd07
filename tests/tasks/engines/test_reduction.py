"""Moments measured on a real Ray cluster on this machine."""

import hashlib

import numpy as np
import pytest

ray = pytest.importorskip("ray")

from tasks.engines import reduction  # noqa: E402
from tasks.features import FeatureTable  # noqa: E402
from tasks.linalg import pieces  # noqa: E402
from tasks.linalg.pieces import Nothing, measure_pieces, missing_pieces  # noqa: E402
from tasks.moment_cache import MomentCache  # noqa: E402
from tasks.params import RaySettings  # noqa: E402

ROWS, WIDTH = 160_000, 6


@pytest.fixture
def table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(ROWS)]
    values = np.random.default_rng(0).normal(100, 3, size=(ROWS, WIDTH)).astype(np.float32)
    feature = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), WIDTH)
    folder = tmp_path / "features" / "attended"
    folder.mkdir(parents=True)
    whole = pa.table({"row": range(ROWS), "id": names, "digest": names, "feature": feature})
    for number, start in enumerate(range(0, ROWS, 40_000)):
        pq.write_table(whole[start : start + 40_000], folder / f"part-{number:05d}.parquet")
    return FeatureTable(folder)


@pytest.mark.slow
def test_a_cluster_leaves_the_bits_of_one_machine(table, tmp_path):
    matrix, cache = table.matrix(), MomentCache(tmp_path / "moments")
    assert len(missing_pieces(matrix.shape, table.digests, cache)) > 1
    reduction.fill(table.folder, "feature", matrix.shape, table.digests, cache, RaySettings())
    assert missing_pieces(matrix.shape, table.digests, cache) == []
    together = measure_pieces(matrix.read_spans, matrix.shape, table.digests, cache)
    alone = measure_pieces(matrix.read_spans, matrix.shape, table.digests, Nothing())
    np.testing.assert_array_equal(together.scatter, alone.scatter)
    np.testing.assert_array_equal(together.mean, alone.mean)
    assert not ray.is_initialized()


def test_nothing_missing_starts_no_cluster(table, tmp_path):
    matrix, cache = table.matrix(), MomentCache(tmp_path / "moments")
    measure_pieces(matrix.read_spans, matrix.shape, table.digests, cache)
    reduction.fill(table.folder, "feature", matrix.shape, table.digests, cache, RaySettings(address="10.0.0.1:1"))


def test_a_piece_measured_alone_is_that_of_the_whole(table):
    matrix, kept = table.matrix(), {}

    class Memory(Nothing):
        def put(self, key, sums):
            kept[key] = sums

    measure_pieces(matrix.read_spans, matrix.shape, table.digests, Memory())
    for piece in missing_pieces(matrix.shape, table.digests, Nothing()):
        alone = pieces.measure_piece(matrix.read_spans, matrix.shape, piece)
        np.testing.assert_array_equal(alone.gram, kept[piece.key].gram)
