"""Times, accuracy and int8 for lensmount: `lensmount bench`, `eval`, `tune`, and the int8 exporter."""
