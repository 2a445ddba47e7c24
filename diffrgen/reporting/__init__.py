"""Reports for studies of a split and for any image: retrieve, encode, generate."""
