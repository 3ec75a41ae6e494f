"""The tests. Like the `east` command, they let idle threads sleep, which must be said before PyTorch is imported."""

import os

from east.launch.waiting import let_idle_threads_sleep

let_idle_threads_sleep(os.environ)
