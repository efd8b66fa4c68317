"""Still pictures in files: from the file to pixels.

`decode` reads and scales one picture, `pixels` prepares many of them, `listing` lists and labels them; `source` is the
base of data sets kept as pixels. `encoded` decodes compressed pictures during training, `encoded_source` prepares them.
"""
