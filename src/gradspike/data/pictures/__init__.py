"""Image files: decoding, scaling, listing and preparing.

`decode` decodes and scales one image, `pixels` prepares many, `listing` lists and labels them. `source` is the base
class of data sets stored as pixels. `encoded` decodes compressed images during training, `encoded_source` prepares
them.
"""
