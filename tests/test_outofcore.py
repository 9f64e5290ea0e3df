"""Parquet folders as memory maps."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import neuralclust
from neuralclust import AEKMeans, open_rows, outofcore

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)


def write(folder, rows, parts=3, name="part"):
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(np.array_split(rows, parts)):
        table = pa.table({f"x{j}": part[:, j] for j in range(rows.shape[1])})
        pq.write_table(table, folder / f"{name}-{number}.parquet", row_group_size=40)
    return folder


def test_a_folder_is_a_memory_map_that_fits(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(outofcore, "_CHUNK_ROWS", 32)
    opened = open_rows(write(tmp_path / "table", rows))
    assert isinstance(opened, np.memmap)
    assert opened.dtype == np.float32
    np.testing.assert_array_equal(opened, rows)
    model = AEKMeans(3, encoder=None, random_state=0).fit(opened)
    np.testing.assert_array_equal(model.labels_, AEKMeans(3, encoder=None, random_state=0).fit(rows).labels_)


def test_a_copy_is_made_once_and_again_when_the_files_change(tmp_path, rows, monkeypatch):
    folder, made = write(tmp_path / "table", rows), []
    copy = outofcore._copy
    monkeypatch.setattr(outofcore, "_copy", lambda *args: (made.append(1), copy(*args)))
    open_rows(folder)
    open_rows(folder)
    assert len(made) == 1
    write(folder, rows + 1)
    np.testing.assert_array_equal(open_rows(folder), rows + 1)
    assert len(made) == 2


def test_a_single_file_and_a_map_and_a_cache_elsewhere(tmp_path, rows):
    write(tmp_path / "table", rows, parts=1)
    (tmp_path / "table" / "part-0.parquet").rename(tmp_path / "rows.PARQUET")
    np.testing.assert_array_equal(open_rows(tmp_path / "rows.PARQUET", cache=tmp_path / "deep" / "copy.npy"), rows)
    np.testing.assert_array_equal(open_rows(tmp_path / "deep" / "copy.npy"), rows)
    assert not (tmp_path / "rows.PARQUET.rows.npy").exists()


def test_dtypes_and_lists(tmp_path):
    columns = {
        "small": np.arange(6, dtype=np.uint8),
        "flag": np.arange(6) % 2 == 0,
        "code": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(18, dtype=np.float32)), 3),
        "list": pa.array([[1.0, 2.0]] * 6, pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet")
    assert rows.dtype == np.float32
    assert rows[1].tolist() == [1.0, 0.0, 3.0, 4.0, 5.0, 1.0, 2.0]
    pq.write_table(pa.table({"n": np.arange(3, dtype=np.int16)}), tmp_path / "b.parquet")
    assert open_rows(tmp_path / "b.parquet").dtype == np.int16


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"colour": ["red", "blue"]}, "column 'colour' holds string"),
        ({"size": [1.0, None]}, "column 'size' has missing values"),
        ({"code": [[1.0, 2.0], [1.0]]}, "not all the same length"),
        ({"code": [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]}, "not all the same length"),  # as many numbers as 3 x 2
        ({"code": [{"list": 1.0}]}, "holds struct"),
        ({}, "no columns|no rows"),
    ],
)
def test_columns_that_are_no_numbers(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=message):
        open_rows(tmp_path / "t.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_a_part_without_rows(tmp_path, rows):
    folder = write(tmp_path / "table", rows)
    pq.write_table(pa.table({f"x{j}": rows[:0, j] for j in range(4)}), folder / "a.parquet")
    np.testing.assert_array_equal(open_rows(folder), rows)


def test_a_copy_that_was_interrupted_is_made_anew(tmp_path, rows, monkeypatch):
    folder, replace = write(tmp_path / "table", rows), outofcore.os.replace

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(outofcore.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_rows(folder)
    monkeypatch.setattr(outofcore.os, "replace", replace)
    monkeypatch.chdir(folder)
    np.testing.assert_array_equal(open_rows("."), rows)


def test_files_that_do_not_fit_together(tmp_path, rows):
    folder = write(tmp_path / "table", rows)
    pq.write_table(pa.table({"x0": rows[:, 0]}), folder / "z.parquet")
    with pytest.raises(ValueError, match=r"z\.parquet has other columns than part-0\.parquet: \['x1', 'x2', 'x3'\]"):
        open_rows(folder)
    (folder / "z.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"z\.parquet cannot be read as Parquet"):
        open_rows(folder)


def test_what_is_not_there_and_what_is_in_the_way(tmp_path, rows):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_rows(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \.parquet file"):
        open_rows(tmp_path)
    (tmp_path / "table.txt").touch()
    with pytest.raises(ValueError, match=r"\.npy, \.parquet, or a folder"):
        open_rows(tmp_path / "table.txt")
    (tmp_path / "broken.npy").touch()
    with pytest.raises(ValueError, match=r"not a whole \.npy file"):
        open_rows(tmp_path / "broken.npy")
    (tmp_path / "table.rows.npy").write_text("mine")
    with pytest.raises(FileExistsError, match="is not what was written from"):
        open_rows(write(tmp_path / "table", rows))
    assert (tmp_path / "table.rows.npy").read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path, rows, monkeypatch):
    folder = write(tmp_path / "table", rows)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"GB are free. Give cache="):
        open_rows(folder)
    monkeypatch.undo()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full)
    with pytest.raises(OSError, match="No space left on device"):
        open_rows(folder)
    assert [file.name for file in tmp_path.iterdir()] == ["table"]


def test_a_path_is_not_data(tmp_path):
    with pytest.raises(TypeError, match="open_rows"):
        AEKMeans(3).fit(str(tmp_path))
    with pytest.raises(TypeError, match="open_rows"):
        neuralclust.TELL(3).fit(tmp_path)


def test_numbers_of_a_data_frames_rows_are_no_column(tmp_path):
    pd = pytest.importorskip("pandas")
    pd.DataFrame({"a": [1.0, 2, 3]}, index=[7, 1, 2]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"column '__index_level_0__', the numbers .* index=False"):
        open_rows(tmp_path / "x.parquet")


def test_a_link_may_have_the_ending_that_its_file_lacks(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    (tmp_path / "x.npy").rename(tmp_path / "blob")
    (tmp_path / "x.npy").symlink_to(tmp_path / "blob")
    assert open_rows(tmp_path / "x.npy").shape == (3, 3)


def test_a_cache_that_is_not_ours_any_more_is_told_and_kept(tmp_path):
    pq.write_table(pa.table({"a": np.arange(4.0), "b": np.ones(4)}), tmp_path / "x.parquet")
    cache = tmp_path / "rows.npy"
    assert open_rows(tmp_path / "x.parquet", cache=cache).shape == (4, 2)
    np.save(cache, np.zeros((5, 7)))
    with pytest.raises(FileExistsError, match="is not what was written from"):
        open_rows(tmp_path / "x.parquet", cache=cache)
    assert np.load(cache).shape == (5, 7)
