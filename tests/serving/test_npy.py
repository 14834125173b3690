import io

import numpy as np
import pytest

from onestep.serving.npy import npy_rows


def file_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("size", [1, 7, 128, 10**6])
def test_rows_come_whole_however_the_bytes_are_cut(size: int) -> None:
    array = np.arange(150 * 6, dtype="<f4").reshape(150, 2, 3)
    content = file_of(array)
    chunks = (content[i : i + size] for i in range(0, len(content), size))
    parts = list(npy_rows(chunks))
    assert [left for _, left in parts] == [86, 22, 0]
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in parts]), array)


def test_of_a_file_that_is_cut_off_the_rows_that_came_are_there() -> None:
    content = file_of(np.zeros((100, 3), "<f4"))
    ((rows, left),) = npy_rows([content[:-1]])
    assert (len(rows), left) == (64, 36)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>bad gateway</html>",
        b"\x93NUMP0" + bytes(200),
        file_of(np.float32(3.0)),
        file_of(np.asfortranarray(np.zeros((2, 3), "<f4"))),
    ],
)
def test_what_is_no_file_of_rows_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="npy file"):
        list(npy_rows([content[:3], content[3:]]))
