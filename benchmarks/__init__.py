"""Benchmarks: the measured claims of the README, each one command. Threads without work sleep, as under `east`."""

import os

from east.launch.cores import let_idle_threads_sleep

let_idle_threads_sleep(os.environ)  # before any of them imports PyTorch
