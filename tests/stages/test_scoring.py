"""One definition of every score: floors, evaluate and compare count alike, and the table of protocols says how."""

import dataclasses

import numpy as np
import pytest

from gan.draws import spread
from gan.metrics import (
    density_coverage,
    energy_distance,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distance_full,
    precision_recall,
)
from gan.metrics.protocols import NETWORKS, PROTOCOLS, named
from stages.evaluate._published import _numbers, ends, too_few
from stages.reference_folder import Reference
from stages.scoring import SET_METRICS, Sets, protocols, set_measure, set_scores

pytestmark = pytest.mark.fast


def test_a_set_is_scored_by_the_metrics_that_protocols_name() -> None:
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(count, 6)).astype(np.float32) for count in (80, 90))
    odds = rng.dirichlet(np.ones(4), 90)
    found = set_scores(real, fake, odds)
    precision, recall = precision_recall(real, fake, k=3)
    density, coverage = density_coverage(real, fake, k=5)
    assert found == {
        "fid_domain": frechet_distance(real, fake), "kid_domain": kernel_distance_full(real, fake),
        "energy_domain": energy_distance(real, fake), "is_domain": inception_score(odds, splits=1)[0],
        "precision_k3": precision, "recall_k3": recall, "density_k5": density, "coverage_k5": coverage,
    }  # fmt: skip
    assert tuple(found) == SET_METRICS


def test_intervals_never_leave_what_is_possible_and_unbiased_ones_may_be_negative() -> None:
    values = {name: [0.99, 1.0, 1.0] for name in SET_METRICS} | {name: [0.01, 0.0, 0.0] for name in ("fid_domain",)}
    values |= {name: [-0.02, 0.01, 0.0] for name in ("kid_domain", "energy_domain")}
    empty = np.empty(0)
    sets = Sets(9, values, None, empty.astype(np.int64), empty.astype(np.float32))
    found = {name: set_measure(sets, name, None) for name in SET_METRICS}
    assert found["precision_k3"]["high"] == found["coverage_k5"]["high"] == 1.0 and found["density_k5"]["high"] > 1
    assert found["fid_domain"]["low"] == 0.0 and found["is_domain"]["low"] == 1.0
    assert found["kid_domain"]["low"] < 0 and found["energy_domain"]["low"] < 0


def test_every_reported_number_is_in_the_table_and_carries_its_entry() -> None:
    found = protocols({"sha256": "e" * 64, "width": 32}, n=263, heldout=263, sets=20, seed=7)
    assert set(found) == {*SET_METRICS, "label_agreement"}
    for name, record in found.items():
        fixed = {key: value for key, value in PROTOCOLS[name].as_record().items() if key != "arithmetic"}
        assert fixed.items() <= record.items()
        assert record["name"] == name and record["extractor_sha256"] == "e" * 64 and record["seed"] == 7
        assert {"metric", "n_real", "n_fake", "interval", "estimand", "resize", "splits", "arithmetic"} <= set(record)
    assert found["precision_k3"]["k"] == 3 and found["density_k5"]["k"] == 5 and found["fid_domain"]["ddof"] == 1


def test_a_protocol_says_which_held_out_images_a_set_meets() -> None:
    found = protocols({"sha256": "e" * 64, "width": 32}, n=1000, heldout=30_000, sets=20, seed=7)
    assert (found["fid_domain"]["n_real"], found["fid_domain"]["n_fake"]) == (1000, 1000)
    for key in ("estimand", "reference"):
        assert found["fid_domain"][key].endswith("1000 of the 30000 held-out images, evenly spread")
    assert (found["label_agreement"]["n_real"], found["label_agreement"]["n_fake"]) == (30_000, 20_000)


def test_names_say_what_they_fix_and_no_two_entries_fix_the_same() -> None:
    fixed = [
        (p.kind, p.extractor, p.resize, p.real, p.n_real, p.n_fake, p.k, p.score_splits, p.subsets, p.subset_size)
        for p in PROTOCOLS.values()
    ]
    assert len(set(fixed)) == len(fixed)
    measures = [name for each in PROTOCOLS.values() for name in each.measures]
    assert len(set(measures)) == len(measures) and set(SET_METRICS) <= set(measures)
    for name, each in PROTOCOLS.items():
        assert each.name == name
        if each.extractor == "domain":
            continue
        (network,) = (key for key in sorted(NETWORKS, key=len, reverse=True)[:5] if f"_{key}" in name)
        assert (each.extractor, each.resize) == NETWORKS[network]
        assert each.n_fake == ({"10k": 10_000, "50k": 50_000}.get(name.split("_")[0][-3:]))
        assert each.k is None or f"_k{each.k}_" in name
        assert each.real is None or name.endswith(each.real)
        assert (each.kind == "kernel" and each.n_fake is not None) == (each.subsets is not None)


@pytest.mark.parametrize(
    ("name", "kind", "n_real", "extra"),
    [
        ("fid50k_inception_tf_train", "frechet", None, {}),
        ("kid50k_inception_clean_train", "kernel", None, {"subsets": 100, "subset_size": 1000}),
        ("is50k_inception_tf", "inception", None, {"score_splits": 10, "real": None}),
        ("pr50k_k3_vgg16_train", "precision_recall", 50_000, {"k": 3}),
        ("dc10k_k5_inception_tf_heldout", "density_coverage", 10_000, {"k": 5}),
        ("fd50k_dinov2_vitl14_train", "frechet", None, {"resize": "pil_bicubic"}),
    ],
)
def test_names_of_papers(name: str, kind: str, n_real: int | None, extra: dict[str, object]) -> None:
    found = named(name)
    assert (found.kind, found.n_real) == (kind, n_real)
    assert all(getattr(found, key) == value for key, value in extra.items())


def test_an_unknown_name_is_refused_with_a_near_one() -> None:
    with pytest.raises(ValueError, match="did you mean fid50k_inception_tf_train"):
        named("fid50k_inception_train")
    with pytest.raises(ValueError, match=r"docs/metrics\.md"):
        named("zzz")


@pytest.mark.parametrize(
    ("name", "train", "reason"),
    [
        ("fid50k_inception_tf_train", 4095, "needs at least 4096"),
        ("fid50k_inception_tf_train", 4096, None),
        ("kid50k_inception_tf_train", 999, "needs at least 1000"),
        ("kid50k_inception_tf_train", 1000, None),
        ("pr50k_k3_inception_tf_train", 49_999, "takes 50000 images of train; there are 49999"),
        ("pr_k3_inception_tf_heldout", 0, "needs at least 4"),
        ("is50k_inception_tf", 0, None),
    ],
)
def test_too_few_images_are_refused_at_the_bound(name: str, train: int, reason: str | None) -> None:
    reference = Reference(None, {"counts": {"train": train, "heldout": 3}})  # type: ignore[arg-type]
    found = too_few(named(name), reference, 2048)
    assert found is None if reason is None else found is not None and reason in found


def test_rows_are_spread_and_ranges_fit() -> None:
    rows = np.arange(10, dtype=np.float32)[:, None]
    assert spread(rows, 5)[:, 0].tolist() == [0, 2, 4, 6, 8] and spread(rows, 10).tolist() == rows.tolist()
    pair, counts = named("dc50k_k5_vgg16_train"), {"n_real": 50, "n_fake": 50}
    low, high = ends(pair, "x_coverage", [1.0, 1.0, 1.0], **counts)
    assert high == 1.0 and 0.95 < low < 0.99  # Wilson: three sets that agree are not certain
    assert ends(pair, "x_density", [0.0, 0.0, 0.3], **counts)[0] == 0.0
    assert ends(named("kid_inception_tf_heldout"), "x", [-0.1, 0.0, 0.1], **counts)[0] < -0.1


class Known(Reference):
    """A reference whose real features are normal rows."""

    def features(self, split: str, extractor: str = "domain") -> np.ndarray:
        return np.random.default_rng(0).normal(size=(self.info["counts"][split], 4)).astype(np.float32)


def test_the_interval_over_sets_of_random_subsets_covers() -> None:
    """KID as papers take it, five sets: subsets that all sets shared once left it at 77 % of these cases."""
    known = Known(None, {"counts": {"train": 300}})  # type: ignore[arg-type]
    small = dataclasses.replace(named("kid10k_inception_tf_train"), n_fake=200, subsets=5, subset_size=20)
    rng, hits = np.random.default_rng(1), 0
    truth = np.mean([kernel_distance_full(known.features("train"), rng.normal(0.3, 1, (2000, 4))) for _ in range(20)])
    for seed in range(150):
        sets = rng.normal(0.3, 1, (5, 200, 4)).astype(np.float32)
        values = [_numbers(small, known, "", each, None, seed=seed, index=i)[small.name] for i, each in enumerate(sets)]
        low, high = ends(small, small.name, values, n_real=300, n_fake=200)
        hits += low <= truth <= high
    assert 0.9 <= hits / 150 <= 0.99, hits


def test_the_first_set_has_the_subsets_of_papers() -> None:
    known = Known(None, {"counts": {"train": 50}})  # type: ignore[arg-type]
    small = dataclasses.replace(named("kid10k_inception_tf_train"), n_fake=40, subsets=5, subset_size=20)
    fake = np.random.default_rng(2).normal(size=(40, 4)).astype(np.float32)
    first, second = (_numbers(small, known, "", fake, None, seed=3, index=index)[small.name] for index in (0, 1))
    assert first == kernel_distance(known.features("train"), fake, subsets=5, subset_size=20, seed=3)[0] != second
