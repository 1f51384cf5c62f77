import cv2
import numpy as np
import pytest
from PIL import Image

from fewtokens.report.photographs import bundled_photographs, read_photographs, square


def test_bundled_photographs_are_squares():
    found = bundled_photographs(64)
    assert len(found) == 7 and all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for p in found.values())
    assert all(p.std() > 10 for p in found.values())


def test_the_middle_is_taken():
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = 200
    assert (square(picture, 20) == 200).all() and (square(picture.transpose(1, 0, 2), 80) == 200).all()


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'I;16'])
def test_pictures_of_any_kind_become_rgb(tmp_path, mode):
    picture = Image.new('I;16', (30, 20), 40000) if mode == 'I;16' else Image.new('RGB', (30, 20), 'gray').convert(mode)
    picture.save(tmp_path / 'bild-ä.png')
    ((name, photograph),) = read_photographs(tmp_path, 28).items()
    assert name == 'bild-ä.png' and photograph.shape == (28, 28, 3) and 100 < photograph.mean() < 170


def test_a_turned_picture_is_turned(tmp_path):
    exif = Image.Exif()
    exif[274] = 3  # upside down
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :, 0] = 255
    Image.fromarray(pixels).save(tmp_path / 'a.jpg', exif=exif, quality=95)
    photograph = read_photographs(tmp_path, 32)['a.jpg']
    assert photograph[:12, :, 0].max() < 60 and photograph[20:, :, 0].min() > 200


@pytest.mark.parametrize('content', [b'', b'no picture', cv2.imencode('.png', np.eye(64) * 255)[1].tobytes()[:60]])
def test_a_damaged_picture_is_named(tmp_path, content):
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ValueError, match='a.png is no readable picture'):
        read_photographs(tmp_path, 28)


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match='no pictures in'):
        read_photographs(tmp_path, 28)
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        read_photographs(tmp_path / 'none', 28)
