"""Whether a plan can run here: what is wrong with the installation, the machine and the data, and how to fix it."""
