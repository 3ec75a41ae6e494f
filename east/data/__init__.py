"""The data sets: fetched and stored once, verified before use, and served as batches on the device.

`catalog` says what each data set is (without PyTorch); `prepare` writes it to disk; `images` and `folder` read it;
`split` holds out validation images; `batches` augments them; `open` puts these together for the training loop.
"""
