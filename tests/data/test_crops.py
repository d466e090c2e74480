import hashlib
import json

import numpy as np
import pytest

from multigrain_jax.data import crops
from multigrain_jax.data.decoding import PLAIN, decode


@pytest.fixture(scope="module")
def golden(golden_dir):
    return json.loads((golden_dir / "transforms" / "transforms.json").read_text())


@pytest.fixture(scope="module")
def photos(golden_dir):
    folder = golden_dir / "images"
    return {p.name: decode(p.read_bytes(), PLAIN) for p in folder.iterdir()}


def sha(image):
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]


def test_decoding_equals_the_recorded_pixels(golden, photos):
    for row in golden["lists"]["images"]:
        assert sha(photos[row["file"]]) == row["sha_decoded_rgb"]


def test_eval_transforms_are_pixel_exact(golden, photos):
    for row in golden["val"]:
        image = crops.eval_transform(
            photos[row["file"]], row["input_size"], row["crop"], smallest_side=1
        )
        assert sha(image) == row["sha_uint8_hwc"], row


def test_eval_sizes_equal_the_recorded_ones(golden):
    for row in golden["target_size"]:
        for mode in ("square", "rect"):
            size = crops.resized_size(
                row["w"],
                row["h"],
                test_size=row["input_size"],
                mode=mode,
                smallest_side=1,
            )
            # The original would make an image of no width of a 1 x 1000 one.
            recorded = [max(1, side) for side in row[f"{mode}_resized_wh"]]
            assert list(size) == recorded, row


def test_resized_crops_are_pixel_exact(golden, photos):
    for row in golden["resized_crop"]:
        top, left, height, width = (row[key] for key in "ijhw")
        box = (left, top, left + width, top + height)
        image = crops.resize_crop(photos[row["file"]], box, row["size"])
        assert sha(image) == row["sha_uint8_hwc"], row


def test_crop_statistics_equal_the_recorded_ones(golden):
    recorded = golden["rrc_statistics_500x400"]["torchvision_modern"]
    rng = np.random.default_rng(0)
    boxes = np.array(
        [crops.random_crop_box(rng, 500, 400, area_min=0.08) for _ in range(20000)]
    )
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert np.mean(width * height) / 200000 == pytest.approx(
        recorded["mean_area_frac"], rel=0.02
    )
    log_ratio = np.log(width / height)
    assert log_ratio.std() == pytest.approx(recorded["std_log_aspect"], rel=0.02)
    assert log_ratio.mean() == pytest.approx(recorded["mean_log_aspect"], abs=0.005)
    assert boxes[:, 1].mean() == pytest.approx(recorded["mean_i"], rel=0.03)
    assert boxes[:, 0].mean() == pytest.approx(recorded["mean_j"], rel=0.03)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (33, 47)])
def test_crop_boxes_lie_inside_any_image(size):
    rng = np.random.default_rng(1)
    for _ in range(200):
        left, top, right, bottom = crops.random_crop_box(rng, *size, area_min=0.08)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
