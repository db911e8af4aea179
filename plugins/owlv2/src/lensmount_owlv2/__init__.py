"""OWLv2 for lensmount: detection from a few boxes, from words, or from one picture."""
