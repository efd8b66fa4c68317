"""Picture files: decoding, scaling, listing and preparing.

`decode` decodes and scales one picture, `pixels` prepares many, `listing` lists and labels them. `source` is the base
class of data sets stored as pixels. `encoded` decodes compressed pictures during training, `encoded_source` prepares
them.
"""
