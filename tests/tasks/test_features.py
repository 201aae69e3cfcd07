import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import feature_files
from tasks.errors import FeatureError
from tasks.feature_files import MappedGroup, ParquetGroup, open_file
from tasks.features import FeatureTable, ShardMatrix, open_array


def matrix(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def write_parquet(path, values, column="feature", row_group=7, **extra):
    kind = pa.list_(pa.float32(), values.shape[1])
    array = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
    pq.write_table(pa.table({column: array, **extra}), path, row_group_size=row_group)


def joined(one):
    return np.concatenate([np.empty((0, one.shape[1]), np.float32), *one.blocks()])


@pytest.mark.parametrize("block", [1, 3, 8, 100])
def test_blocks_cross_files_and_can_be_read_again(tmp_path, block):
    values = matrix(25, 6)
    write_parquet(tmp_path / "a.parquet", values[:10])
    write_parquet(tmp_path / "b.parquet", values[10:])
    shards = ShardMatrix([piece for name in "ab" for piece in open_file(tmp_path / f"{name}.parquet")], block)
    assert shards.shape == (25, 6)
    for _ in range(2):
        np.testing.assert_array_equal(joined(shards), values)
    assert [len(one) for one in shards.blocks()][:-1] == [block] * ((25 - 1) // block)


def test_take_in_any_order_with_repeats(tmp_path):
    values = matrix(25, 6)
    write_parquet(tmp_path / "a.parquet", values)
    rows = np.array([24, 0, 7, 7, 13])
    np.testing.assert_array_equal(open_array(tmp_path / "a.parquet").take(rows), values[rows])
    assert open_array(tmp_path / "a.parquet").take(np.array([], dtype=np.int64)).shape == (0, 6)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_npy_of_each_precision(tmp_path, kind, monkeypatch):
    values = matrix(9, 5).astype(kind)
    np.save(tmp_path / "x.npy", values)
    for pays in (1 << 26, 0):  # numpy's cast, then torch's
        monkeypatch.setattr(feature_files, "_TORCH_PAYS", pays)
        read = open_array(tmp_path / "x.npy")
        np.testing.assert_array_equal(joined(read), values.astype(np.float32))
    np.testing.assert_array_equal(read.take(np.array([8, 1])), values[[8, 1]].astype(np.float32))


def test_folder_of_npy_files_in_order_of_name(tmp_path):
    values = matrix(9, 5)
    np.save(tmp_path / "b.npy", values[4:])
    np.save(tmp_path / "a.npy", values[:4])
    np.testing.assert_array_equal(joined(open_array(tmp_path)), values)


def test_variable_lists_are_a_matrix_when_all_are_equally_long(tmp_path):
    pq.write_table(pa.table({"v": pa.array([[1.0, 2.0], [3.0, 4.0]])}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(joined(open_array(tmp_path / "a.parquet")), [[1, 2], [3, 4]])
    pq.write_table(pa.table({"v": pa.array([[1.0, 2.0], [3.0]])}), tmp_path / "a.parquet")
    with pytest.raises(FeatureError, match=r"a\.parquet.*differing width"):
        open_array(tmp_path / "a.parquet")
    pq.write_table(pa.table({"v": pa.array([[1.0, 2.0], None])}), tmp_path / "a.parquet")
    with pytest.raises(FeatureError, match=r"a\.parquet.*nulls"):
        open_array(tmp_path / "a.parquet")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_with_file_row_and_column(tmp_path, bad):
    values = matrix(25, 6)
    values[13, 2] = bad
    np.save(tmp_path / "a.npy", values[:10])
    np.save(tmp_path / "b.npy", values[10:])
    with pytest.raises(FeatureError, match=r"b\.npy: row 13, column 2 is"):
        joined(open_array(tmp_path))


def test_huge_finite_values_pass(tmp_path):
    values = np.full((4, 3), 3e38, dtype=np.float32)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(joined(open_array(tmp_path / "a.npy")), values)


def test_widths_that_differ_name_the_file(tmp_path):
    np.save(tmp_path / "a.npy", matrix(3, 4))
    np.save(tmp_path / "b.npy", matrix(3, 5))
    with pytest.raises(FeatureError, match=r"b\.npy: vectors of 5, but .*a\.npy has 4"):
        open_array(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"rubbish", "not a whole .npy"),
        ("a.parquet", b"rubbish", "not a whole Parquet"),
        ("a.csv", b"1,2", "expected a .npy or .parquet"),
        ("a.npy", None, "no such file"),
        ("a.parquet", None, "no such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FeatureError, match=message):
        open_array(tmp_path / name)


def test_npy_of_other_shapes_and_types(tmp_path):
    for array in (np.zeros(3), np.zeros((2, 2, 2)), np.zeros((2, 2), dtype=int)):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(FeatureError, match="expected a matrix of floats"):
            open_array(tmp_path / "a.npy")


def test_a_folder_without_or_with_mixed_files(tmp_path):
    with pytest.raises(FeatureError, match="found neither"):
        open_array(tmp_path)
    np.save(tmp_path / "a.npy", matrix(2, 2))
    write_parquet(tmp_path / "b.parquet", matrix(2, 2))
    with pytest.raises(FeatureError, match=r"found \.npy and \.parquet"):
        open_array(tmp_path)


def test_which_column(tmp_path):
    write_parquet(tmp_path / "a.parquet", matrix(4, 3), column="image", n=pa.array([1, 2, 3, 4]))
    assert open_array(tmp_path / "a.parquet").shape == (4, 3)
    with pytest.raises(FeatureError, match="`text`; its columns of vectors: image"):
        open_array(tmp_path / "a.parquet", "text")


def test_no_rows(tmp_path):
    np.save(tmp_path / "a.npy", matrix(0, 3))
    assert list(open_array(tmp_path / "a.npy").blocks()) == []


def test_missing_signal(tmp_path):
    with pytest.raises(FeatureError, match=r"add `pooled` to extract\.signals"):
        FeatureTable(tmp_path / "pooled")


def test_mapped_file_that_ends_early(tmp_path):
    (tmp_path / "x").write_bytes(bytes(40))
    with pytest.raises(FeatureError, match="ends before row 3"):
        MappedGroup(tmp_path / "x", (3, 4), 0).read(0, 3, np.empty((3, 4), np.float32))


def test_ordinary_parquet_is_not_taken_for_a_mapped_one(tmp_path):
    write_parquet(tmp_path / "a.parquet", matrix(4, 3))
    assert all(isinstance(piece, ParquetGroup) for piece in open_file(tmp_path / "a.parquet"))


def test_npy_of_any_layout_and_byte_order_and_without_rows(tmp_path):
    values = matrix(9, 5)
    for name, array in {"f": np.asfortranarray(values), "swapped": values.astype(">f4"), "c": values}.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(joined(open_array(tmp_path / f"{name}.npy")), values)
    np.save(tmp_path / "none.npy", values[:0])
    assert joined(open_array(tmp_path / "none.npy")).shape == (0, 5)


def test_an_npy_file_that_shrinks_while_read_is_named(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, matrix(50_000, 5))
    opened = open_array(path)
    with path.open("r+b") as file:
        file.truncate(900_000)
    with pytest.raises(FeatureError, match=r"x\.npy: ends before row"):
        joined(opened)
