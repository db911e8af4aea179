"""A model that finds circles, squares, triangles, stars, rings and crosses: a third party's lensmount plugin."""
