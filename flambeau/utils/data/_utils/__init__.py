"""What the loader is made of; user code imports the names from `flambeau.utils.data`."""
