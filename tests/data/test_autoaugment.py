import hashlib
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from multigrain_jax.data.autoaugment import (
    IMAGENET_POLICY,
    apply_operation,
    apply_policy,
)


@pytest.fixture(scope="module")
def golden(golden_dir):
    folder = golden_dir / "transforms"
    with np.load(folder / "autoaugment.npz") as arrays:
        arrays = dict(arrays)
    recorded = json.loads((folder / "transforms.json").read_text())
    return recorded, Image.fromarray(arrays["input"]), arrays


def sha(image):
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]


def test_operations_are_pixel_exact(golden):
    recorded, image, _ = golden
    for name, digest in recorded["aa_sha"].items():
        operation, magnitude, sign = name.split("/")
        if operation == "policy":
            continue
        got = apply_operation(
            image,
            operation.lower().replace("auto_contrast", "autocontrast"),
            int(magnitude),
            sign=-1 if sign == "minus" else 1,
        )
        assert sha(got) == digest, name


def test_sub_policies_are_pixel_exact(golden):
    _, image, arrays = golden
    for number, steps in enumerate(IMAGENET_POLICY):
        changed = image
        for step in steps:
            if step.probability > 0:
                changed = apply_operation(changed, step.operation, step.magnitude)
        want = arrays[f"policy/{number}/both_ops_sign_plus"]
        np.testing.assert_array_equal(np.asarray(changed), want)


def test_probabilities_equal_the_recorded_ones(golden):
    recorded = golden[0]["aa_policies"]
    assert len(recorded) == len(IMAGENET_POLICY)
    for row, steps in zip(recorded, IMAGENET_POLICY, strict=True):
        assert [row["p1"], row["p2"]] == [step.probability for step in steps]


def test_the_policy_draws_every_sub_policy_and_both_flips(golden):
    image = golden[1]
    rng = np.random.default_rng(0)
    seen = {sha(apply_policy(rng, image)) for _ in range(600)}
    # Unchanged and merely mirrored images come up, and many others.
    assert {sha(image), sha(ImageOps.mirror(image))} <= seen
    assert len(seen) > 60


def test_the_policy_takes_the_same_number_of_draws_always(golden):
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(20):
        apply_policy(rng, golden[1])
        other.random(6)
    assert rng.random() == other.random()
