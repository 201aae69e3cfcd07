"""Every method against the reference vectors of tests/golden/methods (its README describes each array)."""

from pathlib import Path

import numpy as np
import pytest

from tasks.linalg.apportion import carry, round_in_turn, round_up
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.mmd import gaussian, gaussian_block, greedy_mmd
from tasks.linalg.moments import measure
from tasks.linalg.rescaled import unit_rows
from tasks.linalg.spectrum import from_moments, from_rows
from tasks.methods import METHODS, coincide, semdedup
from tasks.methods.contract import Columns, Tables, digest_order
from tasks.methods.prism import measure_redundancy


def read(golden: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(golden / "methods" / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def tables(features: np.ndarray, name: str) -> Tables:
    """Rows whose digests stand in row order, so that ties go to the lower row as in the references."""
    digests = np.array([f"{row:08d}" for row in range(len(features))])
    return Tables(digests, np.full(len(features), "all"), {name: ArrayMatrix(features)})


def run(method: str, features: np.ndarray, budget: int | None = None, **options: object) -> tuple[Columns, np.ndarray]:
    """Scores, and the first `budget` rows (default: all)."""
    chosen = METHODS[method]
    parsed = chosen.parse(options)
    given = tables(features, parsed.features)
    columns = chosen.score(given, parsed)
    budget = len(features) if budget is None else budget
    return columns, chosen.select(columns, given, budget, np.random.default_rng(0), parsed)


@pytest.fixture
def leverage(golden: Path) -> dict[str, np.ndarray]:
    return read(golden, "leverage")


def energy_of(arrays: dict[str, np.ndarray]) -> float:
    return float(arrays["energy_threshold"])


def leverage_names(arrays: dict[str, np.ndarray]) -> list[str]:
    return [str(name) for name in arrays["case_names"]]


def test_scalselect(leverage: dict[str, np.ndarray]) -> None:
    for case in leverage_names(leverage):
        columns, order = run("scalselect", leverage[f"{case}_X"], energy=energy_of(leverage))
        np.testing.assert_allclose(columns["score"], leverage[f"{case}_leverage"], atol=1e-9, rtol=0, err_msg=case)
        np.testing.assert_allclose(columns["score"], leverage[f"{case}_leverage_official"], atol=1e-9, rtol=0)
        assert np.isclose(columns["score"].sum(), leverage[f"{case}_k"], atol=1e-8), case
        reference = leverage[f"{case}_leverage"][order]
        assert (np.diff(reference) <= 1e-9).all(), case
        if np.diff(np.sort(reference)).min() > 2e-9:  # no ties, by design or by rounding
            np.testing.assert_array_equal(order, leverage[f"{case}_order_official"], err_msg=case)


def test_scalselect_command_line_preset(leverage: dict[str, np.ndarray]) -> None:
    for case in leverage_names(leverage):
        columns, _ = run("scalselect", leverage[f"{case}_X"], preset="official-cli", energy=energy_of(leverage))
        expected = leverage[f"{case}_leverage_cli_official"]
        np.testing.assert_allclose(columns["score"], expected, atol=1e-9, rtol=0, err_msg=case)
        assert np.isclose(columns["score"].sum(), leverage[f"{case}_k_cli"], atol=1e-8), case


@pytest.mark.parametrize("route", ["moments", "rows"])
def test_spectrum(leverage: dict[str, np.ndarray], route: str) -> None:
    for case in leverage_names(leverage):
        matrix = ArrayMatrix(leverage[f"{case}_X"])
        spectrum = from_rows(matrix) if route == "rows" else from_moments(measure(matrix))
        assert spectrum.rank_for(energy_of(leverage)) == leverage[f"{case}_k"], case
        expected = leverage[f"{case}_singular_values"]
        got = np.zeros(len(expected))
        count = min(len(expected), len(spectrum.values))
        got[:count] = np.sqrt(spectrum.values[:count])
        # Singular values below rounding are reported as zero: squaring loses half of their digits.
        np.testing.assert_allclose(got, expected, atol=3e-7 * expected[0], rtol=1e-9, err_msg=case)


def test_prism_v1(golden: Path) -> None:
    arrays = read(golden, "prism")
    columns, order = run("prism", arrays["features"], version="v1")
    np.testing.assert_allclose(columns["redundancy"], arrays["v1_mean_excl_self"], atol=1e-10, rtol=0)
    np.testing.assert_array_equal(order, arrays["v1_order_low_first"])
    kept = run("prism", arrays["features"], len(arrays["v1_keep"]), version="v1")[1]
    np.testing.assert_array_equal(kept, arrays["v1_keep"])


def test_prism_v4(golden: Path) -> None:
    arrays = read(golden, "prism")
    columns, order = run("prism", arrays["features"], version="v4")
    np.testing.assert_allclose(columns["redundancy"], arrays["v4_redundancy"], atol=1e-10, rtol=0)
    np.testing.assert_array_equal(order, arrays["v4_order_low_first"])
    kept = run("prism", arrays["features"], len(arrays["v4_keep"]), version="v4")[1]
    np.testing.assert_array_equal(kept, arrays["v4_keep"])


def test_prism_duplicates_tie(golden: Path) -> None:
    arrays = read(golden, "prism")
    matrix = ArrayMatrix(arrays["dup_features"])
    others = len(arrays["dup_features"]) - 1
    v1, v4 = (measure_redundancy(matrix, version) for version in ("v1", "v4"))
    np.testing.assert_allclose(v1 * others, arrays["dup_v1_sum_excl_self"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(v4, arrays["dup_v4_redundancy"], atol=1e-10, rtol=0)
    one, other = arrays["dup_pair"]
    for version in ("v1", "v4"):
        score = run("prism", arrays["dup_features"], version=version)[0]["score"]
        assert score[one] == score[other]


def test_greedy_mmd(golden: Path) -> None:
    arrays = read(golden, "mmd")
    for case in range(int(arrays["n_cases"])):
        points, sigma = arrays[f"case{case}_points"], float(arrays[f"case{case}_sigma"])
        wide = points.astype(np.float64)
        np.testing.assert_allclose(gaussian_block(wide, wide, sigma), arrays[f"case{case}_kernel"], atol=1e-12)
        for dense_rows in (0, 10_000):
            order, values = greedy_mmd(gaussian(points, sigma, dense_rows=max(dense_rows, 1)))
            np.testing.assert_array_equal(order, arrays[f"case{case}_order"])
            np.testing.assert_array_equal(order, arrays[f"case{case}_order_official"])
            np.testing.assert_allclose(values, arrays[f"case{case}_mmd2"], atol=1e-12)


def halves(columns: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The language halves of rows or centroids."""
    blocks = columns.reshape(len(columns), int(arrays["n_layers"]), 2, int(arrays["half_dim"]))
    return blocks[:, :, 1].reshape(len(columns), -1)


def cluster_columns(arrays: dict[str, np.ndarray], share: np.ndarray) -> Columns:
    """What COINCIDE's score gives, from the reference's clusters and greedy orders."""
    place = np.empty(len(arrays["assignments"]), dtype=np.int64)
    for start, stop in zip(arrays["mmd_order_offsets"][:-1], arrays["mmd_order_offsets"][1:], strict=True):
        place[arrays["mmd_order_rows"][start:stop]] = np.arange(stop - start)
    labels = arrays["assignments"]
    return {"score": share[labels] / (place + 0.5), "cluster": labels, "place": place, "share": share[labels]}


@pytest.mark.parametrize("case", ["coincide", "coincide_edge"])
def test_coincide_inside_clusters(golden: Path, case: str) -> None:
    arrays = read(golden, case)
    for cluster, (start, stop) in enumerate(
        zip(arrays["mmd_order_offsets"][:-1], arrays["mmd_order_offsets"][1:], strict=True)
    ):
        rows = np.flatnonzero(arrays["assignments"] == cluster)
        kernel = gaussian(arrays["features"][rows], float(arrays["sigma"]))
        density = coincide.density_of(kernel, diagonal=True)
        assert density == pytest.approx(float(arrays["D_official_f64"][cluster]), abs=1e-12)
        if "D_paper" in arrays:
            assert coincide.density_of(kernel, diagonal=False) == pytest.approx(
                float(arrays["D_paper"][cluster]), abs=1e-12
            )
        order, values = greedy_mmd(kernel)
        np.testing.assert_allclose(values, arrays["mmd2_values"][start:stop], atol=1e-12)
        if len(rows) != 2:
            np.testing.assert_array_equal(rows[order], arrays["mmd_order_rows"][start:stop])


@pytest.mark.parametrize("case", ["coincide", "coincide_edge"])
def test_coincide_official_shares(golden: Path, case: str) -> None:
    arrays = read(golden, case)
    transfer = coincide.transferability_official(halves(arrays["centroids"], arrays), float(arrays["mask_threshold"]))
    np.testing.assert_allclose(transfer, arrays["S_official_f64"], atol=1e-6)
    np.testing.assert_allclose(transfer, arrays["S_official"], atol=1e-6)
    share = coincide.shares(transfer, arrays["D_official_f64"], float(arrays["tau"]))
    np.testing.assert_allclose(share, arrays["P_official_f64"], atol=1e-6)
    np.testing.assert_array_equal(np.argsort(-share, kind="stable"), arrays["cluster_order_official"])


@pytest.mark.parametrize("case", ["coincide", "coincide_edge"])
def test_coincide_official_quotas(golden: Path, case: str) -> None:
    arrays = read(golden, case)
    order = arrays["cluster_order_official"]
    share, room = arrays["P_official_f64"][order], arrays["cluster_sizes"][order]
    taken, wanted = round_in_turn(share, room, int(arrays["target"]))
    np.testing.assert_array_equal(taken, arrays["quota_official"][order])
    np.testing.assert_array_equal(wanted > room, arrays["took_all_official"][order])


def test_coincide_official_picks(golden: Path) -> None:
    arrays = read(golden, "coincide")
    options = coincide.Options(preset="official")
    columns = cluster_columns(arrays, arrays["P_official_f64"])
    given = tables(arrays["features"], "pooled")
    picks = coincide.select(columns, given, int(arrays["target"]), np.random.default_rng(0), options)
    np.testing.assert_array_equal(picks, arrays["picks_official"])


def test_coincide_meets_the_budget_the_official_code_misses(golden: Path) -> None:
    arrays = read(golden, "coincide_edge")
    options = coincide.Options(preset="official")
    columns = cluster_columns(arrays, arrays["P_official_f64"])
    given = tables(arrays["features"], "pooled")
    target = int(arrays["target"])
    picks = coincide.select(columns, given, target, np.random.default_rng(0), options)
    assert len(picks) == len(set(picks)) == target >= len(arrays["picks_official"])
    assert set(arrays["picks_official"]) <= set(picks)


def test_coincide_paper_shares(golden: Path) -> None:
    arrays = read(golden, "coincide")
    transfer = coincide.transferability_paper(arrays["centroids"])
    np.testing.assert_allclose(transfer, arrays["S_paper"], atol=1e-6)
    share = coincide.shares(arrays["S_paper"], arrays["D_paper"], float(arrays["tau"]))
    np.testing.assert_allclose(share, arrays["P_paper"], atol=1e-12)
    np.testing.assert_array_equal(np.argsort(-share, kind="stable"), arrays["cluster_order_paper"])
    np.testing.assert_allclose(share * arrays["target"], arrays["quota_paper_real"], atol=1e-9)


def test_coincide_paper_picks(golden: Path) -> None:
    arrays = read(golden, "coincide")
    target, order = int(arrays["target"]), arrays["cluster_order_paper"]
    share, room = arrays["P_paper"][order], arrays["cluster_sizes"][order]
    taken, _ = round_in_turn(share, room, target)
    np.testing.assert_array_equal(taken, arrays["quota_paper_carry"][order])
    up = round_up(share, room, target)
    np.testing.assert_array_equal(up, arrays["quota_paper_ceil"][order])
    assert carry(share, room, up, target).sum() == target
    columns = cluster_columns(arrays, arrays["P_paper"])
    given = tables(arrays["features"], "pooled")
    picks = coincide.select(columns, given, target, np.random.default_rng(0), coincide.Options())
    np.testing.assert_array_equal(picks, arrays["picks_paper_carry"])
    ceiled = coincide.select(columns, given, target, np.random.default_rng(0), coincide.Options(rounding="ceil"))
    if up.sum() >= target:
        np.testing.assert_array_equal(ceiled, arrays["picks_paper_ceil"][:target])
    else:  # whole clusters fell short of their quotas: the budget is met from the others
        assert len(set(ceiled)) == target
        assert set(arrays["picks_paper_ceil"]) <= set(ceiled)


@pytest.mark.parametrize("case", ["coincide", "coincide_edge"])
def test_coincide_as_a_method_given_its_clusters(golden: Path, case: str) -> None:
    arrays = read(golden, case)
    known = {
        "temperature": float(arrays["tau"]),
        "sigma": float(arrays["sigma"]),
        "twins": float(arrays["mask_threshold"]),
    }
    given = clustered(arrays)
    for preset in ("official", "paper") if case == "coincide" else ("official",):
        options = coincide.Options(preset=preset, labels="assignments", **known)
        columns = coincide.score(given, options)
        rows = [int(np.flatnonzero(arrays["assignments"] == cluster)[0]) for cluster in range(len(arrays["centroids"]))]
        suffix = "official_f64" if preset == "official" else "paper"
        np.testing.assert_allclose(columns["transferability"][rows], arrays[f"S_{suffix}"], atol=1e-6)
        np.testing.assert_allclose(columns["density"][rows], arrays[f"D_{suffix}"], atol=1e-12)
        np.testing.assert_allclose(columns["share"][rows], arrays[f"P_{suffix}"], atol=1e-6)
        picks = coincide.select(columns, given, int(arrays["target"]), np.random.default_rng(0), options)
        if preset == "paper" or case == "coincide":
            np.testing.assert_array_equal(
                picks, arrays["picks_official" if preset == "official" else "picks_paper_carry"]
            )
        else:
            assert set(arrays["picks_official"]) <= set(picks)


def clustered(arrays: dict[str, np.ndarray]) -> Tables:
    """Rows with the reference's clusters as a column, and their language halves."""
    features = arrays["features"]
    matrices = {"pooled": ArrayMatrix(features)}
    if "n_layers" in arrays:
        matrices["pooled.language"] = ArrayMatrix(halves(features, arrays))
    plain = tables(features, "pooled")
    return Tables(plain.digests, plain.sources, matrices, {"assignments": arrays["assignments"].astype(float)})


def test_semdedup_as_a_method_given_its_clusters(golden: Path) -> None:
    arrays = read(golden, "semdedup")
    given = clustered(arrays)
    for number, eps in enumerate(arrays["eps"]):
        for rule, name in (("official", "survive_eps"), ("one_per_group", "survive_keptonly_eps")):
            columns = semdedup.score(given, semdedup.Options(labels="assignments", eps=float(eps), rule=rule))
            np.testing.assert_allclose(columns["similarity"], arrays["M_f64"], atol=1e-6)
            np.testing.assert_array_equal(columns["kept"], arrays[f"{name}{number}"])


def test_semdedup(golden: Path) -> None:
    arrays = read(golden, "semdedup")
    points = unit_rows(arrays["features"].astype(np.float64))
    order = np.lexsort((np.arange(len(points)), -arrays["dist_to_centroid"], arrays["assignments"]))
    np.testing.assert_array_equal(order, arrays["order_rows"])
    similarity = np.empty(len(points))
    masks = {f"{rule}{number}": np.empty(len(points), bool) for rule in ("", "keptonly_") for number in (0, 1)}
    for cluster in np.unique(arrays["assignments"]):
        rows = order[arrays["assignments"][order] == cluster]
        similarity[rows] = semdedup.earlier_similarity(points[rows])
        for number, eps in enumerate(arrays["eps"]):
            masks[str(number)][rows] = semdedup.survivors(points[rows], float(eps), "official")
            masks[f"keptonly_{number}"][rows] = semdedup.survivors(points[rows], float(eps), "one_per_group")
    np.testing.assert_allclose(similarity, arrays["M_f64"], atol=1e-6)
    np.testing.assert_allclose(similarity, arrays["M_official"], atol=1e-6)
    for number in (0, 1):
        np.testing.assert_array_equal(masks[str(number)], arrays[f"survive_eps{number}"])
        np.testing.assert_array_equal(masks[str(number)], arrays[f"survive_eps{number}_original_repo"])
        np.testing.assert_array_equal(masks[f"keptonly_{number}"], arrays[f"survive_keptonly_eps{number}"])


def test_semdedup_budget_is_the_exact_threshold(golden: Path) -> None:
    arrays = read(golden, "semdedup")
    given = tables(arrays["features"], "pooled")
    columns = {"score": 1 - arrays["M_f64"]}
    for number in (0, 1):
        survivors = arrays[f"survive_eps{number}"]
        picks = semdedup.select(columns, given, int(survivors.sum()), np.random.default_rng(0), semdedup.Options())
        np.testing.assert_array_equal(np.sort(picks), np.flatnonzero(survivors))


def test_digest_order_is_row_order_here(golden: Path) -> None:
    given = tables(read(golden, "semdedup")["features"], "pooled")
    np.testing.assert_array_equal(digest_order(given.digests), np.arange(len(given)))
