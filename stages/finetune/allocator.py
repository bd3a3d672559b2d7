"""Keep the memory of a training step for the next step."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc refuses more
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Tell glibc to keep freed memory; return whether it did (elsewhere than on glibc nothing happens).

    A step frees its activations and gradients, and the next one asks for the same again. By default glibc returns such
    large blocks to the system, which hands them back page by page, each filled with zeros: with MiniLM 25,000 page
    faults and a tenth of the step's time.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")  # glibc's name; other libraries have no use for these settings
        kept = [libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD), libc.mallopt(M_TRIM_THRESHOLD, NEVER)]
    except (OSError, AttributeError):
        return False
    return all(kept)
