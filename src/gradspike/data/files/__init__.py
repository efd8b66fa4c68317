"""Files of a data set: folders, archives, fingerprints, downloads."""
