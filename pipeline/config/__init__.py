"""From a user's YAML to an experiment that can be planned: strict reading, typed settings, checks of what is named, errors with lines."""
