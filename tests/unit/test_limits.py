"""Limits on what is read: more than anything that is meant has, and less than what fills a small machine's memory."""

import pytest

from east.data import checksums, cifar, folder, images, manifest
from east.operations import archive

MEGABYTE = 10**6
ARCHIVE_OF_CIFAR, UNPACKED, LARGEST_IN_IT = 170_498_071, 187 * MEGABYTE, 155 * MEGABYTE
SMALL_FILES_OF_A_PLAN = 234 * MEGABYTE


@pytest.mark.parametrize(
    ("limit", "largest", "too_much"),
    [
        (checksums.FILE_BYTES, ARCHIVE_OF_CIFAR, 1000 * MEGABYTE),
        (cifar.MEMBER_BYTES, LARGEST_IN_IT, 1000 * MEGABYTE),
        (cifar.UNPACKED_BYTES, UNPACKED, 1000 * MEGABYTE),
        (folder.IMAGE_BYTES, 16 * MEGABYTE, 1000 * MEGABYTE),
        (images.HEADER_BYTES, 1000, 10 * MEGABYTE),
        (manifest.MOST_BYTES, MEGABYTE, 100 * MEGABYTE),
        (archive.UNPACKED_BYTES, SMALL_FILES_OF_A_PLAN, 10_000 * MEGABYTE),
    ],
)
def test_limits_let_pass_what_is_meant_and_stop_what_is_not(limit, largest, too_much):
    assert largest < limit < too_much
