"""New plugins: whole distributions, written from templates. `lensmount new-plugin` is its command."""
