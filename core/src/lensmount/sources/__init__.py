"""Weight sources and the artifact store."""
