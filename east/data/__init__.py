"""The data sets: fetched and stored once, verified before use, and served as batches on the device.

`sets` has what reads each data set, and `catalog` what is known of it before it is there (both without PyTorch);
`cifar`, `digits`, `idx`, `decoded` and `torchvision_sets` read sources; `prepare` writes them to disk; `images` and
`folder` read them back; `batches` augments; `open` puts these together for the training loop.
"""
