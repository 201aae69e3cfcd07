"""The shard index and the planner at a hundred million rows, on digests that stand for samples.

Simulated: the digests and which shard holds them. Real: the catalogue, its file, the search for what is missing.

    python -m bench.planning --rows 1000000
    python -m bench.planning --rows 100000000
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.measure import measured
from tasks.digests import DigestIndex
from tasks.index import Catalogue, _read_cache, _write_cache

SHARD_ROWS = 1024
CHUNK = 1 << 20


def make_digests(path: Path, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Random digests, mapped from a file: what samples.parquet would hold need not be resident."""
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            file.write(rng.bytes(32 * min(CHUNK, rows - start)))
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, 32))


def simulate(rows: int, folder: str) -> dict[str, float]:
    """Seconds of each step for a store of `rows` rows, of which a dataset of the same size plus 1 % is new."""
    rng = np.random.default_rng(0)
    digests = make_digests(Path(folder) / "digests", rows, rng)
    marks = {}
    began = time.perf_counter()
    index = DigestIndex(digests)
    marks["sort"] = time.perf_counter() - began
    place = index.order
    catalogue = Catalogue(
        tuple(f"{number:064x}.arrow" for number in range(rows // SHARD_ROWS + 1)),
        index,
        (place // SHARD_ROWS).astype(np.int32),
        (place % SHARD_ROWS).astype(np.int32),
    )
    del place
    stamps = [(name, 1, 1) for name in catalogue.names]
    began = time.perf_counter()
    _write_cache(Path(folder) / "index.arrow", stamps, catalogue)
    marks["write"] = time.perf_counter() - began
    del index, catalogue
    began = time.perf_counter()
    names, entries = _read_cache(Path(folder) / "index.arrow")
    assert entries is not None
    opened = DigestIndex(entries.digests, presorted=True)
    marks["open"] = time.perf_counter() - began
    began = time.perf_counter()
    missing = 0
    for start in range(0, rows, CHUNK):
        missing += int((opened.find(digests[start : start + CHUNK]) < 0).sum())
    fresh = np.frombuffer(rng.bytes(32 * (rows // 100)), dtype=np.uint8).reshape(-1, 32)
    missing += int((opened.find(fresh) < 0).sum())
    marks["find"] = time.perf_counter() - began
    marks["missing"] = missing
    marks["shards"] = len(names)
    marks["bytes"] = (Path(folder) / "index.arrow").stat().st_size
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cost = measured(simulate, args.rows, folder)
    value = cost.value
    assert value["missing"] == args.rows // 100, "exactly the new rows are missing"
    print(f"{args.rows} rows in {value['shards']:.0f} shards: index sorted {value['sort']:.1f} s, written "
          f"{value['write']:.1f} s ({value['bytes'] / 2**20:.0f} MiB), opened {value['open']:.1f} s, all of them "
          f"and 1 % new ones looked up {value['find']:.1f} s; peak {cost.peak / 2**20:.0f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
