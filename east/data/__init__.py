"""The data sets: fetched and stored once, verified before use, and served as batches on the device.

`catalog` lists each data set (without PyTorch); `cifar` and `digits` read their sources; `prepare` writes them to disk;
`images` and `folder` read them back; `batches` augments; `open` puts these together for the training loop.
"""
