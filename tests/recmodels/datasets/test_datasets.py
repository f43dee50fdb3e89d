from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from recmodels.data.download import DownloadError
from recmodels.data.interactions import DataError, IntegerArray
from recmodels.data.tables import read_table
from recmodels.datasets import DATASETS, load_dataset, movielens100k, synthetic
from tests.recmodels.datasets.logs import small_log, write_parts


@pytest.fixture(scope="module")
def data_folder() -> Path:
    folder = os.environ.get("GPLOSS_DATA")
    if not folder:
        pytest.skip("GPLOSS_DATA is not set: no real data to read")
    return Path(folder)


@pytest.fixture(scope="module")
def ratings() -> pd.DataFrame:
    return synthetic.ratings(0)


def test_synthetic_is_the_same_everywhere(ratings: pd.DataFrame) -> None:
    content = ratings.to_numpy().astype("<i8").tobytes()
    assert hashlib.blake2b(content, digest_size=16).hexdigest() == "a92f1c5295dbbc8a3e1be04bda937c5d"
    assert not synthetic.ratings(1).equals(ratings)


def test_synthetic_has_the_shape_of_movielens(ratings: pd.DataFrame) -> None:
    assert len(ratings) == 100_000 and not ratings.duplicated(["user", "item"]).any()
    assert (ratings["user"].nunique(), ratings["item"].nunique()) == (943, 1682)
    per_user, per_item = ratings["user"].value_counts(), ratings["item"].value_counts()
    assert per_user.min() >= 20 and per_user.max() <= 737 and 60 <= per_user.median() <= 80
    assert 20 <= per_item.median() <= 40 and per_item.head(168).sum() > 40_000
    assert ratings["rating"].value_counts().sort_index().tolist() == [6_100, 11_400, 27_100, 34_200, 21_200]
    assert ratings.duplicated(["user", "timestamp"]).sum() > 100  # ties in time, as in real logs


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_synthetic_keeps_its_shape_for_other_seeds(seed: int) -> None:
    other = synthetic.ratings(seed)
    assert len(other) == 100_000 and not other.duplicated(["user", "item"]).any()
    assert (other["user"].nunique(), other["item"].nunique()) == (943, 1682)
    assert other["user"].value_counts().min() >= 20


def test_synthetic_is_not_missing_at_random(ratings: pd.DataFrame) -> None:
    by_item = ratings.groupby("item")["rating"].agg(["size", "mean"])
    assert by_item["size"].corr(by_item["mean"], method="spearman") > 0.2
    # and what is liked is met earlier
    ordered = ratings.sort_values(["user", "timestamp"])
    place = ordered.groupby("user").cumcount() / ordered.groupby("user")["item"].transform("size")
    assert ordered["rating"][place < 0.2].mean() > ordered["rating"][place > 0.8].mean() + 0.1


def test_synthetic_split() -> None:
    split = load_dataset("synthetic", seed=0)
    assert (split.name, split.n_users, split.n_items) == ("synthetic, leave one out", 943, 1682)
    assert sum(map(len, split.parts().values())) == 100_000
    assert split == load_dataset("synthetic")
    assert load_dataset("synthetic", seed=1).name == "synthetic (seed 1), leave one out"
    assert len(load_dataset("synthetic", split="by_time").test) == 10_000


def test_every_dataset_is_found_and_described() -> None:
    load_dataset(small_log())
    assert set(DATASETS) >= {"synthetic", "ml-100k", "filmtrust", "table"}
    assert all(dataset.name == name and dataset.summary for name, dataset in DATASETS.items())


def test_unknown_names_and_options() -> None:
    with pytest.raises(LookupError, match=r"no file, folder or dataset is named 'movies'; datasets: .*synthetic"):
        load_dataset("movies")
    with pytest.raises(TypeError, match="dataset 'synthetic' does not take user; it takes: seed, split"):
        load_dataset("synthetic", user="u")
    with pytest.raises(TypeError, match="dataset 'table' needs source"):
        load_dataset("table")
    with pytest.raises(LookupError, match="no split is named 'by_user'"):
        load_dataset(small_log(), split="by_user")


def test_all_readings_of_one_log_agree(tmp_path: Path) -> None:
    log = small_log()
    whole = load_dataset(log)
    log.to_csv(tmp_path / "log.csv", index=False)
    log.to_csv(tmp_path / "log.tsv.gz", index=False, sep="\t")
    log.to_csv(tmp_path / "u.data", index=False, header=False, sep="\t")
    typed = log.rename(columns={name: f"{name}:token" for name in log.columns})
    typed.to_csv(tmp_path / "log.inter", index=False, sep="\t")
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        archive.write(tmp_path / "u.data", "ml-100k/u.data")
    for name in ("log.csv", "log.tsv.gz", "u.data", "log.inter", "ml-100k.zip"):
        assert load_dataset(tmp_path / name).content_hash == whole.content_hash
        assert load_dataset(str(tmp_path / name)).name == f"{name}, leave one out"


def test_options_reach_the_table(tmp_path: Path) -> None:
    log = small_log().rename(columns={"user_id": "who", "item_id": "what", "rating": "stars", "timestamp": "when"})
    log.to_csv(tmp_path / "log.csv", index=False, sep=";")
    names = {"user": "who", "item": "what", "rating": "stars", "time": "when"}
    split = load_dataset(tmp_path / "log.csv", **names, positive_from=5, split="by_time", validation=0.2, test=0.3)
    assert [len(part) for part in split.parts().values()] == [30, 12, 18]
    random = load_dataset(tmp_path / "log.csv", **names, split="at_random", seed=4)
    assert random.name == "log.csv, at random (0.1, 0.1, seed 4)"
    with pytest.raises(DataError, match=r"log.csv: no user column found among: who, what, stars, when"):
        load_dataset(tmp_path / "log.csv")


def test_data_variable_that_names_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPLOSS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"GPLOSS_DATA names '.*nowhere', which is no folder"):
        load_dataset("ml-100k")


def test_with_the_data_variable_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPLOSS_DATA", str(tmp_path))
    monkeypatch.setattr(movielens100k, "URL", "http://127.0.0.1:1/never-asked.zip")
    with pytest.raises(DataError, match=r"has no folder ml-100k; put u.data or ml-100k.inter there, or unset"):
        load_dataset("ml-100k")
    (tmp_path / "ml-100k").mkdir()
    small_log().to_csv(tmp_path / "ml-100k" / "u.data", index=False, header=False, sep="\t")
    assert load_dataset("ml-100k").name == "ml-100k, leave one out"
    (tmp_path / "ml100k01-1-5").mkdir()
    write_parts(tmp_path / "ml100k01-1-5")
    assert load_dataset("ml-100k").name == "ml100k01-1-5, as published"
    assert load_dataset("ml-100k", split="leave_one_out").name == "ml-100k, leave one out"


def test_without_the_data_variable_movielens_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPLOSS_DATA", raising=False)
    small_log().to_csv(tmp_path / "u.data", index=False, header=False, sep="\t")
    asked = []

    def fetch(*request: object) -> Path:
        asked.append(request)
        with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
            archive.write(tmp_path / "u.data", "ml-100k/u.data")
        return tmp_path / "ml-100k.zip"

    monkeypatch.setattr(movielens100k, "fetch", fetch)
    assert load_dataset("ml-100k").content_hash == load_dataset(small_log()).content_hash
    assert asked[0][:2] == (movielens100k.URL, "md5:0e33842e24a9c977be4e0107933c0723")


def test_without_data_and_network_the_error_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPLOSS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(movielens100k, "URL", "http://127.0.0.1:1/ml-100k.zip")
    monkeypatch.setenv("GPLOSS_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match=r"could not be downloaded .* by hand and give its path instead"):
        load_dataset("ml-100k")


@pytest.mark.parametrize("variable", [True, False])
def test_filmtrust_that_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: bool) -> None:
    monkeypatch.setenv("GPLOSS_DATA", str(tmp_path))
    if not variable:
        monkeypatch.delenv("GPLOSS_DATA")
    with pytest.raises(DataError, match=r"FilmTrust is not here, .* or give the path of your file"):
        load_dataset("filmtrust")


def test_movielens_as_published_by_autolossgen(data_folder: Path) -> None:
    split = load_dataset("ml-100k")
    assert [len(part) for part in split.parts().values()] == [94_638, 2_334, 3_028]
    assert [int(part.labels.sum()) for part in split.parts().values()] == [53_491, 942, 942]
    assert (split.n_users, split.n_items) == (943, 1682)
    assert load_dataset(data_folder / "ml100k01-1-5") == split


def test_movielens_ratings(data_folder: Path) -> None:
    split = load_dataset("ml-100k", split="leave_one_out")
    assert [len(part) for part in split.parts().values()] == [94_626, 2_363, 3_011]
    assert load_dataset(data_folder / "ml-100k" / "ml-100k.inter").content_hash == split.content_hash
    assert sum(int(part.labels.sum()) for part in split.parts().values()) == 55_375
    assert len(load_dataset("ml-100k", split="by_time").test) == 10_000
    stars = load_dataset("ml-100k", positive_from=5)
    assert sum(int(part.labels.sum()) for part in stars.parts().values()) == 21_201


def test_original_movielens_file_reads_like_recboles(data_folder: Path, tmp_path: Path) -> None:
    log = read_table(data_folder / "ml-100k" / "ml-100k.inter")
    log.to_csv(tmp_path / "u.data", sep="\t", header=False, index=False)
    expected = load_dataset("ml-100k", split="leave_one_out").content_hash
    assert load_dataset(tmp_path / "u.data").content_hash == expected


def test_filmtrust(data_folder: Path) -> None:
    split = load_dataset("filmtrust")
    assert split.name == "filmtrust, at random (0.1, 0.1, seed 0)"
    assert sum(map(len, split.parts().values())) == 35_494  # 35,497 rows, three pairs occur twice
    assert split.content_hash != load_dataset("filmtrust", seed=1).content_hash
    with pytest.raises(
        DataError, match=r"3 \(user, item\) pairs occur more than once: .* line 17847 and line 17873"
    ):
        load_dataset(data_folder / "filmtrust" / "ratings.tsv", positive_from=3.5)


def test_interactions_without_a_known_separator_are_refused(data_folder: Path) -> None:
    with pytest.raises(DataError, match=r"interactions.txt, line 1: no separator is known"):
        load_dataset(data_folder / "yelp2018-sample" / "interactions.txt")


def test_synthetic_can_be_learned() -> None:
    """User and item means, the simplest model, order the test part well above chance."""
    split = load_dataset("synthetic")
    train, test = split.train, split.test

    def shrunken_means(ids: IntegerArray, size: int) -> npt.NDArray[np.float64]:
        total = np.bincount(ids, weights=train.labels - train.positive_share, minlength=size)
        return total / (np.bincount(ids, minlength=size) + 5)

    scores = shrunken_means(train.users, 943)[test.users] + shrunken_means(train.items, 1682)[test.items]
    positive, negative = scores[test.labels == 1], scores[test.labels == 0]
    assert (positive[:, None] > negative[None, :]).mean() > 0.72
