from pathlib import Path

from onestep.sweeps.losses import add_loss, last_loss, losses_of


def test_losses_come_back_and_there_are_none_before_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "3"
    assert losses_of(folder) == []
    add_loss(folder, 64, 1.5)
    add_loss(folder, 128, 0.1 + 0.2)
    assert losses_of(folder) == [(64, 1.5), (128, 0.1 + 0.2)]


def test_what_is_read_again_after_a_checkpoint_takes_the_place_of_what_was_read_before(
    tmp_path: Path,
) -> None:
    for samples, loss in ((64, 4.0), (128, 3.0), (192, 2.0), (128, 3.5), (256, 1.0)):
        add_loss(tmp_path, samples, loss)
    assert losses_of(tmp_path) == [(64, 4.0), (128, 3.5), (256, 1.0)]


def test_a_reading_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    add_loss(tmp_path, 64, 4.0)
    add_loss(tmp_path, 128, 3.0)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-3])
    add_loss(tmp_path, 192, 2.0)
    assert losses_of(tmp_path) == [(64, 4.0), (192, 2.0)]


def test_the_last_reading_is_found_at_the_end_of_a_long_file_and_in_none(tmp_path: Path) -> None:
    assert last_loss(tmp_path) is None
    for samples in range(1, 2001):
        add_loss(tmp_path, samples * 10**6, samples / 7)
    assert last_loss(tmp_path) == (2000 * 10**6, 2000 / 7)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-3])
    assert last_loss(tmp_path) == (1999 * 10**6, 1999 / 7)
    for text in ("", "\n", "\n[64, 4.0", "\n[64"):
        file.write_text(text)
        assert last_loss(tmp_path) is None
