"""Tests. Threads without work sleep at once in them, as they do in `east train`: said before PyTorch is loaded."""

import os

from east.launch.cores import let_idle_threads_sleep

let_idle_threads_sleep(os.environ)
