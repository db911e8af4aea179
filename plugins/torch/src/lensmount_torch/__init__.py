"""torch as a backend of lensmount: networks placed, cast, compiled and captured."""
